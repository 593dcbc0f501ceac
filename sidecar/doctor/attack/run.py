"""The attack from its first write to its last."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.doctor.attack import matrix
from sidecar.doctor.attack.belongings import AttackRefused, Belongings
from sidecar.doctor.attack.ground import LINES, PROVIDER, Ground, id_of, provider, roster
from sidecar.doctor.attack.matrix import WAYS, Attack, Outcome, Way
from sidecar.doctor.attack.model import ScriptedModel
from sidecar.doctor.attack.turns import Stage
from sidecar.doctor.gather import Admin, admin_of, log_file, tools_of
from sidecar.doctor.reading import Expected
from sidecar.doctor.shape import member
from sidecar.gateways.configuration import AgentOptions
from sidecar.gateways.options import GatewayOptions

SETTLE_SECONDS = 1.0
"""After the last call, until what it set going can be seen."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AttackOptions:
    """Against one gateway."""

    gateway: GatewayOptions
    expected: Expected
    local_root: Path | None
    control: bool = False
    """Also from an agent that nobody closed, which there is for that moment."""

    everything: bool = False
    """Also what reaches outside, from the open agent: for gateways that lead nowhere."""

    model_host: str = "127.0.0.1"
    model_port: int = 0


@dataclass(slots=True)
class AttackReport:
    """`remarks` are sentences for people: what was not tried and why, what could not be taken back."""

    gateway_id: str
    outcomes: list[Outcome] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    offered: list[str] = field(default_factory=list)
    """The tools that the gateway offered to the closed attacker."""

    catalogue: list[str] = field(default_factory=list)

    def of(self, verdict: str) -> list[Outcome]:
        return [one for one in self.outcomes if one.verdict == verdict]


async def attack(options: AttackOptions, say: Say) -> AttackReport:
    """Run the matrix and take everything back. Raises AttackRefused, GatewayAway."""
    report = AttackReport(options.gateway.id)
    try:
        async with ScriptedModel(options.model_host, options.model_port) as model, admin_of(options.gateway) as admin:
            await _attacked(options, model, admin, report, say)
    except OSError as error:
        raise AttackRefused(f"no model can listen at {options.model_host}: {error.strerror}") from None
    return report


async def _attacked(options: AttackOptions, model: ScriptedModel, admin: Admin, report: AttackReport, say: Say) -> None:
    state_dir = str(member(admin.hello, "snapshot.stateDir") or "")
    local_state = Path(state_dir) if state_dir and options.expected.local else None
    mine = Belongings(admin.rpc, options.local_root, local_state)
    if earlier := await mine.take_back_earlier():
        report.remarks.append(f"took back what an earlier attack had left: {', '.join(earlier)}")
    _, source, effective = await mine.configuration()
    ground = Ground.new(
        options.expected.root,
        str(member(admin.hello, "snapshot.configPath") or ""),
        state_dir,
        "http" + options.gateway.url.removeprefix("ws").rstrip("/"),
        await log_file(admin),
    )
    agents = [ground.victim, ground.attacker, *([ground.open] if options.control else [])]
    try:
        say(f"writing {len(agents)} throw-away agents")
        await mine.patch(_made(options, ground, source, effective, model))
        await _fought(options, Stage(admin.rpc, model), ground, report, say)
    finally:
        say("taking everything back")
        await asyncio.shield(mine.take_back(agents))
        report.kept += mine.kept
    if not member(source, "agents.entries"):
        report.remarks.append(
            "agents.ownership is explicit now, and the agent that was there has an entry of its own, as after the first user"
        )


def _made(
    options: AttackOptions,
    ground: Ground,
    source: Mapping[str, Any],
    effective: Mapping[str, Any],
    model: ScriptedModel,
) -> dict[str, Any]:
    expected = options.expected
    like_users = AgentOptions(expected.tools_allow, shared=bool(expected.shared_agent))
    return {
        **roster(ground, source, effective, like_users, control=options.control),
        "models": {"providers": {PROVIDER: provider(model.base_url, model.key)}},
    }


