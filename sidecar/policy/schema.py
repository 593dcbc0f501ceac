"""The gateway's published schema: which parameters each method takes, and which scope it asks for.

It comes with the npm package `@openclaw/gateway-protocol` as `protocol.schema.json` (draft-07); no gateway serves it (2026.9.6 has
`config.schema`, which is about its configuration). `methods` holds `{scope, since}` a method, and nothing that leads from there to
its parameters: those are found among `definitions` by their name (`chat.send` → `ChatSendParams`), as far as they can be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Node = Mapping[str, Any]

_PARAMS = "Params"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")
_COMBINED = ("allOf", "anyOf", "oneOf")


class SchemaError(ValueError):
    """This is no schema of the gateway's protocol."""


@dataclass(frozen=True, slots=True)
class Schema:
    """One `protocol.schema.json`."""

    scopes: Mapping[str, str]
    """Method → the scope it asks for: `operator.read` …, `node`, `dynamic` where that depends on its parameters."""

    definitions: Mapping[str, Node]
    params: Mapping[str, Node]
    """Method → the definition of its parameters; methods whose definition was not found are missing."""

    def members(self, node: Node) -> Mapping[str, Node] | None:
        """The members that an object may have, by name; None for what is no object, or one with members of any name."""
        found: dict[str, Node] = {}
        for part in self._parts(node, frozenset()):
            if "patternProperties" in part or part.get("additionalProperties", False) is not False:
                return None
            properties = part.get("properties")
            if isinstance(properties, dict):
                found |= {name: member if isinstance(member, dict) else {} for name, member in properties.items()}
        return found if found or node.get("type") == "object" else None

    def items(self, node: Node) -> Node:
        """What a list's entries are; the empty schema where that is not said."""
        parts = self._parts(node, frozenset())
        return next((part["items"] for part in parts if isinstance(part.get("items"), dict)), {})

    def _parts(self, node: Node, seen: frozenset[str]) -> Iterator[Node]:
        """The node and all that it is combined from; a reference that leads to itself is followed once."""
        name = str(node.get("$ref", "")).removeprefix("#/definitions/")
        if name:
            if name not in seen and name in self.definitions:
                yield from self._parts(self.definitions[name], seen | {name})
            return
        yield node
        for part in (part for word in _COMBINED for part in node.get(word, ())):
            if isinstance(part, dict):  # `true` stands for anything
                yield from self._parts(part, seen)


def read_schema(source: bytes) -> Schema:
    """Parse `protocol.schema.json`. Raises SchemaError."""
    try:
        raw = json.loads(source)
        methods, definitions = raw["methods"], raw["definitions"]
        scopes = {name: str(said["scope"]) for name, said in methods.items()}
        definitions = {name: {**definition} for name, definition in definitions.items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SchemaError(
            f"it has no `methods` and `definitions` as protocol.schema.json has them ({error!r:.80})"
        ) from error
    return Schema(scopes, definitions, _params(scopes, definitions))


def _params(methods: Iterable[str], definitions: Mapping[str, Node]) -> dict[str, Node]:
    """By the exact name first; else by its words without plurals, where one definition alone has them."""
    by_words: dict[str, list[str]] = {}
    for name in definitions:
        if name.endswith(_PARAMS):
            by_words.setdefault(_words(name.removesuffix(_PARAMS)), []).append(name)
    found = {}
    for method in methods:
        exact = "".join(part[:1].upper() + part[1:] for part in re.split(r"[.\-_]", method)) + _PARAMS
        words = _words(method)
        likely = by_words.get(words) or by_words.get(words.removesuffix("get")) or []
        name = exact if exact in definitions else likely[0] if len(likely) == 1 else ""
        if name:
            found[method] = definitions[name]
    return found


def _words(name: str) -> str:
    """`sessions.github.status` and `SessionGitHubStatus` → the same."""
    return "".join(word.lower().removesuffix("s") for word in _WORD.findall(name)).replace("-", "")
