"""The sidecar's own side: settings, issuers, engines, clocks, the data folder."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.doctor.house import about, clock, doubtful, engine, folder, issuer
from sidecar.doctor.reading import EngineSeen, FolderSeen, IssuerSeen
from sidecar.errors import Problem
from tests.doctor.looks import by_id, ids

POSTGRES = EngineSeen("postgres", embedded=False, answers=True, version="18.4", revision="0002", newest="0002")
REDIS = EngineSeen("redis", embedded=False, answers=True, version="9.1")
FOLDER = FolderSeen("/var/lib/sidecar", exists=True, mode=0o700, holder=7, seal="kept", seal_mode=0o600)
ISSUER = IssuerSeen("company", ("RS256", "ES256"), keys=[("RS256",), ("ES256",)])


def test_a_sound_house() -> None:
    findings = [
        *doubtful([]),
        *issuer(ISSUER),
        *engine(POSTGRES),
        *engine(REDIS),
        *folder(FOLDER),
        clock("the gateway", -4.9),
    ]
    assert ids(findings, "note", "warning", "danger") == set()
    assert "process 7" in by_id(findings, "folder").says


def test_a_doubtful_setting_is_named_with_its_mend() -> None:
    finding = by_id(doubtful([Problem("server.public_url", "is not https", "write https://")]), "settings.doubtful")
    assert finding.severity == "warning"
    assert "server.public_url" in finding.says
    assert "write https://" in finding.mends[0].lines


@pytest.mark.parametrize(("skew", "word"), [(9.0, "ahead of"), (-3600.0, "behind")])
def test_a_clock_that_goes_wrong(skew: float, word: str) -> None:
    finding = clock("Redis", skew)
    assert finding.severity == "warning"
    assert word in finding.says


@pytest.mark.parametrize(
    ("seen", "name", "severity"),
    [
        (replace(ISSUER, keys=(), why="login.example.com does not answer"), "issuer.keys", "danger"),
        (replace(ISSUER, keys=[("PS256",)]), "issuer.algorithms", "danger"),
        (replace(ISSUER, keys=[("RS256",), ("PS256",)]), "issuer.other-keys", "note"),
        (replace(ISSUER, pinned=True), "issuer.keys", "ok"),
    ],
)
def test_issuers(seen: IssuerSeen, name: str, severity: str) -> None:
    finding = by_id(issuer(seen), name)
    assert finding.severity == severity
    if severity == "danger":
        assert seen.name in finding.says
        assert '"company"' in finding.mends[0].lines


@pytest.mark.parametrize(
    ("seen", "name", "severity"),
    [
        (replace(POSTGRES, answers=False, why="ConnectionRefusedError"), "engine.away", "danger"),
        (replace(REDIS, answers=False, why="ConnectionError"), "engine.away", "danger"),
        (replace(REDIS, embedded=True, answers=False, running=True, why="busy"), "engine.away", "danger"),
        (replace(REDIS, embedded=True, answers=False, running=False), "engine.embedded", "note"),
        (replace(REDIS, embedded=True, answers=False, running=False, why="not installed"), "engine.embedded", "danger"),
        (replace(POSTGRES, skew=30.0), "clock", "warning"),
        (replace(POSTGRES, revision="none"), "engine.schema", "note"),
        (replace(POSTGRES, revision="0001"), "engine.schema", "note"),
        (replace(POSTGRES, revision="0009"), "engine.schema", "danger"),
        (replace(REDIS, eviction="allkeys-lru"), "engine.eviction", "warning"),
        (replace(REDIS, eviction="noeviction"), "engine", "ok"),
        (replace(REDIS, embedded=True), "engine", "ok"),
    ],
)
def test_engines(seen: EngineSeen, name: str, severity: str) -> None:
    finding = by_id(engine(seen), name)
    assert finding.severity == severity
    assert bool(finding.mends) == (severity in {"warning", "danger"})


@pytest.mark.parametrize(
    ("seen", "name", "severity"),
    [
        (FolderSeen("/x", exists=False), "folder.missing", "note"),
        (replace(FOLDER, mode=0o770), "folder.mode", "danger"),
        (replace(FOLDER, mode=0o711), "folder", "ok"),
        (replace(FOLDER, seal_mode=0o640), "folder.secret", "danger"),
        (replace(FOLDER, seal="unreadable"), "folder.secret", "danger"),
        (replace(FOLDER, seal="missing"), "folder.secret", "note"),
        (replace(FOLDER, seal="given"), "folder.secret", "ok"),
    ],
)
def test_the_data_folder(seen: FolderSeen, name: str, severity: str) -> None:
    finding = by_id(folder(seen), name)
    assert finding.severity == severity
    assert bool(finding.mends) == (severity == "danger")


def test_findings_are_put_at_their_subject() -> None:
    assert {one.subject for one in about("redis", engine(REDIS))} == {"redis"}
