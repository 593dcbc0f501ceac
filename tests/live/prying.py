"""Asking a gateway for everything that the policy table lets users ask, with what is one's own and with what is another's."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from sidecar.policy.rules import Only, Own, ParamRule, Rule, Shape, leaves
from sidecar.policy.table import MethodRow, Table
from tests.live.person import PRIED, Person
from tests.stack.raw import RawClient, RequestError

ASKS_OF_ONE = 40
"""After fifty refusals of one connection the sidecar takes its time for each further one."""

AT_ONCE = 3
PATIENCE_S = 60.0
WAITS = ("exec.approval.waitDecision", "plugin.approval.waitDecision", "question.waitAnswer")
"""Answered when somebody decides."""

LAST = {
    *WAITS,
    *("exec.approval.resolve", "plugin.approval.resolve", "approval.resolve", "question.resolve"),
    *("tasks.cancel", "tasks.dismiss", "taskSuggestions.dismiss", "cron.remove"),
}
"""They end what others still pry at, so nobody calls them with their own before `Person.end`."""

DOOMED = "doomed"
"""A session that is not there: what ends sessions has nothing to end."""

FOREIGN, REFUSED, CLOSED = "FOREIGN_KEY", "PARAM_NOT_ALLOWED", "METHOD_NOT_ALLOWED"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, and the code of the refusal that must come; None where anything but a refusal of ours may."""

    row: MethodRow
    params: Mapping[str, Any]
    refused: str | None
    about: str = ""


Connect = Callable[[Person], AbstractAsyncContextManager[RawClient]]


@dataclass
class Outcome:
    """What became of all that somebody asked."""

    answered: set[str] = field(default_factory=set)
    """Methods that answered to what was their own."""

    refused: Counter[str] = field(default_factory=Counter)
    """Code → how often, where a refusal had to come."""

    failed: dict[str, str] = field(default_factory=dict)
    """Method → why the gateway did not answer to what was their own."""

    wrong: list[str] = field(default_factory=list)

    def take(self, ask: Ask, code: str) -> None:
        told = f"{ask.row.name} {ask.about or sorted(ask.params)}: {code or 'was answered'}"
        if ask.refused is not None:
            self.refused[code] += 1
            self.wrong += [told] if code != ask.refused else []
        elif code in {FOREIGN, REFUSED, CLOSED}:
            self.wrong.append(told)
        elif code:
            self.failed[ask.row.name] = code
        else:
            self.answered.add(ask.row.name)


async def pry(one: Person, other: Person, table: Table, closed: Iterable[str], connect: Connect) -> Outcome:
    """All of it, on many connections."""
    asks = [*asks_of(one, other, table), *(closed_ask(method, other) for method in closed)]
    parts = [asks[at : at + ASKS_OF_ONE] for at in range(0, len(asks), ASKS_OF_ONE)]
    outcome = Outcome()
    gate = asyncio.Semaphore(AT_ONCE)

    async def part(asks: list[Ask]) -> None:
        async with gate, connect(one) as client:
            one.others.append(client)
            for ask in asks:
                outcome.take(ask, await asked(client, ask.row, ask.params))

    await asyncio.gather(*map(part, parts))
    await part([namesake(one, other, table)])
    return outcome


async def asked(client: RawClient, row: MethodRow, params: Mapping[str, Any]) -> str:
    """The code of the refusal, empty where there was none. A run is waited for, so that few run at once."""
    try:
        answer = await client.request(row.name, params, timeout=PATIENCE_S)
        if row.starts_run and isinstance(answer, dict) and isinstance(answer.get("runId"), str):
            await client.request("agent.wait", {"runId": answer["runId"], "timeoutMs": 10_000}, timeout=PATIENCE_S)
    except RequestError as error:
        return error.detail_code if error.detail_code != "None" else f"{error.code} {error.error.get('message')}"
    return ""


