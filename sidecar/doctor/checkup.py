"""One look at everything: what was read, then what it means."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sidecar.doctor import gather
from sidecar.doctor.access import access
from sidecar.doctor.agents import agents, level
from sidecar.doctor.attachable import attachable
from sidecar.doctor.attack.belongings import AttackRefused
from sidecar.doctor.attack.run import AttackOptions, AttackReport, Say, attack
from sidecar.doctor.attack.told import told
from sidecar.doctor.findings import Finding, Mend, danger, json5, ok, openclaw, sidecar, warning
from sidecar.doctor.house import about, clock, doubtful, engine, folder, issuer
from sidecar.doctor.load import load
from sidecar.doctor.reading import Expected, GatewaySeen
from sidecar.errors import GatewayAway, Problem
from sidecar.gateways.options import GatewayOptions
from sidecar.identity.fetch import HttpFetch
from sidecar.identity.options import IssuerOptions
from sidecar.policy.table import Table
from sidecar.policy.versions import choose, span


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at, as the settings say it. `database_url` and `redis_url` are empty for embedded engines."""

    gateways: Sequence[tuple[GatewayOptions, Expected]]
    tables: Sequence[Table]
    issuers: Sequence[IssuerOptions]
    problems: Sequence[Problem]
    """Warnings of the settings."""

    data_dir: Path
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    seal_given: bool


@dataclass(frozen=True, slots=True)
class Checkup:
    """`levels`: gateway id → what keeps its users apart."""

    findings: list[Finding]
    levels: dict[str, str]


async def checkup(patient: Patient) -> Checkup:
    """Look at all of it. Raises nothing: what is away is a finding."""
    house = [
        *about("settings", doubtful(patient.problems)),
        *about("data folder", folder(gather.folder(patient.data_dir, seal_given=patient.seal_given))),
    ]
    stores = await gather.engines(patient.database_url, patient.redis_url, patient.data_dir)
    for store in stores:
        house += about(store.name, engine(store))
    house += await _issuers(patient.issuers)
    levels = {}
    for options, expected in patient.gateways:
        found, levels[options.id] = await gateway(options, expected, patient.tables)
        house += found
    return Checkup(house, levels)


async def attacked(seen: Checkup, options: Sequence[AttackOptions], say: Say) -> tuple[Checkup, list[AttackReport]]:
    """The same with what an attack on each gateway found. Raises nothing but what ends the process."""
    findings, reports = list(seen.findings), []
    for one in options:
        subject, here = f"gateway {one.gateway.id}", await gather.around(one.gateway.url) is not None
        expected = replace(one.expected, local=here)
        try:
            report = await attack(replace(one, expected=expected), say)
        except (AttackRefused, GatewayAway) as error:
            findings += about(subject, [danger("attack.refused", f"The attack came to no end: {error.message}.")])
            continue
        reports.append(report)
        findings += about(subject, told(report, expected))
    return Checkup(findings, seen.levels), reports


async def _issuers(issuers: Sequence[IssuerOptions]) -> list[Finding]:
    fetch = HttpFetch()
    try:
        looks = await asyncio.gather(*(gather.issuer(one, fetch) for one in issuers))
    finally:
        await fetch.aclose()
    return [finding for look in looks for finding in about(f"issuer {look.name}", issuer(look))]


async def gateway(options: GatewayOptions, expected: Expected, tables: Sequence[Table]) -> tuple[list[Finding], str]:
    """Everything about one gateway, and what keeps its users apart: `unknown` where it could not be asked."""
    subject = f"gateway {options.id}"
    around = await gather.around(options.url)
    expected = replace(expected, local=around is not None)
    ahead = await gather.skew(options.url)
    try:
        async with gather.admin_of(options) as admin:
            seen = await gather.gateway(expected, admin, ahead, around)
    except GatewayAway as error:
        says = f"Nobody is served, and nothing of it could be checked: {error.message}."
        return about(subject, [danger("gateway.away", says, _reach_it(options))]), "unknown"
    findings = [ok("gateway", f"It answers, version {seen.version or '?'}."), *_version(options, seen, tables)]
    if not seen.valid:
        findings.append(
            danger(
                "gateway.invalid",
                "Its configuration file is not valid: it runs with an older one that it does not show. Nothing could be checked.",
                openclaw("// what `openclaw config validate` names, on the gateway's host"),
            )
        )
        return about(subject, findings), "unknown"
    findings += [] if seen.skew is None else [clock("the gateway", seen.skew)]
    findings += [*access(expected, seen), *load(expected, seen), *agents(expected, seen), *attachable(expected, seen)]
    return about(subject, findings), level(expected, seen)


def _reach_it(options: GatewayOptions) -> Mend:
    secret = {"trusted-proxy": "admin_user = …" if options.admin_user else "password_file = …"}.get(
        options.auth, f"{options.auth}_file = …"
    )
    return sidecar(
        f'[[gateways]]\nid = "{options.id}"\nurl = "{options.url}"\nauth = "{options.auth}"\n{secret}   # as the gateway has it'
    )


def _version(options: GatewayOptions, seen: GatewaySeen, tables: Sequence[Table]) -> list[Finding]:
    choice = choose(tables, seen.version, options.trusted_versions)
    if choice is None:
        return [
            danger(
                "gateway.version",
                f"No policy table is for version {seen.version or '?'}: nobody is served.",
                sidecar("# use a gateway of " + ", or ".join(map(span, tables))),
            )
        ]
    if choice.covered:
        return [ok("gateway.version", f"The policy table for {span(choice.table)} covers it.")]
    if choice.trusted:
        says = f"No policy table was made for version {seen.version}; you vouch for it (trusted_versions)."
        return [warning("gateway.version", says, sidecar("# look at `sidecar gateway diff` again after each update"))]
    mend = sidecar(f"# after a look at `sidecar gateway diff`:\ntrusted_versions = {json5([seen.version])}")
    return [
        danger(
            "gateway.version", f"No policy table covers version {seen.version}: people read, but no run starts.", mend
        )
    ]
