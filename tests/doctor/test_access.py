"""Who can come to a gateway: each weakness is named, and written as the finding says it is gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.doctor.access import access, trusted_networks
from sidecar.doctor.reading import Reach
from tests.doctor.looks import EXPECTED, PUBLIC, TOKEN, by_id, ids, look, mended, under

PROXY = "gateway.auth.trustedProxy"
DEVICES = f"{PROXY}.deviceAutoApprove"
ALL = ["operator.read", "operator.write", "operator.approvals", "operator.questions"]
REMOTE = replace(EXPECTED, local=False, admin_user="openclaw-sidecar")


def test_a_good_house_has_nothing_above_a_note() -> None:
    for name in ("trusted-proxy-2026.9.6", "trusted-proxy-2026.8.2"):
        findings = access(EXPECTED, look(name, under("gateway.controlUi.allowedOrigins", [PUBLIC])))
        assert ids(findings, "warning", "danger") == set()
        assert ids(findings, "note") == {"proxy.local-processes"}
        assert {"auth.mode", "proxy.trusted", "proxy.devices", "origins", "switches", "http", "reach"} <= ids(
            findings, "ok"
        )


def test_a_shared_token_is_a_note() -> None:
    findings = access(TOKEN, look("token-open-2026.9.6"))
    assert ids(findings, "warning", "danger") == set()
    assert ids(findings, "note") == {"auth.shared"}
    assert not any(finding.id.startswith("proxy.") for finding in findings)


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("auth.none", "danger", under("gateway.auth.mode", "none")),
    ("auth.mode", "danger", under("gateway.auth.mode", "password")),
    ("proxy.header", "danger", under(f"{PROXY}.userHeader", "x-other")),
    ("proxy.header", "danger", under(f"{PROXY}.userHeader", None)),
    ("proxy.required-headers", "danger", under(f"{PROXY}.requiredHeaders", ["X-Forwarded-User", "x-forwarded-proto"])),
    ("proxy.allow-users", "warning", under(f"{PROXY}.allowUsers", ["u-alice"])),
    ("proxy.untrusted", "danger", under("gateway.trustedProxies", [])),
    ("proxy.untrusted", "danger", under("gateway.trustedProxies", ["no network"])),
    ("proxy.everybody", "danger", under("gateway.trustedProxies", ["127.0.0.1", "0.0.0.0/0"])),
    ("proxy.everybody", "danger", under("gateway.trustedProxies", ["::ffff:0:0/96"])),
    ("proxy.wide", "warning", under("gateway.trustedProxies", ["10.0.0.0/8"])),
    ("proxy.loopback", "danger", under(f"{PROXY}.allowLoopback", None)),
    ("proxy.devices", "danger", under(f"{DEVICES}.enabled", False)),
    ("proxy.devices", "danger", under(DEVICES, None)),
    (
        "proxy.scopes",
        "danger",
        under(f"{DEVICES}.scopes", ["operator.read", "operator.approvals", "operator.questions"]),
    ),
    ("proxy.scopes", "warning", under(f"{DEVICES}.scopes", ["operator.read", "operator.write"])),
    ("proxy.admin", "danger", under(f"{DEVICES}.scopes", [*ALL, "operator.admin"])),
    ("proxy.more-scopes", "warning", under(f"{DEVICES}.scopes", [*ALL, "operator.pairing"])),
    ("origins.missing", "warning", under("gateway.controlUi", None)),
    ("origins.missing", "warning", under("gateway.controlUi.allowedOrigins", ["http://127.0.0.1:80800"])),
    ("origins.any", "warning", under("gateway.controlUi.allowedOrigins", [PUBLIC, "*"])),
    ("http.endpoint", "warning", under("gateway.http.endpoints.responses.enabled", True)),
    ("http.endpoint", "warning", under("gateway.http.endpoints.chatCompletions.enabled", True)),
    ("http.tools", "warning", under("gateway.tools.allow", ["exec"])),
    ("reach.tailscale", "warning", under("gateway.tailscale.mode", "serve")),
    ("reach.tailscale", "danger", under("gateway.tailscale.mode", "funnel")),
    ("reach.bind", "warning", under("gateway.bind", "lan")),
]


@pytest.mark.parametrize(
    ("name", "severity", "change"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_weakness_is_named_and_its_lines_mend_it(name: str, severity: str, change: dict[str, Any]) -> None:
    seen = look(change=change)
    finding = by_id(access(EXPECTED, seen), name)
    assert finding.severity == severity
    assert finding.says
    assert finding.mends
    assert name not in ids(access(EXPECTED, mended(seen, finding)), "warning", "danger")


def test_the_devices_default_scopes_are_those_that_the_gateway_documents() -> None:
    findings = access(EXPECTED, look(change=under(f"{DEVICES}.scopes", None)))
    assert "proxy.devices" in ids(findings, "ok")


def test_a_gateway_elsewhere_cannot_be_reached_for_and_that_is_said() -> None:
    seen = look(change=under(f"{PROXY}.allowLoopback", None), reach=None)
    findings = access(REMOTE, seen)
    assert ids(findings, "warning", "danger") == set()
    assert ids(findings, "note") == {"reach.unknown"}
    needless = by_id(access(REMOTE, look(reach=None)), "proxy.local-processes")
    assert needless.severity == "warning"


@pytest.mark.parametrize(
    ("answered", "change", "severity"),
    [
        (("192.0.2.2",), {}, "warning"),
        (("192.0.2.2",), under("gateway.trustedProxies", ["127.0.0.1", "192.0.2.0/24"]), "danger"),
        (("fe80::1%eth0",), under("gateway.trustedProxies", ["127.0.0.1", "fe80::/10"]), "danger"),
        (("192.0.2.2",), under("gateway.auth.mode", "none"), "danger"),
    ],
)
def test_a_way_around_is_as_bad_as_what_comes_in_through_it(
    answered: tuple[str, ...], change: dict[str, Any], severity: str
) -> None:
    seen = look(change=change, reach=Reach(answered, answered))
    finding = by_id(access(EXPECTED, seen), "reach.open")
    assert finding.severity == severity
    assert answered[0] in finding.says


def test_a_host_without_other_addresses() -> None:
    assert "reach" in ids(access(EXPECTED, look(reach=Reach())), "ok")


@pytest.mark.parametrize(
    ("path", "severity"),
    [
        ("gateway.controlUi.dangerouslyAllowHostHeaderOriginFallback", "warning"),
        ("browser.ssrfPolicy.dangerouslyAllowPrivateNetwork", "warning"),
        ("agents.defaults.sandbox.docker.dangerouslyAllowExternalBindSources", "danger"),
        ("agents.entries.u-alice.sandbox.docker.dangerouslyAllowContainerNamespaceJoin", "danger"),
        ("channels.slack.accounts.work.dangerouslyAllowNameMatching", "warning"),
        ("models.providers.fake.request.tls.insecureSkipVerify", "warning"),
        ("gateway.controlUi.allowInsecureWhatever2027", "warning"),
        ("gateway.dangerouslyWhatever2027", "warning"),
    ],
)
def test_every_switch_that_calls_itself_dangerous_is_named_while_it_is_on(path: str, severity: str) -> None:
    finding = by_id(access(EXPECTED, look(change=under(path, True))), "switches.on")
    assert finding.severity == severity
    assert path in finding.says
    assert "switches" in ids(access(EXPECTED, look(change=under(path, False))), "ok")


def test_a_switch_in_a_list_is_named_by_its_index_and_a_retired_one_is_a_note() -> None:
    hooks = {"hooks": {"mappings": [{"allowUnsafeExternalContent": True}]}}
    assert (
        "hooks.mappings[0].allowUnsafeExternalContent"
        in by_id(access(EXPECTED, look(change=hooks)), "switches.on").says
    )
    retired = under("gateway.controlUi.dangerouslyDisableDeviceAuth", True)
    assert "switches.inert" in ids(access(EXPECTED, look(change=retired)), "note")


def test_identities_with_scopes_of_their_own() -> None:
    scopes = {"openclaw-sidecar": ["operator.admin"], "ops@example.com": ["operator.read"]}
    findings = access(REMOTE, look(change=under("gateway.auth.identityScopes", scopes), reach=None))
    assert "ops@example.com" in by_id(findings, "proxy.identities").says
    assert "openclaw-sidecar" not in by_id(findings, "proxy.identities").says
    taken = access(
        REMOTE, look(change=under("gateway.auth.identityScopes", {"U-Alice": ["operator.admin"]}), reach=None)
    )
    assert by_id(taken, "proxy.identity").severity == "danger"


def test_networks_are_read_as_the_gateway_reads_them() -> None:
    seen = look(change=under("gateway.trustedProxies", ["10.0.0.1", "::ffff:10.0.0.0/104", " ::1 ", "x", "10.0.0.5/8"]))
    assert [str(one) for one in trusted_networks(seen)] == ["10.0.0.1/32", "10.0.0.0/8", "::1/128", "10.0.0.0/8"]


@pytest.mark.parametrize(
    "broken", [{}, {"gateway": None}, {"gateway": {"auth": []}}, {"gateway": {"auth": {"mode": 7}}}]
)
def test_a_configuration_of_another_shape_raises_nothing(broken: dict[str, Any]) -> None:
    for expected in (EXPECTED, TOKEN, REMOTE):
        assert access(expected, replace(look(), effective=broken, source=broken))
