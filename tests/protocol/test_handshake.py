"""What a client says in `connect` reaches the gateway only where it may."""

from __future__ import annotations

import copy
import ipaddress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import MalformedFrame
from sidecar.protocol.device import Device
from sidecar.protocol.handshake import (
    PAIRING_CLIENTS,
    SCOPES,
    Challenge,
    connect_params,
    forwarded_address,
    needs_origin,
    read_connect,
)
from tests.protocol.json_values import OBJECTS, VALUES

CHALLENGE = Challenge("b3c1f0de", 1795219909518)
DEVICE = Device.derive(bytes(32), "main", "u-bob")
MARK = "~foreign~"


def connect(**members: Any) -> dict[str, Any]:
    """`connect.params` as the Control UI writes them, with `members` over them."""
    return {
        "minProtocol": 3,
        "maxProtocol": 4,
        "client": {
            "id": "openclaw-control-ui",
            "version": "2026.9.6",
            "buildId": "b1",
            "platform": "MacIntel",
            "mode": "webchat",
            "instanceId": "f2c0",
            "timeZone": "Europe/Vienna",
        },
        "role": "operator",
        "scopes": ["operator.admin", "operator.read", "operator.write", "operator.approvals"],
        "caps": ["tool-events", "session-scoped-events"],
        "device": {"id": "d", "publicKey": "p", "signature": "s", "signedAt": 1, "nonce": "n"},
        "auth": {"token": "the client's own"},
        "locale": "de-AT",
        "userAgent": "Mozilla/5.0",
        **members,
    }


def upstream(
    params: dict[str, Any], auth: dict[str, str] | None = None, device: Device | None = DEVICE
) -> dict[str, Any]:
    hello = read_connect(params)
    return connect_params(hello, CHALLENGE, device=device, auth=auth or {}, scopes=hello.scopes)


def test_what_the_control_ui_says() -> None:
    hello = read_connect(connect(sessionKey="notes"))
    assert (hello.client_id, hello.client_mode) == ("openclaw-control-ui", "webchat")
    assert hello.client == {"version": "2026.9.6", "buildId": "b1", "timeZone": "Europe/Vienna"}
    assert (hello.min_protocol, hello.max_protocol) == (3, 4)
    assert hello.caps == ("tool-events", "session-scoped-events")
    assert hello.scopes == SCOPES
    assert (hello.locale, hello.user_agent, hello.session_key) == ("de-AT", "Mozilla/5.0", "notes")
    assert hello.auth == {"token": "the client's own"}


def test_what_reaches_the_gateway() -> None:
    params = upstream(connect(), {"token": "ours"})
    device = params.pop("device")
    assert params == {
        "minProtocol": 3,
        "maxProtocol": 4,
        "client": {
            "id": "openclaw-control-ui",
            "mode": "webchat",
            "version": "2026.9.6",
            "buildId": "b1",
            "timeZone": "Europe/Vienna",
            "platform": "linux",
        },
        "caps": ["tool-events", "session-scoped-events"],
        "role": "operator",
        "scopes": list(SCOPES),
        "locale": "de-AT",
        "userAgent": "Mozilla/5.0",
        "auth": {"token": "ours"},
    }
    assert (device["id"], device["nonce"], device["signedAt"]) == (DEVICE.id, CHALLENGE.nonce, CHALLENGE.ts)


def test_the_device_signs_the_token_that_travels() -> None:
    signatures = [
        upstream(connect(), auth)["device"]["signature"]
        for auth in ({}, {"token": "a"}, {"token": "b"}, {"password": "a"})
    ]
    assert len(set(signatures)) == 3
    assert signatures[0] == signatures[3]


def test_the_least_that_a_client_may_say() -> None:
    params = upstream({"minProtocol": 4, "maxProtocol": 4, "client": {}}, device=None)
    assert params == {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"version": "0", "id": "gateway-client", "mode": "backend", "platform": "linux"},
        "caps": [],
        "role": "operator",
        "scopes": list(SCOPES),
    }


PASSED = {"minProtocol", "maxProtocol", "client", "caps", "role", "scopes", "locale", "userAgent"}
PASSED_OF_CLIENT = {"id", "mode", "version", "buildId", "displayName", "timeZone"}
marked = st.dictionaries(
    st.text(max_size=12), st.sampled_from([MARK, [MARK], {MARK: MARK}, {"operator.admin": MARK}]), max_size=5
)


@given(marked, marked, marked, marked)
def test_nothing_else_of_a_client_reaches_the_gateway(
    extra: dict[str, Any], of_client: dict[str, Any], auth: dict[str, Any], device: dict[str, Any]
) -> None:
    params = connect(auth={"token": MARK, **auth}, device={"id": MARK, **device}, sessionKey=MARK, workspaceDir=MARK)
    params |= {name: value for name, value in extra.items() if name not in PASSED | {"auth"}}
    params["client"] |= {name: value for name, value in of_client.items() if name not in PASSED_OF_CLIENT}
    params["client"] |= {"platform": MARK, "deviceFamily": MARK, "instanceId": MARK}
    for ours in (None, DEVICE):
        for sent in ({}, {"token": "ours"}):
            assert MARK not in orjson.dumps(upstream(params, sent, ours)).decode()


