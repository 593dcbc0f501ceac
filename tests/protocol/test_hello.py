"""Nothing of anybody else comes back in `hello-ok`, whatever a later gateway adds to it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.namespace import Namespace
from sidecar.protocol.handshake import own_health, rewrite_hello

BOB = Namespace("example|bob", "u-bob", "u-bob", frozenset({"bob"}))
MARK = "~foreign~"
HELLO: dict[str, Any] = {
    "type": "hello-ok",
    "protocol": 4,
    "server": {
        "version": "2026.9.6",
        "buildId": "b1",
        "bootId": "k1",
        "controlUiBuildSource": "bundled",
        "connId": MARK,
        "host": MARK,
    },
    "features": {
        "methods": ["chat.send", MARK, "config.patch"],
        "events": ["chat", MARK],
        "capabilities": ["session-scoped-events"],
        "flags": MARK,
    },
    "snapshot": {
        "presence": [
            {"host": MARK, "ip": MARK, "user": {"id": MARK, "email": MARK}, "watchedSessions": [MARK], "ts": 1}
        ],
        "health": {
            "ok": True,
            "ts": 1795219909518,
            "durationMs": 3,
            "eventLoop": {"degraded": False, "reasons": [MARK]},
            "plugins": {"loaded": [MARK], "errors": []},
            "channels": {MARK: {"configured": True}},
            "channelOrder": [MARK],
            "channelLabels": {MARK: MARK},
            "heartbeatSeconds": MARK,
            "defaultAgentId": MARK,
            "agents": [
                {"agentId": MARK, "name": MARK, "isDefault": True},
                {
                    "agentId": "u-bob",
                    "name": "Bob",
                    "isDefault": False,
                    "heartbeat": {"every": MARK},
                    "sessions": {"path": MARK, "count": 9, "recent": [{"key": MARK}]},
                },
            ],
            "sessions": {"path": MARK, "count": 7, "recent": [{"key": MARK, "updatedAt": 1, "age": 2}]},
        },
        "sessionDefaults": {
            "defaultAgentId": MARK,
            "mainKey": "main",
            "mainSessionKey": MARK,
            "scope": "per-sender",
            "x": MARK,
        },
        "stateVersion": {"presence": 3, "health": 12},
        "uptimeMs": 1000,
        "authMode": "trusted-proxy",
        "suspension": {"phase": "accepting"},
        "configPath": MARK,
        "stateDir": MARK,
        "updateAvailable": {"currentVersion": MARK},
    },
    "auth": {
        "role": "operator",
        "scopes": ["operator.read"],
        "deviceToken": MARK,
        "deviceTokens": [{"deviceToken": MARK}],
        "issuedAtMs": MARK,
    },
    "policy": {
        "maxPayload": 26214400,
        "maxBufferedBytes": 1,
        "tickIntervalMs": 30000,
        "attachments": {"maxBytes": 1},
        "x": MARK,
    },
    "pluginSurfaceUrls": {"x": MARK},
    "canvasHostUrl": MARK,
}
COPIED_WHOLE = {"stateVersion", "suspension", "attachments"}


def rewritten(hello: dict[str, Any]) -> dict[str, Any]:
    return rewrite_hello(
        hello,
        BOB,
        open_in="agent:u-bob:notes",
        passes_method={"chat.send", "chat.history"}.__contains__,
        passes_event={"chat"}.__contains__,
        connection_id="c1",
    )


def test_the_hello_of_a_gateway_with_one_user() -> None:
    assert rewritten(HELLO) == {
        "type": "hello-ok",
        "protocol": 4,
        "server": {
            "version": "2026.9.6",
            "buildId": "b1",
            "bootId": "k1",
            "controlUiBuildSource": "bundled",
            "connId": "c1",
        },
        "features": {"methods": ["chat.send"], "events": ["chat"], "capabilities": ["session-scoped-events"]},
        "snapshot": {
            "presence": [],
            "health": {
                "ok": True,
                "ts": 1795219909518,
                "durationMs": 3,
                "channels": {},
                "channelOrder": [],
                "channelLabels": {},
                "defaultAgentId": "u-bob",
                "agents": [{"agentId": "u-bob", "name": "Bob", "isDefault": True}],
                "sessions": {"count": 0, "recent": []},
            },
            "sessionDefaults": {
                "mainKey": "main",
                "scope": "per-sender",
                "defaultAgentId": "u-bob",
                "mainSessionKey": "agent:u-bob:notes",
            },
            "stateVersion": {"presence": 3, "health": 12},
            "uptimeMs": 1000,
            "authMode": "trusted-proxy",
            "suspension": {"phase": "accepting"},
        },
        "auth": {"role": "operator", "scopes": ["operator.read"]},
        "policy": {
            "maxPayload": 26214400,
            "maxBufferedBytes": 1,
            "tickIntervalMs": 30000,
            "attachments": {"maxBytes": 1},
        },
    }


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a hello, but for those that are taken over whole."""
    if isinstance(value, dict):
        yield value
        for name, member in value.items():
            if name not in COPIED_WHOLE:
                yield from _objects(member)
    elif isinstance(value, list):
        for member in value:
            yield from _objects(member)


KNOWN = {name for members in _objects(HELLO) for name in members}


@given(st.data())
def test_nothing_unknown_is_let_through(data: st.DataObject) -> None:
    """Members that no version has yet, anywhere in the hello: what comes out is the same as without them."""
    hello = copy.deepcopy(HELLO)
    names = st.text(max_size=8).filter(lambda name: name not in KNOWN)
    for place in data.draw(st.lists(st.sampled_from(list(_objects(hello))), min_size=1, max_size=6)):
        place[data.draw(names)] = data.draw(
            st.sampled_from([MARK, [MARK], {"key": MARK}, {"agentId": "u-bob", "x": MARK}])
        )
    assert rewritten(hello) == rewritten(HELLO)
    assert MARK not in orjson.dumps(rewritten(hello)).decode()


@given(st.data())
def test_shapes_that_no_gateway_sends(data: st.DataObject) -> None:
    """Any object of the hello replaced by anything: no error, and nobody else's."""
    hello = copy.deepcopy(HELLO)
    place = data.draw(st.sampled_from([hello, hello["snapshot"], hello["snapshot"]["health"], hello["features"]]))
    scalars = {
        "protocol",
        "ok",
        "ts",
        "durationMs",
        "uptimeMs",
        "authMode",
        "stateVersion",
        "suspension",
        "capabilities",
    }
    name = data.draw(st.sampled_from(sorted(set(place) - scalars)))
    place[name] = data.draw(st.sampled_from([None, MARK, 7, [], {}, [None], [MARK], {MARK: MARK}]))
    assert MARK not in orjson.dumps(rewritten(hello)).decode()


def test_an_empty_hello() -> None:
    hello = rewritten({})
    assert hello["features"] == {"methods": [], "events": []}
    assert hello["snapshot"]["health"]["agents"] == [{"agentId": "u-bob", "isDefault": True}]
    assert (hello["auth"], hello["policy"], hello["server"]) == ({}, {}, {"connId": "c1"})


def test_the_hello_that_came_is_left_as_it_was() -> None:
    hello = copy.deepcopy(HELLO)
    rewritten(hello)
    assert hello == HELLO


def test_health_of_a_user_whose_agent_is_not_there_yet() -> None:
    health = own_health({"ok": True, "agents": [None, "u-bob", {"agentId": "u-alice"}, {"agentId": "u-bobby"}]}, BOB)
    assert health["agents"] == [{"agentId": "u-bob", "isDefault": True}]
    assert health["defaultAgentId"] == "u-bob"
