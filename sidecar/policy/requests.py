"""A request → what is done with it. Pure: ids whose owner must be asked are only named here; the relay asks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.domain.namespace import Namespace
from sidecar.errors import ForeignKey, MalformedFrame, MethodRefused
from sidecar.policy.attachments import check_attachments
from sidecar.policy.commands import check_text
from sidecar.policy.paths import check_path
from sidecar.policy.resets import METHOD, reset_command
from sidecar.policy.rules import Only, Own, ParamRule, Rule, Shape
from sidecar.policy.shared import within_shared_agent
from sidecar.policy.table import ROLES, MethodRow, Table

MAX_RUN_ID = 128
MAX_ID = 256
MAX_IDS = 200
_MODEL = re.compile(r"[^@\s]{1,200}")


@dataclass(frozen=True, slots=True)
class Patched:
    """A gateway that was patched to take a user's workspace and credentials with `chat.send`."""

    workspace_dir: str
    auth_profile_id: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """An id that the request names as the caller's own; only the relay can know whether it is."""

    kind: str
    """`run`, or a kind of the table."""

    id: str
    place: tuple[str | int, ...]
    """Where in `params` it stands."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Send it on, with `params` where `changed`, else the bytes that came."""

    row: MethodRow
    params: dict[str, Any]
    changed: bool
    new_run: str | None = None
    """The id that the request gives to the run it starts; to be claimed first."""

    new_run_param: str = ""
    """Where it stands; empty where the gateway will choose another, and this one only counts until it does."""

    claims: tuple[Claimed, ...] = ()
    """To be the caller's, all of them."""

    reset: str = ""
    """`new` or `reset`: the session is to be emptied first, as admin; the message is what stood behind the command."""


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
    roles: Collection[str] = ROLES,
    patched: Patched | None = None,
) -> Forward | Answer:
    """What is done with `method`. `params` is left as it is. Raises MethodRefused, ForeignKey, MalformedFrame."""
    row = table.methods.get(method)
    if row is None:
        raise MethodRefused(f"the method '{_shown(method)}' is not available here")
    if row.roles.isdisjoint(roles):
        if row.otherwise is not None:
            return Answer(row.otherwise)
        raise MethodRefused(f"the method '{method}' is not for your role", detail_code="ROLE_NOT_ALLOWED")
    if row.answer is not None:
        return Answer(row.answer)
    judge = _Judge(method, namespace, table)
    reset, message = reset_command(params.get("message")) if row.resets else ("", "")
    if reset and table.passes_method(METHOD, roles):
        params = {**params, "message": message}
    rules = {**dict.fromkeys(_PATCHED_PARAMS, Rule.DROP), **row.params} if row.starts_run else row.params
    out = judge.members(rules, {name: value for name, value in params.items() if name not in row.fixed}, ())
    starts = row.starts_run and (not row.starts_when or any(out.get(name) is not None for name in row.starts_when))
    for name, rule in row.force.items():
        if not any(out.get(other) for other in row.unless.get(name, ())):
            out[name] = _forced(rule, out.get(name), namespace, new_id)
    out |= row.fixed
    _require_bound(row, out)
    if namespace.is_shared:
        out = within_shared_agent(row, out, namespace, new_id)
    if patched and starts:
        out |= {"workspaceDir": patched.workspace_dir, "authProfileId": patched.auth_profile_id}
    new_run = next((name for name, rule in row.params.items() if rule is Rule.NEW_RUN and name in out), "")
    return Forward(
        row=row,
        params=out,
        changed=bool(reset) or out != params,
        new_run=out[new_run] if new_run else new_id() if starts else None,
        new_run_param=new_run,
        claims=tuple(judge.claims),
        reset=reset,
    )


_PATCHED_PARAMS = ("workspaceDir", "authProfileId")
"""What clients of patched gateways send: understood, taken out, and where the gateway takes them, set to the user's own."""


def replaced(params: dict[str, Any], place: tuple[str | int, ...], value: str) -> dict[str, Any]:
    """A copy of `params` with `value` at `place`; what does not lead there is shared."""

    def put(holder: Any, at: int) -> Any:
        if at == len(place):
            return value
        copy: Any = dict(holder) if isinstance(holder, dict) else list(holder)
        copy[place[at]] = put(holder[place[at]], at + 1)
        return copy

    changed: dict[str, Any] = put(params, 0)
    return changed


def _require_bound(row: MethodRow, params: Mapping[str, Any]) -> None:
    """What is done as admin is about something of the caller's, which by now stands there. Raises MalformedFrame."""
    if not row.as_admin:
        return
    bound = (name for name, rule in row.params.items() if isinstance(rule, Own) or rule in _BINDING)
    if not any(name in params for name in bound):
        raise MalformedFrame(f"'{row.name}' has to name what of yours it is about")


_BINDING = frozenset({Rule.KEY, Rule.EXISTING_KEY, Rule.AGENT})


def _forced(rule: ParamRule, given: Any, namespace: Namespace, new_id: Callable[[], str]) -> Any:
    if isinstance(rule, Shape):
        members = given or {}
        return {
            **members,
            **{name: _forced(one, members.get(name), namespace, new_id) for name, one in rule.members.items()},
        }
    if given is not None:
        return given
    if rule is Rule.AGENT:
        return namespace.agent_id
    return new_id() if rule is Rule.NEW_RUN else namespace.main


