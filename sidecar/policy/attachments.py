"""Files that a request carries itself. Nothing on the gateway, or elsewhere, is an attachment by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.errors import MalformedFrame

_ATTACHMENT = frozenset(
    {"type", "mimeType", "fileName", "content", "origin", "sizeBytes", "durationMs", "width", "height"}
)
_SOURCE = frozenset({"type", "media_type", "data"})


def check_attachments(name: str, value: Any) -> None:
    """Raise MalformedFrame unless every attachment is carried by the request itself, as base64 text.

    Gateway 2026.9.6 reads `content`, or a `source` of type `base64`; a path, a URL or a media id has no place in it.
    """
    whole = isinstance(value, list) and all(isinstance(one, dict) and _is_carried(one) for one in value)
    if not whole:
        raise MalformedFrame(f"'{name}' is a list of files: {{type, mimeType, fileName, content: base64 text}}")


def _is_carried(attachment: Mapping[str, Any]) -> bool:
    source = attachment.get("source", {"type": "base64"})
    own = {key: value for key, value in attachment.items() if key != "source"}
    return (
        _ATTACHMENT.issuperset(own)
        and not any(isinstance(value, (dict, list)) for value in own.values())
        and isinstance(source, dict)
        and _SOURCE.issuperset(source)
        and source.get("type") == "base64"
        and all(isinstance(value, str) for value in source.values())
    )
