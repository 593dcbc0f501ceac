"""A request → what is done with it. Pure: ids that need a claim are only named here; the relay claims them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.domain.namespace import Namespace
from sidecar.errors import ForeignKey, MalformedFrame, MethodRefused
from sidecar.policy.commands import check_text
from sidecar.policy.table import MethodRow, Rule, Table

MAX_RUN_ID = 128


@dataclass(frozen=True, slots=True)
class Patched:
    """A gateway that was patched to take a user's workspace and credentials with `chat.send`."""

    workspace_dir: str
    auth_profile_id: str


@dataclass(frozen=True, slots=True)
class Forward:
    """Send it on, with `params` where `changed`, else the bytes that came."""

    row: MethodRow
    params: dict[str, Any]
    changed: bool
    new_run: str | None = None
    """The id that the request gives to the run it starts; to be claimed first."""

    new_run_param: str = ""
    own_run: str | None = None
    """The id of a run that the request reads or ends; to be the caller's."""

    own_run_param: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer it here: the gateway is not asked."""

    payload: Any


def decide(
    method: str,
    params: dict[str, Any],
    namespace: Namespace,
    table: Table,
    *,
    new_id: Callable[[], str],
    patched: Patched | None = None,
) -> Forward | Answer:
    """What is done with `method`. `params` is left as it is. Raises MethodRefused, ForeignKey, MalformedFrame."""
    row = table.methods.get(method)
    if row is None:
        raise MethodRefused(f"the method '{_shown(method)}' is not available here")
    if row.answer is not None:
        return Answer(row.answer)
    judge = _Judge(namespace, table)
    out: dict[str, Any] = {}
    for name, value in params.items():
        rule = row.params.get(name)
        if rule is None and name in _PATCHED_PARAMS and row.starts_run:
            rule = Rule.DROP
        if rule is None:
            raise MethodRefused(
                f"the parameter '{_shown(name)}' of {method} is not available here", detail_code="PARAM_NOT_ALLOWED"
            )
        if rule is not Rule.DROP:
            out[name] = judge.value(rule, name, value)
    for name, rule in row.force.items():
        if name not in out:
            out[name] = _forced(rule, namespace, new_id)
    if patched and row.starts_run and "sessionKey" in row.params:
        out |= {"workspaceDir": patched.workspace_dir, "authProfileId": patched.auth_profile_id}
    return _forward(row, params, out)


_PATCHED_PARAMS = frozenset({"workspaceDir", "authProfileId"})
"""What clients of patched gateways send: understood, taken out, and where the gateway takes them, set to the user's own."""


def _forward(row: MethodRow, params: Mapping[str, Any], out: dict[str, Any]) -> Forward:
    new_run = next((name for name, rule in row.params.items() if rule is Rule.NEW_RUN and name in out), "")
    own_run = next((name for name, rule in row.params.items() if rule is Rule.OWN_RUN and name in out), "")
    return Forward(
        row=row,
        params=out,
        changed=out != params,
        new_run=out[new_run] if new_run else None,
        new_run_param=new_run,
        own_run=out[own_run] if own_run else None,
        own_run_param=own_run,
    )


def _forced(rule: Rule, namespace: Namespace, new_id: Callable[[], str]) -> str:
    if rule is Rule.AGENT:
        return namespace.agent_id
    return new_id() if rule is Rule.NEW_RUN else namespace.main


def _shown(name: str) -> str:
    """A client's own word, in an answer to that client."""
    return name[:64] if name.isprintable() else "?"


class _Judge:
    """One parameter after the other, each by its rule."""

    def __init__(self, namespace: Namespace, table: Table) -> None:
        self._namespace = namespace
        self._table = table

    def value(self, rule: Rule, name: str, value: Any) -> Any:
        if rule is Rule.PASS:
            return value
        if rule is Rule.EXISTING_KEYS:
            if not isinstance(value, list):
                raise MalformedFrame(f"'{name}' is a list of session keys")
            return [self._one(Rule.EXISTING_KEY, name, each) for each in value]
        if rule is Rule.ATTACHMENTS:
            check_attachments(name, value)
            return value
        return self._one(rule, name, value)

    def _one(self, rule: Rule, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise MalformedFrame(f"'{name}' is text")
        match rule:
            case Rule.KEY:
                return self._namespace.adopt(value)
            case Rule.EXISTING_KEY:
                return self._namespace.adopt_existing(value)
            case Rule.AGENT:
                return self._agent(value)
            case Rule.TEXT:
                check_text(value, self._table)
                return value
            case _:
                return _run_id(name, value)

    def _agent(self, value: str) -> str:
        """The own agent, also where a client says the default one's name, as clients of a single-user gateway do."""
        named = value.strip().lower()
        if named not in {"", "main"} and not self._namespace.owns_agent(named):
            raise ForeignKey("that agent is not yours")
        return self._namespace.agent_id


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


def _run_id(name: str, value: str) -> str:
    if not 0 < len(value) <= MAX_RUN_ID or not value.isascii() or not value.isprintable() or value != value.strip():
        raise MalformedFrame(f"'{name}' is 1 to {MAX_RUN_ID} printable ASCII characters")
    return value