def _shown(name: str) -> str:
    """A client's own word, in an answer to that client."""
    return name[:64] if name.isprintable() else "?"


class _Judge:
    """One parameter after the other, each by its rule."""

    def __init__(self, method: str, namespace: Namespace, table: Table) -> None:
        self.claims: list[Claimed] = []
        self._method = method
        self._namespace = namespace
        self._table = table

    def members(
        self, rules: Mapping[str, ParamRule], values: Mapping[str, Any], place: tuple[str | int, ...]
    ) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, value in values.items():
            rule = rules.get(name)
            if rule is None:
                shown = ".".join([*(part for part in place if isinstance(part, str)), _shown(name)])
                raise MethodRefused(
                    f"the parameter '{shown}' of {self._method} is not available here", detail_code="PARAM_NOT_ALLOWED"
                )
            if rule is not Rule.DROP:
                out[name] = self._value(rule, name, value, (*place, name))
        return out

    def _value(self, rule: ParamRule, name: str, value: Any, place: tuple[str | int, ...]) -> Any:
        check = _CHECKS.get(rule) if isinstance(rule, Rule) else None
        if check is not None:
            check(name, value)
            return value
        match rule:
            case Rule.EXISTING_KEYS:
                return [self._word(Rule.EXISTING_KEY, name, one) for one in _listed(name, value)]
            case Own(kind, many):
                return self._claim(kind, name, value, place, many=many)
            case Only(words):
                return _one_of(words, name, value)
            case Shape(members, many):
                return self._object(members, name, value, place, many=many)
            case _:
                return self._word(rule, name, value)

    def _object(
        self, rules: Mapping[str, ParamRule], name: str, value: Any, place: tuple[str | int, ...], *, many: bool
    ) -> Any:
        if many:
            return [
                self._object(rules, name, one, (*place, at), many=False) for at, one in enumerate(_listed(name, value))
            ]
        if not isinstance(value, dict):
            raise MalformedFrame(f"'{name}' is an object")
        return self.members(rules, value, place)

    def _claim(self, kind: str, name: str, value: Any, place: tuple[str | int, ...], *, many: bool) -> Any:
        for at, one in enumerate(_listed(name, value) if many else [value]):
            most = MAX_RUN_ID if kind == "run" else MAX_ID
            self.claims.append(Claimed(kind, _id(name, one, most), (*place, at) if many else place))
        return value

    def _word(self, rule: ParamRule, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise MalformedFrame(f"'{name}' is text")
        match rule:
            case Rule.KEY:
                return self._namespace.adopt(value)
            case Rule.EXISTING_KEY:
                return self._namespace.adopt_existing(value)
            case Rule.AGENT:
                return self._agent(value)
            case Rule.OWN_ID:
                return f"{self._namespace.slug}-{hashlib.sha256(value.encode()).hexdigest()[:32]}"
            case Rule.PATH:
                check_path(name, value)
            case Rule.TEXT:
                check_text(value, self._table)
            case _:
                return _id(name, value, MAX_RUN_ID)
        return value

    def _agent(self, value: str) -> str:
        """The own agent, also where a client says the default one's name, as clients of a single-user gateway do."""
        named = value.strip().lower()
        if named not in {"", "main", self._namespace.agent_id}:
            raise ForeignKey("that agent is not yours")
        return self._namespace.agent_id


def _anything(name: str, value: Any) -> None:
    """It names nothing that anybody could own."""


def _plain(name: str, value: Any) -> None:
    """A scalar, or a list of scalars: nothing in which a name could hide that has no rule."""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value)):
        raise MalformedFrame(f"'{name}' is no object")


def _listed(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_IDS:
        raise MalformedFrame(f"'{name}' is a list of at most {MAX_IDS}")
    return value


def _one_of(words: frozenset[str | None], name: str, value: Any) -> str | None:
    if not (isinstance(value, str) or value is None) or value not in words:
        shown = ", ".join(sorted(word or "null" for word in words))
        raise MethodRefused(f"'{name}' is one of {shown} here", detail_code="PARAM_NOT_ALLOWED")
    return value


def _model(name: str, value: Any) -> None:
    """A model by its name alone: behind an '@' stands an account (gateway 2026.9.6 takes any)."""
    if value is not None and not (isinstance(value, str) and _MODEL.fullmatch(value)):
        raise MethodRefused(f"'{name}' is the name of a model, without an account", detail_code="PARAM_NOT_ALLOWED")


_CHECKS: Mapping[Rule, Callable[[str, Any], None]] = {
    Rule.ANY: _anything,
    Rule.PASS: _plain,
    Rule.MODEL: _model,
    Rule.ATTACHMENTS: check_attachments,
}


def _id(name: str, value: Any, most: int) -> str:
    usable = isinstance(value, str) and 0 < len(value) <= most and value.isascii() and value.isprintable()
    if not usable or value != value.strip():
        raise MalformedFrame(f"'{name}' is 1 to {most} printable ASCII characters")
    return str(value)