def asks_of(one: Person, other: Person, table: Table) -> Iterator[Ask]:
    for row in table.methods.values():
        if row.name not in LAST:
            yield Ask(row, own_params(row, one), None)
        for about, params in foreign_params(row, one, other):
            refused = None if row.answer is not None else REFUSED if about.endswith("@") else FOREIGN
            yield Ask(row, params, refused, about)


def namesake(one: Person, other: Person, table: Table) -> Ask:
    """A run may be called what another's is called. It is a run of one's own then, and so is the name."""
    send = table.methods["chat.send"]
    return Ask(send, {**own_params(send, one), "idempotencyKey": other.known_run}, None)


def closed_ask(method: str, other: Person) -> Ask:
    return Ask(MethodRow(method), {"sessionKey": other.main, "agentId": other.slug}, CLOSED)


# --- parameters ---------------------------------------------------------------------------------------------------------


def own_params(row: MethodRow, one: Person) -> dict[str, Any]:
    """The caller's own wherever a rule asks whose it is, and what a gateway wants besides."""
    forced = {name: rule for name, rule in row.params.items() if name in row.force or _names_own(rule)}
    alone = {
        name: rule for name, rule in forced.items() if not (isinstance(rule, Own) and name in _OR.get(row.name, ()))
    }
    skipped = {name for name, others in row.unless.items() if name in alone for other in others if other in alone}
    params = {name: _own(rule, one) for name, rule in alone.items() if name not in skipped}
    return {name: value for name, value in (params | _wanted(row.name, one)).items() if value is not None}


_OR = dict.fromkeys(("cron.get", "cron.runs", "cron.update", "cron.remove"), ("jobId",))
"""Parameters that say the same as another, of which a gateway takes one."""


def _names_own(rule: ParamRule) -> bool:
    named = {Rule.KEY, Rule.EXISTING_KEY, Rule.EXISTING_KEYS, Rule.AGENT, Rule.NEW_RUN, Rule.OWN_ID}
    return isinstance(rule, Own) or rule in named


def _own(rule: ParamRule, one: Person) -> Any:
    match rule:
        case Rule.KEY | Rule.EXISTING_KEY:
            return one.key(PRIED)
        case Rule.EXISTING_KEYS:
            return [one.key(PRIED)]
        case Rule.AGENT:
            return one.slug
        case Rule.NEW_RUN | Rule.OWN_ID:
            return uuid.uuid4().hex
        case Rule.TEXT:
            return "[[reply pried]]"
        case Rule.PATH:
            return "found.txt"
        case Own(kind, many):
            own = one.known_run if kind == "run" else one.ids.get(kind)
            return [own] if many and own else own
        case Only(words):
            return min(word for word in words if word)
        case Shape(members, many):
            whole = {name: _own(member, one) for name, member in members.items() if _names_own(member)}
            return [whole] if many else whole
        case _:
            return None


