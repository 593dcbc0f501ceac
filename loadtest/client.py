"""The one client for every target, a process a job: `python -m loadtest.client JOB.json` prints the result as JSON.

Whatever is read is checked after the clock has stopped: as many events as were ordered, in order, of the size that was ordered,
numbered without a gap, and none of anybody else's.
"""

from __future__ import annotations

import itertools
import json
import select
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from loadtest.clock import allow_many_files, cpu_seconds, resident_kib
from loadtest.events import PROFILE, TURN, StreamOrder
from loadtest.wire import BenchError, Intake, Socket

AT_ONCE = 16
"""Connects under way at a time."""

SETTLE_S = 0.5
REST_S = 0.02
"""The kernel books a process's time when it rests, or at the next tick."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who connects."""

    agent: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """What is measured: where it listens, and the process that it is; 0: none, the client talks to the stub itself."""

    port: int
    pid: int = 0

    def cpu(self) -> float:
        return cpu_seconds(self.pid) if self.pid else 0.0


def connect(place: Place, caller: Caller) -> Socket:
    sock = Socket(place.port, caller.headers)
    try:
        sock.greet(
            {
                "minProtocol": 4,
                "maxProtocol": 4,
                "client": {"id": "gateway-client", "version": "1.0.0", "platform": "linux", "mode": "backend"},
                "role": "operator",
                "scopes": ["operator.read", "operator.write"],
                "caps": [],
            }
        )
    except BaseException:
        sock.close()
        raise
    return sock


class Stream:
    """A run on a connection: ordered, begun, read, checked."""

    def __init__(self, sock: Socket, caller: Caller, order: StreamOrder, seq: int) -> None:
        self._sock = sock
        self._caller = caller
        self._order = order
        self._run = uuid.uuid4().hex
        self._seq = seq
        params = {
            "sessionKey": f"agent:{caller.agent}:main",
            "message": f"stream {json.dumps(asdict(order))}",
            "idempotencyKey": self._run,
        }
        sock.call("send", "chat.send", params)
        self.intake: Intake = sock.take()
        self.intake.reserve(order.events * (order.size + 10) + (1 << 20))

    def begin(self) -> None:
        self._sock.request("go", "models.list", {})

    def check(self) -> int:
        """The connection's `seq` after it. Raises BenchError."""
        numbers = itertools.count(1)
        for raw in self.intake.frames():
            frame = orjson.loads(raw)
            if frame["type"] == "event":
                self._seq += 1
                self._one(raw, frame, next(numbers))
        if (seen := next(numbers) - 2) != self._order.events:
            raise BenchError(f"{seen} events came, {self._order.events} were sent")
        return self._seq

    def _one(self, raw: bytes, frame: Mapping[str, Any], number: int) -> None:
        payload = frame["payload"]
        wanted = (self._caller.agent, f"agent:{self._caller.agent}:main", self._run, number, self._seq, PROFILE)
        got = (payload["agentId"], payload["sessionKey"], payload["runId"], payload["seq"], frame["seq"])
        if (*got, frame["recipientProfileId"]) != wanted:
            raise BenchError(f"event {number} is {got}, not {wanted}")
        # A `seq` that was lowered may have a digit less.
        if payload.get("state") != "final" and not 0 <= self._order.size - len(raw) <= (
            1 if self._order.foreign else 0
        ):
            raise BenchError(f"event {number} has {len(raw)} bytes, not {self._order.size}")


def stream(place: Place, callers: Sequence[Caller], job: Mapping[str, Any]) -> dict[str, float]:
    """Runs of one caller, one after the other on one connection; connecting and ordering are not on the clock."""
    order = StreamOrder(**job["order"])
    sock = connect(place, callers[0])
    seconds = cpu = seq = volume = 0.0
    try:
        for _ in range(job["streams"]):
            one = Stream(sock, callers[0], order, int(seq))
            before, began = place.cpu(), time.perf_counter()
            one.begin()
            one.intake.finish()
            seconds += time.perf_counter() - began
            time.sleep(REST_S)
            cpu += place.cpu() - before
            volume += one.intake.size
            seq = one.check()
    finally:
        sock.close()
    return {"events": order.events * job["streams"], "seconds": seconds, "cpu": cpu, "bytes": volume}


