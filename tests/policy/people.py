"""Two users of one gateway, and the table that the sidecar ships with."""

from __future__ import annotations

from importlib.resources import files

from sidecar.domain.namespace import Namespace
from sidecar.policy.table import read_table

ALICE = Namespace("example|alice", "u-alice", "u-alice", frozenset({"alice", "example|alice", "u-alice"}))
BOB = Namespace("example|bob", "u-bob", "u-bob", frozenset({"bob", "example|bob", "u-bob"}))

SOURCE = (files("sidecar.policy") / "gateway-2026.9.toml").read_bytes()
TABLE = read_table(SOURCE)

FOREIGN_KEYS = [
    "agent:u-alice:main",
    "AGENT:U-ALICE:MAIN",
    "\tagent:u-alice:main ",
    "agent:u-alice:cron:1",
    "agent:u-alice:subagent:7",
    "user:alice",
    "user:example|alice:notes",
    "agent:u-bobby:main",
    "agent:u-bob\u200b:main",
    "agent:u-alice/:x",
    "agent:u-\u0430lice:main",
    "agent::x",
]
"""Refused, whoever is asked on Bob's behalf."""

OWN_KEYS = [
    "main",
    "notes",
    "agent:u-bob:main",
    "AGENT:U-BOB:Main",
    "agent:main:main",
    "user:bob",
    "agent:u-bob:dashboard:3f2b",
    "agent:u-bob:cron:7",
    "agent:u-bob:subagent:9",
]

ODD_KEYS = [
    "",
    " ",
    "cron:1",
    "global",
    "agent",
    "agent:",
    "a b",
    "%3A",
    "：",
    "\u212aelvin",
    "\ufeffmain",
    "x" * 600,
    "\x00",
    "agent:u-bob:",
]