@given(st.dictionaries(st.sampled_from([*connect(), "sessionKey", "x"]), VALUES), OBJECTS)
def test_total_over_json(members: dict[str, Any], client: dict[str, Any]) -> None:
    for params in (connect(**members), connect(client={**connect()["client"], **client}), members):
        before = copy.deepcopy(params)
        try:
            sent = upstream(params)
        except MalformedFrame:
            continue
        assert params == before
        assert "operator.admin" not in orjson.dumps(sent).decode()
        assert set(sent) <= PASSED | {"device"}
        assert set(sent["client"]) <= PASSED_OF_CLIENT | {"platform"}
        assert sent["client"]["id"] in {"openclaw-control-ui", "gateway-client"}


@given(st.lists(st.one_of(st.sampled_from(["operator.admin", *SCOPES, "operator.*", "*"]), VALUES), max_size=6))
def test_scopes_are_never_more_than_a_users(asked: list[Any]) -> None:
    assert set(read_connect(connect(scopes=asked)).scopes) <= set(SCOPES)


@pytest.mark.parametrize(
    ("asked", "given_"),
    [
        ([], ()),
        (["operator.read"], ("operator.read",)),
        (["operator.write"], ("operator.write",)),
        (["operator.admin"], SCOPES),
        (["operator.approvals", "operator.pairing"], ("operator.approvals",)),
    ],
)
def test_scopes_asked_and_given(asked: list[str], given_: tuple[str, ...]) -> None:
    assert read_connect(connect(scopes=asked)).scopes == given_


@pytest.mark.parametrize(
    "client_id", ["node-host", "openclaw-worker", "fingerprint", "", "x" * 200, None, 7, [], {}, ["cli"]]
)
def test_a_client_that_is_not_known_is_a_plain_one(client_id: Any) -> None:
    hello = read_connect(connect(client={"id": client_id, "mode": "webchat"}))
    assert (hello.client_id, hello.client_mode) == ("gateway-client", "backend")


@pytest.mark.parametrize("mode", ["node", "worker", "probe", None, 7, [], {}, ["ui"]])
def test_a_mode_that_is_not_a_users_is_a_plain_one(mode: Any) -> None:
    hello = read_connect(connect(client={"id": "cli", "mode": mode}))
    assert (hello.client_id, hello.client_mode) == ("gateway-client", "backend")


@pytest.mark.parametrize(
    "client_id", ["webchat-ui", "openclaw-control-ui", "openclaw-tui", "cli", "gateway-client", "openclaw-linux"]
)
def test_a_known_client_keeps_its_name(client_id: str) -> None:
    assert read_connect(connect(client={"id": client_id, "mode": "ui"})).client_id == client_id


@pytest.mark.parametrize(("client_id", "mode"), PAIRING_CLIENTS)
def test_a_pairing_client_is_one_that_the_gateway_knows(client_id: str, mode: str) -> None:
    hello = read_connect(connect(client={"id": client_id, "mode": mode}))
    assert (hello.client_id, hello.client_mode) == (client_id, mode)


def test_an_origin_is_shown_where_a_browser_would_be() -> None:
    assert needs_origin("webchat-ui", "ui")
    assert needs_origin("openclaw-control-ui", "backend")
    assert needs_origin("gateway-client", "webchat")
    assert not needs_origin("gateway-client", "backend")
    assert not needs_origin("openclaw-linux", "ui")


@pytest.mark.parametrize("text", ["", "a\nb", "a\x00", "é", "x" * 129, 7, None, [], {}])
def test_texts_that_are_not_plain_are_left_out(text: Any) -> None:
    client = {"id": "cli", "mode": "cli", "version": text, "displayName": text}
    hello = read_connect(connect(client=client, locale=text, userAgent=text))
    assert (hello.client, hello.locale, hello.user_agent) == ({}, "", "")


@pytest.mark.parametrize("key", [7, None, [], {}])
def test_a_session_key_that_is_no_text_is_none(key: Any) -> None:
    assert read_connect(connect(sessionKey=key)).session_key == ""


NO_NUMBERS: list[Any] = [0, 1001, True, 4.0, "4", None, []]
NO_VERSIONS = [({name: value}, "whole numbers") for name in ("minProtocol", "maxProtocol") for value in NO_NUMBERS]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"client": None}, "params.client"),
        ({"client": "cli"}, "params.client"),
        ({"client": []}, "params.client"),
        ({"role": "node"}, "only the role 'operator'"),
        ({"role": None}, "only the role 'operator'"),
        ({"role": ["operator"]}, "only the role 'operator'"),
        ({"caps": "tool-events"}, "caps"),
        ({"caps": None}, "caps"),
        ({"caps": ["Tool events"]}, "caps"),
        ({"caps": ["x" * 65]}, "caps"),
        ({"caps": [["x"]]}, "caps"),
        ({"caps": ["x"] * 65}, "caps"),
        ({"scopes": "operator.read"}, "scopes"),
        ({"scopes": None}, "scopes"),
        ({"auth": "token"}, "auth"),
        ({"auth": None}, "auth"),
        ({"auth": []}, "auth"),
        *NO_VERSIONS,
    ],
)
def test_what_is_no_connect(members: dict[str, Any], said: str) -> None:
    with pytest.raises(MalformedFrame, match=said):
        read_connect(connect(**members))


def test_the_address_of_a_user_is_one_for_documentation() -> None:
    slugs = [f"u-user{number}" for number in range(500)]
    addresses = {ipaddress.ip_address(forwarded_address(slug)) for slug in slugs}
    assert len(addresses) == len(slugs)
    assert all(address in ipaddress.ip_network("2001:db8::/32") for address in addresses)
    assert forwarded_address("u-bob") == forwarded_address("u-bob")
