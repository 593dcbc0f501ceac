"""The sidecar's own side: settings, issuers, engines, clocks, the data folder. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from sidecar.doctor.findings import SHELL, Finding, Mend, danger, json5, listed, note, ok, sidecar, warning
from sidecar.doctor.reading import EngineSeen, FolderSeen, IssuerSeen
from sidecar.errors import Problem

SKEW_SECONDS = 5.0
_CLOCK = Mend(SHELL, "timedatectl set-ntp true   # on both hosts")
_NAMES = {"postgres": "PostgreSQL", "redis": "Redis"}


def about(subject: str, findings: Iterable[Finding]) -> list[Finding]:
    """The same findings, at their subject."""
    return [replace(finding, subject=subject) for finding in findings]


def doubtful(problems: Sequence[Problem]) -> Iterator[Finding]:
    """Settings that work but weaken something."""
    for problem in problems:
        yield warning(
            "settings.doubtful", f"{problem.setting} {problem.what}.", sidecar(f"# {problem.setting}: {problem.mend}")
        )
    if not problems:
        yield ok("settings", "Every setting is sound.")


def clock(whose: str, skew: float) -> Finding:
    """`skew`: seconds that theirs is ahead of ours."""
    if abs(skew) <= SKEW_SECONDS:
        return ok("clock", f"The clock of {whose} is ours, within {max(abs(skew), 0.1):.1f} s.")
    way = "ahead of" if skew > 0 else "behind"
    return warning(
        "clock",
        f"The clock of {whose} is {abs(skew):.0f} s {way} ours: times of messages and of limits do not agree.",
        _CLOCK,
    )


def issuer(seen: IssuerSeen) -> Iterator[Finding]:
    """Can anybody with a token of this issuer come in?"""
    if seen.why:
        yield danger(
            "issuer.keys",
            f"Nobody signs in with {seen.name} now, except on keys that a running sidecar keeps for a day: {seen.why}.",
            sidecar(
                f'[[identity.issuers]]\nname = {json5(seen.name)}\njwks_url = "https://…"   # if discovery is wrong'
            ),
        )
        return
    published = {algorithm for key in seen.keys for algorithm in key}
    usable = [key for key in seen.keys if set(key) & set(seen.algorithms)]
    if not usable:
        yield danger(
            "issuer.algorithms",
            f"{seen.name} signs with {listed(sorted(published))}, and we accept {listed(seen.algorithms)}: nobody signs in.",
            sidecar(f"[[identity.issuers]]\nname = {json5(seen.name)}\nalgorithms = {json5(sorted(published))}"),
        )
        return
    how = "at jwks_url" if seen.pinned else "by discovery"
    accepted = sorted(published & set(seen.algorithms))
    yield ok("issuer.keys", f"{len(usable)} usable keys ({listed(accepted)}), found {how}.")
    if len(usable) < len(seen.keys):
        yield note(
            "issuer.other-keys",
            f"{len(seen.keys) - len(usable)} more keys are of algorithms that we do not accept, nor their tokens.",
        )


def engine(seen: EngineSeen) -> Iterator[Finding]:
    """One of the two stores."""
    name = _NAMES[seen.name]
    if seen.embedded and not seen.running:
        if seen.why:
            yield danger("engine.embedded", f"The embedded {name} cannot be used: {seen.why}.", Mend(SHELL, _install()))
        else:
            yield note("engine.embedded", f"The embedded {name} is not running; it starts with the sidecar.")
        return
    if not seen.answers:
        setting_name = "database_url" if seen.name == "postgres" else "redis_url"
        yield danger(
            "engine.away",
            f"{name} does not answer ({seen.why}): "
            + ("new users do not get in, and the audit log waits." if seen.name == "postgres" else "no run starts."),
            sidecar(f'[storage]\n{setting_name} = "…"   # or start the server that it names'),
        )
        return
    where = "embedded, held by a running sidecar" if seen.embedded else "a server"
    yield ok("engine", f"{name} {seen.version} answers ({where}).")
    yield clock(name, seen.skew)
    if seen.name == "postgres":
        yield _migrated(seen)
    if seen.eviction not in {"", "noeviction"}:
        yield warning(
            "engine.eviction",
            f"When its memory is full, Redis forgets who may run what ({seen.eviction}): runs then count less than there are.",
            Mend(SHELL, "redis-cli CONFIG SET maxmemory-policy noeviction"),
        )


def _install() -> str:
    return "pip install 'openclaw-sidecar[embedded]'"


def _migrated(seen: EngineSeen) -> Finding:
    if seen.revision == seen.newest:
        return ok("engine.schema", f"The schema is the one that this version needs ({seen.newest}).")
    if seen.revision == "none":
        return note("engine.schema", "The database is empty; the sidecar makes its tables when it starts.")
    if seen.revision < seen.newest:
        return note(
            "engine.schema",
            f"The schema is older ({seen.revision}); the sidecar brings it to {seen.newest} when it starts.",
        )
    return danger(
        "engine.schema",
        f"The database was migrated by a newer sidecar ({seen.revision}): this version does not start on it.",
        Mend(SHELL, "# run that version, or restore a backup of the database"),
    )


def folder(seen: FolderSeen) -> Iterator[Finding]:
    """`storage.data_dir` and the secret in it."""
    if not seen.exists:
        yield note("folder.missing", f"{seen.path} is not there yet; the sidecar makes it when it starts.")
    elif seen.mode & 0o022:
        yield danger(
            "folder.mode",
            f"Others on this host may replace what is kept in {seen.path} (mode {seen.mode:04o}): the secret, the engines' data.",
            Mend(SHELL, f"chmod go-w {seen.path}"),
        )
    else:
        held = f", held by process {seen.holder}" if seen.holder else ""
        yield ok("folder", f"{seen.path} is the sidecar's alone{held}.")
    yield from _seal(seen)


def _seal(seen: FolderSeen) -> Iterator[Finding]:
    if seen.seal == "given":
        yield ok("folder.secret", "The secret is given (storage.secret).")
    elif seen.seal == "missing":
        yield note("folder.secret", "There is no secret yet; the sidecar makes one when it starts. Back it up.")
    elif seen.seal == "unreadable":
        yield danger(
            "folder.secret",
            "The secret from which users' devices derive cannot be used: the sidecar does not start.",
            Mend(SHELL, f"# restore {seen.path}/secret from a backup, owned by the sidecar's user, mode 0600"),
        )
    elif seen.seal_mode & 0o077:
        yield danger(
            "folder.secret",
            f"Others on this host can read the secret from which users' devices derive (mode {seen.seal_mode:04o}), and act as any "
            "user.",
            Mend(SHELL, f"chmod 600 {seen.path}/secret"),
        )
    else:
        yield ok("folder.secret", "The secret is kept in there, readable by its owner alone.")
