"""What the echo model is told to do, and by whom: the directives in a person's message. Pure.

A message without directives is answered `echo: <text>`. Directives stand anywhere in it, and are left out
of the echo:

    [[reply TEXT]]            answer TEXT instead of the echo
    [[long WORDS]]            answer WORDS words
    [[slow CHUNKS DELAY_MS]]  stream the answer in CHUNKS pieces (at most one a word), DELAY_MS before each
    [[wait MS]]               MS before the first byte
    [[fail STATUS TIMES]]     answer HTTP STATUS, TIMES times for this message and session; by default always
    [[cut]]                   break the connection off in the middle of the answer
    [[uncounted]]             report no usage, as providers do that do not count
    [[cached TOKENS]]         report TOKENS of the prompt (at most all of it) as read from a cache
    [[tool NAME JSON]]        call a tool with the arguments JSON (an object); each `tool` is a round
    [[also NAME JSON]]        one more call in the round of the `tool` before it

After its last round of tools the model answers with what they returned, `tool NAME: <text>` a line each; a
`reply` or `long` in the same message replaces that too. Anything else between double brackets is text.

A token, for this model, is a word: what `str.split` finds. It streams a word at a time and never more than
it counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]

_INTERNAL = re.compile(r"<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>.*?<<<END_OPENCLAW_INTERNAL_CONTEXT>>>", re.DOTALL)
_RUNTIME = re.compile(r"^Runtime: agent=(?P<agent>\S+) \| session=(?P<session>\S+) \| .*$", re.MULTILINE)
_STAMP = re.compile(r"^\[[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d [^\]]+\]\s*")
_RETRY_HEAD = re.compile(r"^\[Queued user message from a previous active turn;[^\]]*\]\s*")
_RETRY_TAIL = re.compile(r"\s*Continue the current task from the existing transcript, .*$", re.DOTALL)
_OPENING = re.compile(r"\[\[(reply|long|slow|wait|fail|cut|uncounted|cached|tool|also)\b ?")


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]


@dataclass(slots=True)
class Directives:
    """One message, understood. Times are seconds."""

    text: str = ""
    """The message without its directives."""
    reply: str | None = None
    chunks: int = 0
    delay: float = 0.0
    wait: float = 0.0
    fail_status: int = 0
    fail_times: int | None = None
    cut: bool = False
    uncounted: bool = False
    cached: int = 0
    rounds: list[list[ToolCall]] = field(default_factory=list)


def parse(text: str) -> Directives:
    """Read a message. What is not a whole, well-formed directive stays text."""
    found = Directives()
    kept: list[str] = []
    position = 0
    while opening := _OPENING.search(text, position):
        end = _apply(found, opening[1], text, opening.end())
        kept.append(text[position : opening.start() if end else opening.end()])
        position = end or opening.end()
    kept.append(text[position:])
    found.text = "".join(kept).strip()
    return found


def _apply(found: Directives, name: str, text: str, start: int) -> int | None:
    """Take one directive in; the position behind its `]]`, or None when it is not one."""
    if name in {"tool", "also"}:
        return _apply_tool(found, name, text, start)
    end = text.find("]]", start)
    if end < 0:
        return None
    argument = text[start:end]
    if name == "reply":
        found.reply = argument
    elif name == "cut":
        found.cut = True
    elif name == "uncounted":
        found.uncounted = True
    else:
        try:
            _apply_numbers(found, name, [int(word) for word in argument.split()])
        except (ValueError, IndexError):
            return None
    return end + 2


def _apply_numbers(found: Directives, name: str, numbers: list[int]) -> None:
    match name:
        case "long":
            found.reply = " ".join(f"w{index}" for index in range(numbers[0]))
        case "slow":
            found.chunks, found.delay = numbers[0], numbers[1] / 1000
        case "wait":
            found.wait = numbers[0] / 1000
        case "cached":
            found.cached = numbers[0]
        case _:
            found.fail_status = numbers[0]
            found.fail_times = numbers[1] if len(numbers) > 1 else None


def _apply_tool(found: Directives, name: str, text: str, start: int) -> int | None:
    tool, _, _ = text[start:].partition(" ")
    begin = start + len(tool) + 1
    try:
        arguments, end = json.JSONDecoder().raw_decode(text, begin)
    except ValueError:
        return None
    if not isinstance(arguments, dict) or not text.startswith("]]", end):
        return None
    call = ToolCall(tool, arguments)
    if name == "also" and found.rounds:
        found.rounds[-1].append(call)
    else:
        found.rounds.append([call])
    return end + 2


def content_text(message: Message) -> str:
    """The text of a message's content, be it a string or a list of blocks."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if isinstance(block.get("text"), str))


@dataclass(frozen=True, slots=True)
class Turn:
    """What a request of the gateway is about."""

    agent: str
    """Empty for whoever is not a gateway's agent (a call made by hand, a call of the gateway's own)."""
    session: str
    person: str
    """What the person wrote."""
    rounds_done: int
    """Rounds of tool calls since then."""
    results: list[tuple[str, str]]
    """(tool name, what it returned) since then."""


def read_turn(messages: Sequence[Message]) -> Turn:
    """Find the person's words and the agent in what a gateway sends.

    Seen on 2026.9.6: system prompt; the person's messages, each stamped `[Sat 2026-11-21 03:01 UTC] `, the
    session's first one followed by a `Runtime: agent=… | session=…` line; at the end one more user message
    of internal context between markers. 2026.8.2 has the Runtime line in the system prompt and no message
    of internal context.
    After a failed call both send the person's message again between `[Queued user message from a previous
    active turn; …]` and `Continue the current task from the existing transcript, …`.
    """
    agent, session = _runtime(messages)
    index, person = _person(messages)
    since = messages[index + 1 :]
    names = {call["id"]: call["function"]["name"] for message in since for call in message.get("tool_calls") or ()}
    results = [
        (names.get(message.get("tool_call_id", ""), "?"), content_text(message))
        for message in since
        if message.get("role") == "tool"
    ]
    rounds = sum(1 for message in since if message.get("tool_calls"))
    return Turn(agent, session, person, rounds, results)


def _runtime(messages: Sequence[Message]) -> tuple[str, str]:
    for message in messages:
        if message.get("role") in {"system", "developer", "user"}:
            # The gateway's line is the last of its message: a person's own comes before it.
            lines = list(_RUNTIME.finditer(content_text(message)))
            if lines:
                return lines[-1]["agent"], lines[-1]["session"]
    return "", ""


def _person(messages: Sequence[Message]) -> tuple[int, str]:
    for index in range(len(messages) - 1, -1, -1):
        text = _own_words(content_text(messages[index])) if messages[index].get("role") == "user" else ""
        if text:
            return index, text
    return len(messages) - 1, ""


def _own_words(text: str) -> str:
    """What is left of a user message without the gateway's additions."""
    text = _STAMP.sub("", _RUNTIME.sub("", _INTERNAL.sub("", text)).strip())
    retried = _RETRY_HEAD.sub("", text)
    if retried != text:
        text = _STAMP.sub("", _RETRY_TAIL.sub("", retried))
    return text.strip()


def count_tokens(text: str) -> int:
    return len(text.split())


def count_prompt(messages: Sequence[Message]) -> int:
    """Tokens of all messages: their text and the tool calls in them."""
    return sum(
        count_tokens(content_text(message))
        + sum(
            count_tokens(f"{call['function']['name']} {call['function']['arguments']}")
            for call in message.get("tool_calls") or ()
        )
        for message in messages
    )
