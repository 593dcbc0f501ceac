"""A file comes with the request, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.errors import MalformedFrame
from sidecar.policy.attachments import check_attachments

PICTURE = {"type": "image", "mimeType": "image/png", "fileName": "a.png", "content": "aGVsbG8="}


@pytest.mark.parametrize(
    "attachments",
    [
        [],
        [PICTURE],
        [PICTURE, {**PICTURE, "sizeBytes": 5, "width": 1, "height": 1, "durationMs": 0, "origin": "paste"}],
        [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}}],
    ],
)
def test_carried_files_pass(attachments: Any) -> None:
    check_attachments("attachments", attachments)


@pytest.mark.parametrize(
    "attachments",
    [
        None,
        "aGVsbG8=",
        {"0": PICTURE},
        ["aGVsbG8="],
        [{**PICTURE, "path": "/etc/passwd"}],
        [{**PICTURE, "url": "file:///etc/passwd"}],
        [{**PICTURE, "mediaId": "media://inbound/x"}],
        [{**PICTURE, "content": {"source": "file:///etc/passwd"}}],
        [{**PICTURE, "content": ["aGVsbG8="]}],
        [{"type": "image", "source": {"type": "url", "data": "http://127.0.0.1/"}}],
        [{"type": "image", "source": {"type": "base64", "path": "/etc/passwd"}}],
        [{"type": "image", "source": {"type": "base64", "data": {"x": 1}}}],
        [{"type": "image", "source": "media://inbound/x"}],
    ],
)
def test_references_are_refused(attachments: Any) -> None:
    with pytest.raises(MalformedFrame, match="list of files"):
        check_attachments("attachments", attachments)