def many(place: Place, callers: Sequence[Caller], job: Mapping[str, Any]) -> dict[str, float]:
    """A run of each caller, all at the same time."""
    order = StreamOrder(**job["order"])
    socks = connect_all(place, callers)
    try:
        streams = {sock.fileno(): Stream(sock, caller, order, 0) for sock, caller in zip(socks, callers, strict=True)}
        waiting = select.epoll()
        for descriptor in streams:
            waiting.register(descriptor, select.EPOLLIN)
        before, began = place.cpu(), time.perf_counter()
        for one in streams.values():
            one.begin()
        left = len(streams)
        while left:
            for descriptor, _ in waiting.poll(30) or _nothing():
                if streams[descriptor].intake.step():
                    waiting.unregister(descriptor)
                    left -= 1
        seconds = time.perf_counter() - began
        time.sleep(REST_S)
        cpu = place.cpu() - before
        for one in streams.values():
            one.check()
    finally:
        close_all(socks)
    return {"events": order.events * len(callers), "seconds": seconds, "cpu": cpu}


def _nothing() -> list[tuple[int, int]]:
    raise BenchError("nothing came for 30 s although events are missing")


def roundtrips(place: Place, callers: Sequence[Caller], job: Mapping[str, Any]) -> dict[str, float]:
    """Small requests, each after the answer to the one before; the first tenth is not counted."""
    return _asked(place, callers[0], job["requests"], lambda: ("models.list", {}))


def turns(place: Place, callers: Sequence[Caller], job: Mapping[str, Any]) -> dict[str, float]:
    """As `roundtrips`, with turns, each in its place: what a relay does before it lets one start is in it."""
    said = {"sessionKey": f"agent:{callers[0].agent}:main", "message": TURN}
    return _asked(
        place, callers[0], job["requests"], lambda: ("chat.send", said | {"idempotencyKey": str(uuid.uuid4())})
    )


def _asked(
    place: Place, caller: Caller, requests: int, make: Callable[[], tuple[str, Mapping[str, Any]]]
) -> dict[str, float]:
    sock = connect(place, caller)
    try:
        for number in range(requests // 10):
            sock.call(f"w{number}", *make())
        taken = []
        before = place.cpu()
        for number in range(requests):
            method, params = make()
            began = time.perf_counter()
            sock.call(f"r{number}", method, params)
            taken.append(time.perf_counter() - began)
        time.sleep(REST_S)
        cpu = place.cpu() - before
    finally:
        sock.close()
    taken.sort()
    at = [taken[len(taken) * share // 100] for share in (50, 99)]
    return {"p50": at[0], "p99": at[1], "cpu": cpu, "requests": len(taken)}


def connects(place: Place, callers: Sequence[Caller], job: Mapping[str, Any]) -> dict[str, float]:
    """Each caller from TCP to hello-ok."""
    before, began = place.cpu(), time.perf_counter()
    socks = connect_all(place, callers, job.get("at_once", AT_ONCE))
    seconds = time.perf_counter() - began
    time.sleep(REST_S)
    cpu = place.cpu() - before
    close_all(socks)
    return {"connects": len(socks), "seconds": seconds, "cpu": cpu}


def idle(place: Place, callers: Sequence[Caller], job: Mapping[str, Any]) -> dict[str, float]:
    """Memory of the process with few and with many idle connections, so that what it takes once is not counted."""
    room = allow_many_files()
    few, many_ = job["few"], job["many"]
    if room < many_ + 100:
        raise BenchError(f"{many_} sockets need a higher limit of open files than {room}: ulimit -n {many_ + 100}")
    wanted = list(itertools.islice(itertools.cycle(callers), many_))
    socks = connect_all(place, wanted[:few])
    try:
        time.sleep(SETTLE_S)
        first = resident_kib(place.pid)
        socks += connect_all(place, wanted[few:])
        time.sleep(SETTLE_S)
        second = resident_kib(place.pid)
    finally:
        close_all(socks)
    return {"few": few, "many": many_, "kib": second - first}


def connect_all(place: Place, callers: Iterable[Caller], at_once: int = AT_ONCE) -> list[Socket]:
    """In the order of `callers`."""
    with ThreadPoolExecutor(at_once) as threads:
        made = [threads.submit(connect, place, caller) for caller in callers]
    failed = next((error for one in made if (error := one.exception()) is not None), None)
    if failed is not None:
        close_all([one.result() for one in made if one.exception() is None])
        raise failed
    return [one.result() for one in made]


def close_all(socks: Iterable[Socket]) -> None:
    for sock in socks:
        sock.close()


Job = Callable[[Place, Sequence[Caller], Mapping[str, Any]], dict[str, float]]
JOBS: Mapping[str, Job] = {
    "stream": stream,
    "many": many,
    "roundtrips": roundtrips,
    "turns": turns,
    "connects": connects,
    "idle": idle,
}


def main(path: Path) -> int:
    job = json.loads(path.read_text())
    place = Place(**job["place"])
    callers = [Caller(**caller) for caller in job["callers"]]
    try:
        result = JOBS[job["do"]](place, callers, job)
    except (BenchError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
