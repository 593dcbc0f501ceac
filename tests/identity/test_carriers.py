"""Where a token may stand, and what happens when it stands in two places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from sidecar.errors import TokenRefused
from sidecar.identity.carriers import (
    MAX_TOKEN,
    Credential,
    agreed_token,
    credential_from_connect,
    credential_from_upgrade,
    echo_protocol,
    token_from_request,
)

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl-_"
OTHER = JWT[:-1] + "A"
PROTOCOL = "Sec-WebSocket-Protocol"


def reason_of(refusal: pytest.ExceptionInfo[TokenRefused]) -> str:
    assert JWT not in str(refusal.value)
    return refusal.value.reason


@pytest.mark.parametrize(
    ("headers", "echoed"),
    [
        ({"Authorization": f"Bearer {JWT}"}, None),
        ({"authorization": f"bearer {JWT}"}, None),
        ({"AUTHORIZATION": f"  BEARER \t {JWT} "}, None),
        ({"Authorization": f"Bearer {JWT}", PROTOCOL: "openclaw"}, "openclaw"),
        ({PROTOCOL: f"bearer.{JWT}, openclaw"}, "openclaw"),
        ({PROTOCOL: f"openclaw,bearer.{JWT}"}, "openclaw"),
        ({"sec-websocket-protocol": f" openclaw ,, bearer.{JWT} , other"}, "openclaw"),
        ({PROTOCOL: f"Bearer.{JWT}, openclaw"}, "openclaw"),
        ({PROTOCOL: f"bearer.{JWT}, bearer.{JWT}, openclaw"}, "openclaw"),
        ({"Authorization": f"Bearer {JWT}", PROTOCOL: f"bearer.{JWT}, openclaw"}, "openclaw"),
        ({"Authorization": f"Bearer {JWT}", "Cookie": f"session={OTHER}"}, None),
    ],
)
def test_an_upgrade_with_a_token(headers: dict[str, str], echoed: str | None) -> None:
    assert credential_from_upgrade(headers) == Credential(JWT, echoed)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Basic YTpi"}, {"Authorization": ""}, {PROTOCOL: "openclaw"}, {PROTOCOL: ""}],
)
def test_an_upgrade_without(headers: dict[str, str]) -> None:
    assert credential_from_upgrade(headers) is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Authorization": "Bearer"}, "malformed"),
        ({"Authorization": "Bearer "}, "malformed"),
        ({"Authorization": f"Bearer {JWT} {JWT}"}, "malformed"),
        ({"Authorization": f"Bearer {JWT}, Bearer {OTHER}"}, "malformed"),
        ({"Authorization": f"Bearer {JWT}é"}, "malformed"),
        ({"Authorization": f"Bearer {JWT}\x00"}, "malformed"),
        ({"Authorization": f'Bearer "{JWT}"'}, "malformed"),
        ({"Authorization": "Bearer " + "x" * (MAX_TOKEN + 1)}, "oversized"),
        ({"Authorization": f"Bearer {JWT}", PROTOCOL: f"bearer.{OTHER}, openclaw"}, "ambiguous"),
        ({PROTOCOL: f"bearer.{JWT}, bearer.{OTHER}, openclaw"}, "ambiguous"),
        ({PROTOCOL: f"bearer.{JWT}"}, "carrier"),
        ({PROTOCOL: f"bearer.{JWT}, BEARER.{JWT}"}, "carrier"),
        ({PROTOCOL: "bearer., openclaw"}, "malformed"),
        ({PROTOCOL: "openclaw, bearer." + "x" * (MAX_TOKEN + 1)}, "oversized"),
    ],
)
def test_an_upgrade_that_is_refused(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(TokenRefused) as refusal:
        credential_from_upgrade(headers)
    assert reason_of(refusal) == reason


def test_repeated_headers() -> None:
    """A proxy and a server may each believe another of the two."""
    with pytest.raises(TokenRefused) as refusal:
        credential_from_upgrade(CIMultiDict([("Authorization", f"Bearer {JWT}"), ("authorization", f"Bearer {OTHER}")]))
    assert reason_of(refusal) == "ambiguous"
    offered = CIMultiDict([(PROTOCOL, f"bearer.{JWT}"), (PROTOCOL, "openclaw")])
    assert credential_from_upgrade(offered) == Credential(JWT, "openclaw")


@pytest.mark.parametrize(
    "query",
    [
        *(
            f"token={JWT}",
            f"access_token={JWT}",
            "auth=x",
            "AUTH=x",
            "a=1&token=",
            "token",
            "authToken=x",
            "id_token=x",
        ),
        *(
            "%74oken=x",
            "to%6ben=x",
            "api-key=x",
            "access-token=x",
            "+token=x",
            "password=x",
            "jwt=x",
            "token[]=x",
        ),
        *(f"t={JWT}", f"next=/x%3Ft%3D{JWT}", JWT, f"bearer.{JWT}=1", f"session=bearer+{JWT}"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": f"Bearer {JWT}"}])
def test_never_in_the_address(query: str, headers: dict[str, str]) -> None:
    with pytest.raises(TokenRefused) as refusal:
        credential_from_upgrade(headers, query)
    assert reason_of(refusal) == "query"
    for place in ("Authorization: Bearer", "bearer.<token>", "params.auth.token"):
        assert place in refusal.value.message


@pytest.mark.parametrize("query", ["", "a=1&b=2", "session=agent:u-alice:main", "tokens=5", "ticket=3f2a", "q=%ff%fe"])
def test_other_queries(query: str) -> None:
    assert credential_from_upgrade({"Authorization": f"Bearer {JWT}"}, query) == Credential(JWT, None)


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({}, None),
        ({"auth": None}, None),
        ({"auth": {}}, None),
        ({"auth": {"token": "", "password": ""}}, None),
        ({"auth": {"token": None}}, None),
        ({"auth": {"deviceToken": JWT}}, None),
        ({"auth": {"token": JWT}}, JWT),
        ({"auth": {"password": JWT}}, JWT),
        ({"auth": {"token": JWT, "password": JWT}}, JWT),
        ({"auth": {"token": JWT, "password": ""}}, JWT),
        ({"auth": {"token": "x" * MAX_TOKEN}}, "x" * MAX_TOKEN),
    ],
)
def test_connect(params: dict[str, object], found: str | None) -> None:
    assert credential_from_connect(params) == found


@pytest.mark.parametrize(
    ("auth", "reason"),
    [
        (JWT, "malformed"),
        ([JWT], "malformed"),
        ({"token": 7}, "malformed"),
        ({"token": {"token": JWT}}, "malformed"),
        ({"token": f"{JWT}\n"}, "malformed"),
        ({"token": "\ud800"}, "malformed"),
        ({"token": f"Bearer {JWT}"}, "malformed"),
        ({"password": "correct horse"}, "malformed"),
        ({"token": JWT, "password": OTHER}, "ambiguous"),
        ({"token": "x" * (MAX_TOKEN + 1)}, "oversized"),
        ({"password": "x" * 1_000_000}, "oversized"),
    ],
)
def test_connect_that_is_refused(auth: object, reason: str) -> None:
    with pytest.raises(TokenRefused) as refusal:
        credential_from_connect({"auth": auth})
    assert reason_of(refusal) == reason


def test_one_token_for_a_connection() -> None:
    upgrade = Credential(JWT, None)
    assert agreed_token(upgrade, None) == agreed_token(None, JWT) == agreed_token(upgrade, JWT) == JWT
    for brought, reason in (
        ((upgrade, OTHER), "ambiguous"),
        ((None, None), "missing"),
        ((None, "é"), "malformed"),
    ):
        with pytest.raises(TokenRefused) as refusal:
            agreed_token(*brought)
        assert reason_of(refusal) == reason


def test_a_credential_does_not_show_its_token() -> None:
    assert JWT not in f"{Credential(JWT, 'openclaw')!r} {Credential(JWT, None)}"


names = st.sampled_from(["Authorization", "authorization", PROTOCOL, "Cookie"])
values = st.lists(
    st.sampled_from(["Bearer", "bearer.", JWT, OTHER, ",", " ", "openclaw", "é", "\x00", "=", ".", "Basic"]),
    max_size=8,
).map("".join)


@given(st.lists(st.tuples(names, values), max_size=5), st.text(max_size=30))
def test_whatever_comes_a_token_is_never_echoed(headers: list[tuple[str, str]], query: str) -> None:
    try:
        credential = credential_from_upgrade(CIMultiDict(headers), query)
    except TokenRefused:
        return
    echoed = echo_protocol(CIMultiDict(headers))
    assert echoed is None or not echoed.lower().startswith("bearer.")
    assert credential is None or (credential.echo_protocol == echoed and credential.token.isascii())


def test_a_plain_request_carries_its_token_in_one_place() -> None:
    assert token_from_request(CIMultiDict({"authorization": f"bearer {JWT}"}), "limit=3") == JWT
    assert (
        token_from_request(CIMultiDict([("Authorization", f"Bearer {JWT}"), ("AUTHORIZATION", f"Bearer {JWT}")])) == JWT
    )
    for headers, query, reason in (
        ({}, "", "missing"),
        ({"Authorization": f"Basic {JWT}"}, "", "missing"),
        ({PROTOCOL: f"openclaw, bearer.{JWT}"}, "", "missing"),
        ({"Authorization": "Bearer"}, "", "malformed"),
        ({"Authorization": f"Bearer {'x' * (MAX_TOKEN + 1)}"}, "", "oversized"),
        ({"Authorization": f"Bearer {JWT}"}, f"token={JWT}", "query"),
    ):
        with pytest.raises(TokenRefused) as refusal:
            token_from_request(CIMultiDict(headers), query)
        assert reason_of(refusal) == reason
    with pytest.raises(TokenRefused) as refusal:
        token_from_request(CIMultiDict([("Authorization", f"Bearer {JWT}"), ("Authorization", f"Bearer {OTHER}")]))
    assert reason_of(refusal) == "ambiguous"
