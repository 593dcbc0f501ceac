"""What `sidecar gateway diff` does: live gateways beside the policy, as text and as JSON."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.cli.plain import json_line, plain
from sidecar.errors import Outage
from sidecar.gateways.greeting import greet_as_admin
from sidecar.gateways.options import ADMIN_SCOPES, GatewayOptions
from sidecar.policy.coverage import Difference, Reviewed, compare, surface_of
from sidecar.policy.schema import Schema
from sidecar.policy.table import Table
from sidecar.policy.versions import Choice, choose, span
from sidecar.protocol.handshake import SCOPES

SAME, DIFFERS, NOT_COMPARED = 0, 1, 2
CLOSE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Compared:
    """One gateway; `why` says why it could not be compared, and is empty where it was."""

    gateway_id: str
    version: str = ""
    choice: Choice | None = None
    difference: Difference | None = None
    why: str = ""

    @property
    def code(self) -> int:
        if self.difference is None or self.choice is None:
            return NOT_COMPARED
        return SAME if self.difference.same and self.choice.runs else DIFFERS


def diff(
    gateways: Sequence[GatewayOptions], tables: Sequence[Table], schema: Schema | None, reviewed: Reviewed
) -> list[Compared]:
    """Connect to each gateway as the sidecar does, and compare."""
    return asyncio.run(_compare_all(gateways, tables, schema, reviewed))


def as_text(compared: Sequence[Compared], *, with_schema: bool) -> str:
    return "\n\n".join("\n".join(_lines(one, with_schema=with_schema)) for one in compared)


def as_json(compared: Sequence[Compared]) -> str:
    """One line."""
    return json_line({"gateways": [_as_json(one) for one in compared]})


async def _compare_all(
    gateways: Sequence[GatewayOptions], tables: Sequence[Table], schema: Schema | None, reviewed: Reviewed
) -> list[Compared]:
    return [await _compare(gateway, tables, schema, reviewed) for gateway in gateways]


async def _compare(
    gateway: GatewayOptions, tables: Sequence[Table], schema: Schema | None, reviewed: Reviewed
) -> Compared:
    defects: list[Exception] = []
    try:
        upstream = await greet_as_admin(gateway, ADMIN_SCOPES, defects.append)
    except Outage as error:
        return Compared(gateway.id, why=error.message)
    upstream.link.wire.close(1000)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await upstream.link.wire.wait_closed()
    surface = surface_of(upstream.hello)
    choice = choose(tables, surface.version, gateway.trusted_versions)
    if choice is None:
        return Compared(gateway.id, surface.version, why="it is older than every policy table: nobody is served")
    difference = compare(choice.table, surface, schema, scopes=SCOPES, reviewed=reviewed)
    return Compared(gateway.id, surface.version, choice, difference)


def _lines(compared: Compared, *, with_schema: bool) -> Iterator[str]:
    version = f" {plain(compared.version)}" if compared.version else ""
    if compared.difference is None or compared.choice is None:
        yield f"gateway {compared.gateway_id}{version}: not compared: {compared.why}"
        return
    choice, difference = compared.choice, compared.difference
    yield f"gateway {compared.gateway_id}{version}, policy for {span(choice.table)}"
    if not choice.covered:
        how = "users run all the same (gateways[].trusted_versions)" if choice.trusted else "users read, no run starts"
        yield f"  this version is not covered: {how}"
    for names, what in (
        (difference.new_methods, "new methods, refused and hidden"),
        (difference.gone_methods, "methods with a row that are gone"),
        (difference.new_events, "new events, dropped"),
        (difference.gone_events, "events with a row that are gone"),
    ):
        yield from _list(what, names)
    yield from _list("new parameters, refused", _dotted(difference.new_params))
    yield from _list("parameters with a rule that are not in the schema", _dotted(difference.gone_params))
    yield from _list(
        "scopes that do not fit",
        [
            f"{one.method}: {one.scope}, {'needs no admin' if one.as_admin else 'which users do not have'}"
            for one in difference.scopes
        ],
    )
    if not with_schema:
        yield "  parameters and scopes: not compared without --schema (protocol.schema.json of @openclaw/gateway-protocol)"
    yield from _list("parameters unknown to the schema, not compared", difference.not_compared)
    if difference.same:
        yield "  nothing else differs" if not choice.covered else "  nothing differs"


def _list(what: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"  {what} ({len(names)}):"
        yield from (f"    {_shown(name)}" for name in names)


def _shown(name: str) -> str:
    """A gateway's own word, in front of what we say of it."""
    word, colon, said = name.partition(": ")
    return plain(word) + colon + said


def _dotted(params: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{method}: {', '.join(map(plain, names))}" for method, names in params.items()]


def _as_json(compared: Compared) -> dict[str, Any]:
    choice, difference = compared.choice, compared.difference
    known: dict[str, Any] = {"gateway": compared.gateway_id, "version": compared.version}
    if choice is None or difference is None:
        return known | {"compared": False, "why": compared.why}
    return known | {
        "compared": True,
        "same": compared.code == SAME,
        "policy": {"range": span(choice.table), "covered": choice.covered, "trusted": choice.trusted},
        "methods": {"new": difference.new_methods, "gone": difference.gone_methods},
        "events": {"new": difference.new_events, "gone": difference.gone_events},
        "parameters": {"new": difference.new_params, "gone": difference.gone_params},
        "scopes": [{"method": one.method, "scope": one.scope, "as_admin": one.as_admin} for one in difference.scopes],
        "not_compared": difference.not_compared,
    }