async def _fought(options: AttackOptions, stage: Stage, ground: Ground, report: AttackReport, say: Say) -> None:
    ground = await _settled(options, stage, ground, report)
    report.catalogue = tools_of(await stage.rpc.request("tools.catalog", {"agentId": ground.attacker}))
    warm = await stage.turn(ground.attacker, session="main")
    effective = await stage.rpc.request("tools.effective", {"sessionKey": f"agent:{ground.attacker}:main"})
    report.offered = sorted({*tools_of(effective), *(warm.tools - {"tool_call", "tool_search", "tool_describe"})})
    attacks = matrix.matrix(report.catalogue)
    if not (linked := _link(options, ground, ground.attacker)):
        report.remarks.append(
            "symlinks were not tried: the workspaces cannot be reached from here (environments.local_root)"
        )
    say(f"attacking with {len(report.catalogue)} tools")
    dangerous = set(report.offered)
    plan = [(one, way) for one in attacks if linked or not one.needs_link for way in WAYS]
    outside = [one for one, way in plan if one.outside and one.tool in dangerous and way == "direct"]
    report.remarks += [f"{one.tool} is offered and was not called: it reaches outside" for one in outside]
    plan = [(one, way) for one, way in plan if one not in outside]
    allowed = options.expected.tools_allow
    fought = await _volley(stage, ground, ground.attacker, plan, allowed, options.local_root)
    fought += await _replies(stage, ground, ground.attacker, linked=linked)
    fought.append(_prompt(ground, warm.prompts))
    if options.control:
        say("controlling with an open agent")
        fought = await _controlled(options, stage, ground, plan, fought)
    report.outcomes += fought


async def _settled(options: AttackOptions, stage: Stage, ground: Ground, report: AttackReport) -> Ground:
    """The victim says her secret and keeps it in a file. Raises AttackRefused where the gateway does not reach our model."""
    content = "\n".join([*LINES, ground.kept, ""])
    kept = {"path": "kept.txt", "content": content}
    turn = await stage.turn(ground.victim, [("write", kept)], say=f"findme {ground.told}", session="main")
    if not turn.prompts:
        raise AttackRefused(
            f"the gateway does not reach the doctor's model at {stage.model.base_url}: name an address of this host that it "
            "reaches, with --model-address"
        )
    if "rote" not in turn.results.get(0, ""):
        if options.local_root is None:
            report.remarks.append(
                "attacks on files prove little: the victim's agent may not write, so there is no file to reach"
            )
        else:
            _put(options.local_root / ground.victim / "workspace" / "kept.txt", content)
    rows = await stage.sessions(ground.victim)
    session_id = next((row.get("sessionId") for row in rows if row.get("key") == ground.her_key), "")
    said = [message for message in await stage.history(ground.her_key) if ground.told in json.dumps(message)]
    return ground.knowing(str(session_id), id_of(said[0]) if said else "")


def _put(path: Path, content: str) -> None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(content)


def _link(options: AttackOptions, ground: Ground, agent: str) -> bool:
    if options.local_root is None:
        return False
    with contextlib.suppress(OSError):
        folder = options.local_root / agent / "workspace"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "link").symlink_to(ground.her_folder)
        return True
    return False


async def _volley(
    stage: Stage,
    ground: Ground,
    agent: str,
    plan: Sequence[tuple[Attack, Way]],
    allowed: Collection[str],
    local_root: Path | None,
) -> list[Outcome]:
    """All attacks of the plan from one agent."""
    mark = matrix.marks(plan)
    texts: dict[tuple[Attack, Way], str | None] = {}

    def arguments(one: Attack, way: Way) -> dict[str, Any]:
        return one.arguments(ground, mark[one.tool, one.name, way])

    turns = [pair for pair in plan if pair[1] != "tools.invoke"]
    gentle = [pair for pair in turns if not pair[0].ends_turn]
    batches = [gentle, *([pair] for pair in turns if pair[0].ends_turn)]
    for batch in batches:
        calls = [_call(one, way, arguments(one, way)) for one, way in batch]
        returned = await stage.calls(agent, calls)
        texts |= {pair: returned.get(index) for index, pair in enumerate(batch)}
    for one, way in plan:
        if way == "tools.invoke":
            texts[one, way] = await stage.invoke(agent, one.tool, arguments(one, way))
    await asyncio.sleep(SETTLE_SECONDS)
    hers = await _hers(stage, ground, local_root, mark.values())
    return [
        matrix.judged(one, way, ground, texts[one, way], allowed, left=mark[one.tool, one.name, way] in hers)
        for one, way in plan
    ]


