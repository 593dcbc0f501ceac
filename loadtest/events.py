"""Events as gateway 2026.9.6 writes them to a user behind a trusted proxy, made beforehand, so that sending them costs nothing.

{"type":"event","event":"chat","payload":{"runId":…,"sessionKey":…,"agentId":…,"seq":…,"state":"delta","deltaText":…,
 "message":{"role":"assistant","content":[{"type":"text","text":…}],"timestamp":…}},"seq":…,"recipientProfileId":…}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.protocol.websocket import Opcode, encode

FINAL = b'"state":"final"'
"""Stands in the last event of a stream and in no other."""

TURN = "turn"
"""A chat message whose run ends as soon as it began."""

PROFILE = "0f6c2e51"
END = f',"recipientProfileId":"{PROFILE}"}}'
"""How every event ends."""

FOREIGN_AGENT = "u-x"
_TIMESTAMP = 1_795_219_909_801
_PROSE = r"What the agent says, in lines,\n\nwith a \"quoted\" word now and then. "


@dataclass(frozen=True, slots=True)
class StreamOrder:
    """What a client asks of the stub, as JSON behind `stream ` in a chat message."""

    events: int
    """How many of the caller's own."""

    size: int
    """Bytes of each event's payload on the WebSocket."""

    event: str = "chat"
    """`chat` or `agent`: a gateway sends both for each piece of an answer."""

    foreign: bool = False
    """One event of another user's before each own one."""

    pace_ms: int = 0
    """0: as fast as the socket takes them; else one event, in a write of its own, every so many milliseconds."""


class Maker:
    """Events of one run on one connection. `run` is the client's own id for it."""

    def __init__(self, agent: str, run: str, size: int, event: str) -> None:
        self._begin = f'{{"type":"event","event":"{event}","payload":{{"runId":"{run}",'
        self._scope = f'"sessionKey":"agent:{agent}:main","agentId":"{agent}","seq":'
        self._size = size
        self._around = self._around_chat if event == "chat" else self._around_agent
        self._known: dict[int, tuple[str, str]] = {}

    def event(self, number: int, seq: int) -> bytes:
        """The `number`th event of the run as the frame `seq` of the connection. Raises ValueError where it needs more bytes."""
        digits = len(str(number)) + len(str(seq))
        before, between = self._known.get(digits) or self._filled(digits)
        return f"{before}{number}{between}{seq}{END}".encode()

    def final(self, number: int, seq: int) -> bytes:
        """The end of a run is a `chat` event, whatever was before it."""
        begin = self._begin.replace('"event":"agent"', '"event":"chat"')
        message = f'{{"role":"assistant","content":[{{"type":"text","text":"done"}}],"timestamp":{_TIMESTAMP}}}'
        state = f',"state":"final","stopReason":"stop","message":{message}}},"seq":'
        return f"{begin}{self._scope}{number}{state}{seq}{END}".encode()

    def _filled(self, digits: int) -> tuple[str, str]:
        room = self._size - digits - sum(map(len, self._around(""))) - len(END)
        if room < 0:
            raise ValueError(f"an event of this shape has more than {self._size} bytes")
        whole = _PROSE * (room // len(_PROSE))
        self._known[digits] = self._around(whole + "." * (room - len(whole)))
        return self._known[digits]

    def _around_chat(self, text: str) -> tuple[str, str]:
        message = f'{{"role":"assistant","content":[{{"type":"text","text":"{text}"}}],"timestamp":{_TIMESTAMP}}}'
        said = f',"state":"delta","deltaText":"word","message":{message}}},"seq":'
        return self._begin + self._scope, said

    def _around_agent(self, text: str) -> tuple[str, str]:
        data = f'{{"text":"{text}","delta":"word","itemId":"{PROFILE}:1"}}'
        before = f'{self._begin}"stream":"assistant","data":{data},{self._scope}'
        return before, f',"ts":{_TIMESTAMP},"isHeartbeat":false}},"seq":'


def stream(agent: str, run: str, order: StreamOrder, seq: int) -> Iterator[bytes]:
    """The WebSocket frames of a whole run whose first event is the connection's `seq` + 1; the last one is final."""
    own, other = (Maker(whose, named, order.size, order.event) for whose, named in ((agent, run), (FOREIGN_AGENT, "x")))
    for number in range(1, order.events + 1):
        if order.foreign:
            seq += 1
            yield encode(Opcode.TEXT, other.event(number, seq))
        seq += 1
        yield encode(Opcode.TEXT, own.event(number, seq))
    yield encode(Opcode.TEXT, own.final(order.events + 1, seq + 1))


def sequenced(order: StreamOrder) -> int:
    """How many numbers of the connection's `seq` a stream takes."""
    return order.events * (2 if order.foreign else 1) + 1
