"""A configuration that is right, as tables, and how tests write and load variations of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import ConfigurationError, Problem
from sidecar.settings import Settings, load

Document = dict[str, Any]

_GOOD: Document = {
    "gateways": [{"id": "main", "url": "ws://127.0.0.1:18789", "password": "gateway-password"}],
    "identity": {"issuers": [{"name": "example", "issuer": "https://login.example.com/"}]},
}


def good(**sections: Any) -> Document:
    """The smallest document that loads, with sections laid over it."""
    document = copy.deepcopy(_GOOD)
    document.update(sections)
    return document


def gateway(**keys: Any) -> Document:
    """A document with one gateway that has these keys besides id and url."""
    return good(gateways=[{"id": "main", "url": "ws://127.0.0.1:18789", **keys}])


def issuer(**keys: Any) -> Document:
    """A document with one issuer that has these keys besides a name and a URL."""
    return good(identity={"issuers": [{"name": "example", "issuer": "https://login.example.com/", **keys}]})


def to_toml(document: Document) -> str:
    """TOML with every top-level value as an inline one; JSON texts, numbers and lists are TOML too."""
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in document.items())


def _key(key: str) -> str:
    return json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def load_document(folder: Path, document: Document, environ: Mapping[str, str] | None = None) -> Settings:
    path = folder / "sidecar.toml"
    path.write_text(to_toml(document), encoding="utf-8")
    return load(path, environ or {})


def problems_of(folder: Path, document: Document, environ: Mapping[str, str] | None = None) -> dict[str, Problem]:
    """The problems by setting; fails if the document loads."""
    with pytest.raises(ConfigurationError) as caught:
        load_document(folder, document, environ)
    return {problem.setting: problem for problem in caught.value.problems}