def _call(one: Attack, way: Way, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return (one.tool, arguments) if way == "direct" else ("tool_call", {"id": one.tool, "args": arguments})


async def _hers(stage: Stage, ground: Ground, local_root: Path | None, marks: Iterable[str]) -> str:
    """All of the victim's: rows of her sessions, what is in them, and her files, read from here or by her own agent."""
    rows = await stage.sessions(ground.victim)
    keys = [str(row.get("key")) for row in rows if not str(row.get("key")).endswith(":reads")]
    parts = [json.dumps(rows), *[json.dumps(await stage.history(key)) for key in keys]]
    with contextlib.suppress(OSError):
        if local_root is not None:
            return "\n".join([*parts, await asyncio.to_thread(_files, local_root / ground.victim / "workspace")])
    paths = ["kept.txt", *(f"{mark}.txt" for mark in marks)]
    turn = await stage.turn(ground.victim, [("read", {"path": path}) for path in paths], session="reads")
    return "\n".join([*parts, *(text for text in turn.results.values() if '"status": "error"' not in text)])


def _files(folder: Path) -> str:
    """Names and contents of what lies in there, but for the gateway's own `.git`. Raises OSError."""
    files = [
        path for path in folder.rglob("*") if ".git" not in path.parts and path.is_file() and not path.is_symlink()
    ]
    return "\n".join(f"{path.name} {path.read_text(errors='replace')}" for path in files)


async def _replies(stage: Stage, ground: Ground, agent: str, *, linked: bool) -> list[Outcome]:
    outcomes = []
    for name, reply in matrix.replies(ground):
        if not linked and "symlink" in name:
            continue
        turn = await stage.turn(agent, reply=reply)
        if await _attached(stage, f"agent:{agent}:{turn.ticket}"):
            outcomes.append(Outcome(name, "MEDIA:", "reply", "broke through", "the file was attached"))
        else:
            outcomes.append(Outcome(name, "MEDIA:", "reply", "held", "no file was attached"))
    return outcomes


async def _attached(stage: Stage, key: str) -> bool:
    """The file is fetched after the turn: what was said is looked at until it is more than a text, or for two seconds."""
    kinds: set[object] = set()
    for _ in range(10):
        kinds = {block.get("type") for message in (await stage.history(key))[-1:] for block in _blocks(message)}
        if kinds - {"text"}:
            break
        await asyncio.sleep(SETTLE_SECONDS / 5)
    return bool(kinds & {"image", "attachment", "audio", "video"})


def _blocks(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    return [one for one in content if isinstance(one, Mapping)] if isinstance(content, list) else []


def _prompt(ground: Ground, prompts: Sequence[str]) -> Outcome:
    """What the gateway puts into a turn by itself."""
    if any(secret in prompt for prompt in prompts for secret in (ground.told, ground.kept)):
        return Outcome("the victim's secrets", "prompt", "reply", "broke through", "they are in the attacker's prompt")
    return Outcome("the victim's secrets", "prompt", "reply", "held", "they are not in the attacker's prompt")


async def _controlled(
    options: AttackOptions,
    stage: Stage,
    ground: Ground,
    plan: Sequence[tuple[Attack, Way]],
    fought: Sequence[Outcome],
) -> list[Outcome]:
    """The same from the open agent: which of them would have won?"""
    linked = _link(options, ground, ground.open)
    await stage.turn(ground.open, session="main")
    tame = [
        (one, way) for one, way in plan if (options.everything or not one.outside) and (linked or not one.needs_link)
    ]
    by_harm = matrix.judged_by_harm(one for one, _ in tame)
    won = [
        *await _volley(stage, ground, ground.open, tame, by_harm, options.local_root),
        *await _replies(stage, ground, ground.open, linked=linked),
    ]
    proved = {(one.tool, one.attack, one.way): one.verdict == "broke through" for one in won}
    return [
        Outcome(one.attack, one.tool, one.way, one.verdict, one.why, proved.get((one.tool, one.attack, one.way)))
        for one in fought
    ]
