"""Who can come to the gateway, and as whom. Pure. Keys and their meaning: `config.schema` of 2026.9.6, and what was seen there."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator

from sidecar.doctor.findings import Finding, danger, json5, listed, note, ok, openclaw, setting, sidecar, warning
from sidecar.doctor.reading import Expected, GatewaySeen, Reach
from sidecar.doctor.shape import leaves, member, table, words
from sidecar.gateways.configuration import USERS_AGENT
from sidecar.protocol.handshake import SCOPES

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PROXY = "gateway.auth.trustedProxy"
_DEVICES = f"{_PROXY}.deviceAutoApprove"
_DEFAULT_SCOPES = ["operator.read", "operator.write", "operator.approvals", "operator.questions"]
_ASKED = frozenset({"operator.read", "operator.write"})
_ENDPOINTS = "gateway.http.endpoints"


def access(expected: Expected, seen: GatewaySeen) -> list[Finding]:
    """Everything about one gateway's doors."""
    found = [*_mode(expected, seen)]
    if member(seen.effective, "gateway.auth.mode") == "trusted-proxy":
        found += [*_proxy(expected, seen), *_devices(seen), *_identities(expected, seen), *_origins(expected, seen)]
    return [*found, *_switches(seen), *_http(seen), *_ways_around(seen)]