def _wanted(method: str, one: Person) -> dict[str, Any]:
    """What these methods need to say anything. None: left out."""
    key = one.key(PRIED)
    now = int(time.time() * 1000)
    wanted: dict[str, dict[str, Any]] = {
        "agent": {"message": "[[reply pried]]"},
        "agent.wait": {"timeoutMs": 100},
        "agents.files.get": {"name": "USER.md"},
        "agents.files.set": {"name": "IDENTITY.md", "content": "pried"},
        "agents.workspace.get": {"path": "found.txt"},
        "artifacts.download": {"sessionKey": one.key("showing"), "artifactId": one.ids.get("artifact")},
        "artifacts.get": {"sessionKey": one.key("showing"), "artifactId": one.ids.get("artifact")},
        "artifacts.list": {"sessionKey": one.key("showing")},
        "audit.activity.list": {"sessionKey": None, "runId": None},
        "audit.list": {"sessionKey": None, "runId": None},
        "board.event": {"widget": "w", "payload": {}},
        "board.update": {"ops": [{"kind": "tab_create", "tabId": "t1", "title": "pried"}]},
        "chat.abort": {"runId": None},
        "chat.message.get": {"messageId": one.ids.get("message")},
        "chat.send": {"message": "[[reply pried]]"},
        "cron.update": {"patch": {"description": "pried"}},
        "memory.search": {"query": "pried"},
        "progressCard.put": {"markdown": "pried"},
        "sessions.abort": {"runId": None},
        "sessions.branches.switch": {"leafEntryId": one.ids.get("message")},
        "sessions.compact": {"key": one.key(DOOMED)},
        "sessions.create": {"parentSessionKey": None},
        "sessions.delete": {"key": one.key(DOOMED)},
        "sessions.files.get": {"path": "found.txt"},
        "sessions.files.set": {"path": "found.txt", "content": one.marks["tool-output"], "expectedHash": "0" * 64},
        "sessions.fork": {"entryId": one.ids.get("message")},
        "sessions.goal.update": {"action": "complete", "issuedAtMs": now, "goalId": "g"},
        "sessions.goal.clear": {"operationId": "o", "issuedAtMs": now, "goalId": "g"},
        "sessions.list": {"spawnedBy": None},
        "sessions.observer.visibility": {"visible": True},
        "sessions.patch": {"label": f"{PRIED} by {one.login}"},
        "sessions.patchMany": {"targets": [{"key": key}], "patch": {"pinned": True}},
        "sessions.reset": {"key": one.key(DOOMED)},
        "sessions.resolve": {"reference": None, "spawnedBy": None},
        "sessions.rewind": {"entryId": one.ids.get("message")},
        "sessions.search": {"query": "pried", "sessionKeys": [key], "scope": None, "agentId": one.slug},
        "sessions.send": {"message": "[[reply pried]]"},
        "sessions.steer": {"message": "[[reply pried]]"},
        "skills.proposals.inspect": {"proposalId": "p"},
        "tasks.list": {"sessionKey": None},
        "taskSuggestions.list": {"sessionKey": None},
        "themes.get": {"id": "t"},
        "themes.set": {"id": "t"},
        "users.prefs.set": {"entries": {"ui.pried": 1}},
        "question.waitAnswer": {"timeoutMs": 100},
    }
    return wanted.get(method, {})


def foreign_params(row: MethodRow, one: Person, other: Person) -> Iterator[tuple[str, dict[str, Any]]]:
    """The own parameters with the other's in one place after the other."""
    own = own_params(row, one)
    for name, rule in row.params.items():
        for place, value in _foreign(rule, other):
            yield f"{name}{place}", {**own, name: value}


def _foreign(rule: ParamRule, other: Person) -> Iterator[tuple[str, Any]]:
    """Where in a parameter the other's could stand, and the parameter with it."""
    match rule:
        case Rule.KEY | Rule.EXISTING_KEY:
            yield "", other.main
        case Rule.EXISTING_KEYS:
            yield "[]", [other.main]
        case Rule.AGENT:
            yield "", other.slug
        case Rule.PATH:
            yield " ..", f"../../{other.slug}/workspace/found.txt"
            yield " /", str(other.workspace / "found.txt")
        case Rule.MODEL:
            yield " @", f"fake/fake-1@{other.slug}"
        case Own(kind, many):
            theirs = other.known_run if kind == "run" else other.ids[kind]
            yield "", [theirs] if many else theirs
        case Shape(members, many):
            for name, member in members.items():
                for place, value in _foreign(member, other):
                    yield f".{name}{place}", [{name: value}] if many else {name: value}


def kinds_of(table: Table) -> set[str]:
    """Of what ids requests may name."""
    return {rule.kind for row in table.methods.values() for rule in leaves(row.params) if isinstance(rule, Own)}


@contextlib.asynccontextmanager
async def connected(url: str, one: Person, **params: Any) -> AsyncIterator[RawClient]:
    """Again, as every client does, where a gateway under load gives a handshake up."""
    async with contextlib.AsyncExitStack() as stack:
        for tries_left in (2, 1, 0):
            try:
                client = await stack.enter_async_context(RawClient.connect(url, {"token": one.token}, **params))
                break
            except RequestError as error:
                if not tries_left or error.code != "UNAVAILABLE":
                    raise
                await asyncio.sleep(1)
        yield client