def _mode(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    mode = member(seen.effective, "gateway.auth.mode")
    if mode == "none":
        yield danger(
            "auth.none",
            "Whoever reaches the gateway's port is its owner and reads everybody's sessions: it asks for no secret.",
            setting("gateway.auth.mode", "trusted-proxy"),
        )
    elif isinstance(mode, str) and mode != expected.auth:
        yield danger(
            "auth.mode",
            f"The gateway's mode is {mode} and ours is {expected.auth}: users' connections are refused, or all are one owner.",
            setting("gateway.auth.mode", expected.auth),
            sidecar(f'[[gateways]]\nid = "{expected.id}"\nauth = {json5(mode)}'),
        )
    elif expected.auth == "trusted-proxy":
        yield ok("auth.mode", "The gateway knows each user by the identity that the sidecar gives them.")
    else:
        yield note(
            "auth.shared",
            "To the gateway all users are its one owner, who shares a secret with the sidecar: only the sidecar tells them apart.",
            setting("gateway.auth.mode", "trusted-proxy"),
            sidecar('auth = "trusted-proxy"'),
        )


def _proxy(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    header = member(seen.effective, f"{_PROXY}.userHeader")
    if str(header).lower() != expected.user_header.lower():
        yield danger(
            "proxy.header",
            "The gateway looks for its users in another header than the one that we send: no user gets in.",
            setting(f"{_PROXY}.userHeader", expected.user_header),
        )
    required = [
        name
        for name in words(seen.effective, f"{_PROXY}.requiredHeaders")
        if name.lower() not in {expected.user_header.lower(), "x-forwarded-for", "x-openclaw-scopes"}
    ]
    if required:
        yield danger(
            "proxy.required-headers",
            f"The gateway asks proxies for headers that the sidecar does not send ({listed(required)}): no user gets in.",
            setting(f"{_PROXY}.requiredHeaders", []),
        )
    if words(seen.effective, f"{_PROXY}.allowUsers"):
        yield warning(
            "proxy.allow-users",
            "The gateway lets in the identities of a list only, so each new user is refused until the operator adds their agent.",
            setting(f"{_PROXY}.allowUsers", []),
        )
    yield from _trusted(expected, seen)
    yield from _loopback(expected, seen)


def _trusted(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    """Whose word the gateway takes for who somebody is."""
    networks = trusted_networks(seen)
    wide = [network for network in networks if network.num_addresses > 1]
    mend = setting("gateway.trustedProxies", ["127.0.0.1"] if expected.local else ["<address of the sidecar>"])
    if not networks:
        yield danger("proxy.untrusted", "The gateway trusts no proxy, so no user gets in.", mend)
    elif any(network.prefixlen == 0 for network in wide):
        yield danger(
            "proxy.everybody",
            "The gateway believes everybody who says to be some user: whoever reaches its port reads anybody's sessions.",
            mend,
        )
    elif wide:
        yield warning(
            "proxy.wide",
            f"Whoever has an address in {listed(map(str, wide))} and reaches the gateway's port can act as any user.",
            mend,
        )
    else:
        yield ok("proxy.trusted", f"The gateway believes {listed(map(str, networks))} only.")


def trusted_networks(seen: GatewaySeen) -> list[Network]:
    """`gateway.trustedProxies`, as far as it can be read; IPv4-mapped ranges as IPv4."""
    networks = []
    for text in words(seen.effective, "gateway.trustedProxies"):
        with contextlib.suppress(ValueError):
            networks.append(_unmapped(ipaddress.ip_network(text.strip(), strict=False)))
    return networks


def _unmapped(network: Network) -> Network:
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))


def _loopback(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    allowed = member(seen.effective, f"{_PROXY}.allowLoopback") is True
    if expected.local and not allowed:
        yield danger(
            "proxy.loopback",
            "The gateway takes no proxy on its own host, and the sidecar is one: no user gets in.",
            setting(f"{_PROXY}.allowLoopback", value=True),
        )
    elif allowed and not expected.local:
        yield warning(
            "proxy.local-processes",
            "Any program on the gateway's host can act as any user, and the sidecar does not need that, being elsewhere.",
            setting(f"{_PROXY}.allowLoopback", value=False),
        )
    elif allowed:
        yield note(
            "proxy.local-processes",
            "Any program on this host can act as any user towards the gateway: run nothing of users here.",
        )


def _devices(seen: GatewaySeen) -> Iterator[Finding]:
    """A user's first connection pairs a device of the sidecar's; from then on it has the scopes that were approved."""
    mend = setting(_DEVICES, {"enabled": True, "scopes": list(SCOPES)})
    if member(seen.effective, f"{_DEVICES}.enabled") is not True:
        yield danger("proxy.devices", "The gateway approves no device by itself: new users do not get in.", mend)
        return
    listed_scopes = member(seen.effective, f"{_DEVICES}.scopes")
    granted = frozenset(listed_scopes if isinstance(listed_scopes, list) else _DEFAULT_SCOPES)
    missing, more = [scope for scope in SCOPES if scope not in granted], sorted(granted - set(SCOPES))
    if missing:
        make = danger if _ASKED.intersection(missing) else warning
        yield make(
            "proxy.scopes",
            f"New users are not given {listed(missing)}, which their connections ask for: what needs it is refused to them.",
            mend,
        )
    if "operator.admin" in more:
        yield danger(
            "proxy.admin",
            "Every identity that a proxy names may become the gateway's administrator. The sidecar never asks for it; others may.",
            mend,
        )
    elif more:
        yield warning("proxy.more-scopes", f"Users' devices may have more than they need: {listed(more)}.", mend)
    if not missing and not more:
        yield ok("proxy.devices", "New users get in by themselves, with the scopes of a user and no more.")


def _identities(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    scopes = table(seen.effective, "gateway.auth.identityScopes")
    users = [name for name in scopes if USERS_AGENT.fullmatch(name.lower())]
    if users:
        yield danger(
            "proxy.identity",
            f"Identities that are users' have scopes of their own at the gateway: {listed(users)}.",
            openclaw(f"// gateway.auth.identityScopes: without {listed(users)}"),
        )
    others = [name for name in scopes if name not in {*users, expected.admin_user}]
    if others:
        yield note("proxy.identities", f"Beside the sidecar the gateway gives scopes to {listed(others)}.")


def _origins(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    """The sidecar sends `server.public_url` as `Origin` of browser clients, whichever page they came from."""
    allowed, path = words(seen.effective, "gateway.controlUi.allowedOrigins"), "gateway.controlUi.allowedOrigins"
    public = expected.origins[0]
    if "*" in allowed:
        yield warning(
            "origins.any",
            "Any web page that somebody on the gateway's network opens may try to connect to the gateway itself.",
            setting(path, [public]),
        )
    elif public not in allowed:
        yield warning(
            "origins.missing",
            f"The gateway does not know {public}, the sidecar's server.public_url: clients in browsers are refused.",
            setting(path, [*allowed, public]),
        )
    else:
        yield ok("origins", f"Browser clients come from {public}, and the gateway lets them in.")


_INERT = {"gateway.controlUi.dangerouslyDisableDeviceAuth": "does nothing from 2026.8 on; remove it"}
_MEANS = {
    "dangerouslyAllowHostHeaderOriginFallback": "lets any web page connect that names the gateway's host",
    "dangerouslyAllowPrivateNetwork": "lets agents that fetch reach this host and its network, the gateway's own port too",
    "dangerouslyAllowExternalBindSources": "lets a sandbox see folders outside of its workspace",
    "dangerouslyAllowReservedContainerTargets": "lets a sandbox take the place of the gateway's own files",
    "dangerouslyAllowContainerNamespaceJoin": "lets a sandbox share another container's network or processes",
    "dangerouslyAllowNameMatching": "takes people of a channel for others who only call themselves alike",
    "dangerouslyDisableSignatureValidation": "takes messages of a channel that nobody signed",
    "dangerouslyAllowInheritedWebhookPath": "lets accounts of a channel share one address",
    "insecureSkipVerify": "does not check who a model provider is, and sends it people's messages",
    "allowUnsafeExternalContent": "hands what strangers wrote to an agent without a mark",
}
_GRAVE = frozenset(
    {
        "dangerouslyAllowExternalBindSources",
        "dangerouslyAllowReservedContainerTargets",
        "dangerouslyAllowContainerNamespaceJoin",
    }
)


def _switches(seen: GatewaySeen) -> Iterator[Finding]:
    """Every switch of the configuration whose name says that it is dangerous, and that is on."""
    found = False
    for path, value in leaves(seen.effective):
        name = path.rpartition(".")[2]
        if value is not True or not (name in _MEANS or name.lower().startswith(("dangerously", "allowinsecure"))):
            continue
        found = True
        if path in _INERT:
            yield note("switches.inert", f"{path} {_INERT[path]}.", openclaw(f"// without {path}"))
            continue
        make = danger if name in _GRAVE else warning
        means = _MEANS.get(name, "is one of the switches that the gateway's makers call dangerous")
        yield make("switches.on", f"{path} {means}.", openclaw(f"// {path}: false"))
    if not found:
        yield ok("switches", "No dangerously… switch of the gateway is on.")


def _http(seen: GatewaySeen) -> Iterator[Finding]:
    on = [
        name
        for name in table(seen.effective, _ENDPOINTS)
        if member(seen.effective, f"{_ENDPOINTS}.{name}.enabled") is True
    ]
    for name in on:
        yield warning(
            "http.endpoint",
            f"Whoever reaches the gateway's port with its secret, or as its proxy, runs any agent over HTTP ({name}): no quota of "
            "ours counts that, and it obeys the session key of any user.",
            setting(f"{_ENDPOINTS}.{name}.enabled", value=False),
        )
    if not on:
        yield ok("http", "The gateway's own /v1 endpoints are off.")
    if tools := words(seen.effective, "gateway.tools.allow"):
        yield warning(
            "http.tools",
            f"The gateway's POST /tools/invoke runs {listed(tools)} for whoever has its secret, in any user's agent that has it.",
            setting("gateway.tools.allow", []),
        )


def _ways_around(seen: GatewaySeen) -> Iterator[Finding]:
    tailscale = member(seen.effective, "gateway.tailscale.mode")
    if tailscale in {"serve", "funnel"}:
        make = danger if tailscale == "funnel" else warning
        yield make(
            "reach.tailscale",
            "Tailscale carries the gateway's port to "
            + ("the whole internet" if tailscale == "funnel" else "the tailnet")
            + ", around the sidecar.",
            setting("gateway.tailscale.mode", "off"),
        )
    if seen.reach is None:
        yield note(
            "reach.unknown",
            "The gateway is on another host, so it cannot be seen from here who else reaches its port. Only the sidecar's address "
            "may: let a firewall see to it.",
        )
        return
    yield _reached(seen, seen.reach)


def _reached(seen: GatewaySeen, reach: Reach) -> Finding:
    bind = member(seen.effective, "gateway.bind")
    if reach.answered:
        believed = [
            address
            for address in reach.answered
            if any(ipaddress.ip_address(address.partition("%")[0]) in network for network in trusted_networks(seen))
        ]
        grave = believed or member(seen.effective, "gateway.auth.mode") == "none"
        make = danger if grave else warning
        how = " and believes what comes from there" if believed else ""
        return make(
            "reach.open",
            f"The gateway answers at {listed(reach.answered)}{how}: whoever reaches that address goes around the sidecar, its "
            "tokens and its limits.",
            setting("gateway.bind", "loopback"),
        )
    if bind not in {None, "loopback"}:
        return warning(
            "reach.bind",
            f"The gateway binds to more than loopback (gateway.bind {json5(bind)}), though it answered at no other address of "
            "this host just now.",
            setting("gateway.bind", "loopback"),
        )
    if not reach.tried:
        return ok("reach", "The gateway binds to loopback, and this host has no other address to try.")
    return ok("reach", f"The gateway answers at none of this host's other addresses ({listed(reach.tried)}).")
