"""The types of single settings: each checks one value, and says what is wrong without ever showing the value.

A value may hold a password (a URL with one in it, a secret in the wrong place), so no message repeats it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import PurePosixPath
from typing import Annotated, Never
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, Strict
from pydantic_core import PydanticCustomError

ASYMMETRIC_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
# Headers that a proxy, HTTP itself or the gateway gives another meaning.
_TAKEN_HEADERS = frozenset(
    {
        "authorization",
        "connection",
        "cookie",
        "forwarded",
        "host",
        "origin",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Kind:
    """What the reference and the error messages call a type: `must be <words>`."""

    words: str


def refuse(what: str, mend: str = "") -> Never:
    """Raise what `load` turns into a Problem."""
    raise PydanticCustomError("setting", "{what}", {"what": what, "mend": mend})


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def split_url(value: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of a URL with one of `schemes`, a host, a usable port, and no user, query or fragment."""
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        refuse("is not a URL", f"write {wanted}host:port")
    if url.scheme not in schemes or not url.hostname:
        refuse(f"is not a URL that starts with {wanted} and names a host", f"write {wanted}host:port")
    if port == 0 or not re.fullmatch(r"[\x21-\x7e]+", value):
        refuse("is not a URL that can be dialled", "use printable characters and a port from 1 to 65535")
    if "@" in url.netloc:
        refuse("holds a user or a password", "give secrets in the settings meant for them, not in the URL")
    if url.query or url.fragment or value[-1] in "?#":
        refuse("has a query or a fragment", "end the URL before the `?` or `#`")
    return url


def _origin_of(url: SplitResult) -> str:
    """As a browser writes it in `Origin`: lower case, no default port, no path."""
    host = url.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if url.port in {None, _DEFAULT_PORTS.get(url.scheme)} else f":{url.port}"
    return f"{url.scheme}://{host}{port}"


def _public_url(value: str) -> str:
    url = split_url(value, ("http", "https"))
    if url.path not in {"", "/"}:
        refuse("has a path", "the sidecar lives at the root of its host: end the URL after the port")
    return _origin_of(url)


def _allowed_origin(value: str) -> str:
    scheme = urlsplit(value).scheme if "://" in value else ""
    if not scheme:
        refuse("is not an origin", "write scheme://host:port as a browser does; `*` and `null` are not taken")
    url = split_url(value, (scheme,))
    if url.path not in {"", "/"} or "*" in url.netloc:
        refuse("is more than one origin, or has a path", "write each origin out, as scheme://host:port")
    return _origin_of(url)


def _web_socket_url(value: str) -> str:
    split_url(value, ("ws", "wss"))
    return value


def _secure_url(value: str) -> str:
    """Keys that decide who somebody is must not travel in the clear; on loopback nobody is in between."""
    if value:
        url = split_url(value, ("https", "http"))
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            refuse("is not https", "use https://; plain http:// is taken for this machine only")
    return value


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        refuse("is not a network", 'write "10.0.0.0/8", or a single address')
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        refuse("is not a network", 'write "10.0.0.0/8", or a single address')
    if "/" in value and ip_address(value.split("/")[0]) != network.network_address:
        refuse("has bits set behind its prefix", f'write "{network}"')
    return network


def _host(value: str) -> str:
    try:
        ip_address(value)
    except ValueError:
        if not re.fullmatch(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", value) or not re.search(
            r"[A-Za-z]", value
        ):
            refuse("is neither an address nor a host name", 'for every interface write "0.0.0.0" or "::"')
    return value


def _header_name(value: str) -> str:
    name = value.lower()
    if not re.fullmatch(r"[a-z0-9-]+", name):
        refuse("is not a header name", "use letters, digits and hyphens, such as x-forwarded-user")
    if name in _TAKEN_HEADERS or name.startswith(("sec-", "x-openclaw-", "x-forwarded-for", "content-")):
        refuse("is a header with another meaning", "use a header of its own, such as x-forwarded-user")
    return name


def _admin_user(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]*", value):
        refuse(
            "holds spaces or other characters that a header cannot carry",
            "use printable ASCII without spaces",
        )
    if re.fullmatch(r"u-[a-z0-9]+", value.lower()):
        refuse(
            "looks like an agent id of a user, under which users are sent to the gateway: one could be admin",
            'use a name that does not start with "u-", such as "openclaw-sidecar"',
        )
    return value


def _slug(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,64}", value):
        refuse("is not 1 to 64 lower-case letters, digits and hyphens", 'write something like "main"')
    return value


def _gateway_version(value: str) -> str:
    if not re.fullmatch(r"\d{4}\.\d{1,2}\.\d+([-+.][0-9A-Za-z.+-]{1,64})?", value):
        refuse(
            "is not one exact version, and the next unknown one must close the gateway again",
            'write it as the gateway calls itself, such as "2026.10.1"',
        )
    return value


def _algorithm(value: str) -> str:
    if value.upper() == "NONE" or value.upper().startswith("HS"):
        refuse(
            "is unsigned or shares its secret, so anyone could make tokens",
            "name asymmetric ones, such as RS256",
        )
    if value not in ASYMMETRIC_ALGORITHMS:
        refuse(
            "is not an algorithm that is verified here",
            f"choose from {', '.join(sorted(ASYMMETRIC_ALGORITHMS))}",
        )
    return value


def _claim(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", value):
        refuse("is not a claim name", "use printable ASCII without spaces")
    return value


def _folder(value: str) -> str:
    path = PurePosixPath(value)
    if not path.is_absolute() or "\x00" in value or ".." in path.parts or len(path.parts) < 2:
        refuse("is not an absolute path below /", "start with / and leave out `..`")
    return str(path)


def _word(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        refuse("is empty or holds spaces", "write one name per entry, in printable ASCII")
    return value


def _day(value: object) -> object:
    """TOML has dates, JSON has none."""
    text = value.isoformat() if isinstance(value, date) else value
    if isinstance(text, str) and text:
        try:
            date.fromisoformat(text)
        except ValueError:
            refuse("is not a day", "write it as year-month-day: 2026-11-27")
    return text


def _store_url(*schemes: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text and not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            wanted = " or ".join(f"{scheme}://" for scheme in schemes)
            refuse(f"does not start with {wanted}", "or leave it empty for the embedded engine")
        return value

    return AfterValidator(check)


def _seal(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text and len(text.encode()) < 32:
        refuse("is shorter than 32 bytes", "make one with `openssl rand -base64 48`")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        refuse(
            "is not known here",
            'write it as "Europe/Berlin" or "UTC"; without a system time zone database install `tzdata`',
        )
    return value


Port = Annotated[int, Strict(), Field(ge=0, le=65535), Kind("a whole number from 0 to 65535")]
Count = Annotated[int, Strict(), Field(ge=1, le=10_000_000), Kind("a whole number of at least 1")]
Limit = Annotated[int, Strict(), Field(ge=0, le=10_000_000), Kind("a whole number; 0: unlimited")]
Tokens = Annotated[int, Strict(), Field(ge=0, le=10**12), Kind("a whole number; 0: unlimited")]
RoleTokens = Annotated[int, Strict(), Field(ge=-1, le=10**12), Kind("a whole number; 0: unlimited, -1: as in `quota`")]
RoleLimit = Annotated[
    int, Strict(), Field(ge=-1, le=10_000_000), Kind("a whole number; 0: unlimited, -1: as in `quota`")
]
Weight = Annotated[float, Strict(), Field(ge=0, le=1000, allow_inf_nan=False), Kind("a number from 0 to 1000")]
Percent = Annotated[float, Strict(), Field(ge=0, le=100, allow_inf_nan=False), Kind("a number from 0 to 100")]
Seconds = Annotated[
    float,
    Strict(),
    Field(gt=0, le=86_400, allow_inf_nan=False),
    Kind("a number of seconds above 0, at most 86400"),
]
Leeway = Annotated[float, Strict(), Field(ge=0, le=300, allow_inf_nan=False), Kind("a number of seconds from 0 to 300")]
Flag = Annotated[bool, Strict(), Kind("true or false")]
Usd = Annotated[
    float, Strict(), Field(ge=0, le=1_000_000, allow_inf_nan=False), Kind("an amount in USD, from 0 to 1000000")
]
RoleUsd = Annotated[
    float,
    Strict(),
    Field(ge=-1, le=1_000_000, allow_inf_nan=False),
    Kind("an amount in USD; 0: unlimited, -1: as in `quota`"),
]
Zone = Annotated[str, AfterValidator(_zone), Kind("the name of a time zone")]
Months = Annotated[int, Strict(), Field(ge=0, le=1200), Kind("a whole number of months; 0: all")]
Megabytes = Annotated[int, Strict(), Field(ge=1, le=1_000_000), Kind("a whole number of megabytes, at least 1")]
Secret = Annotated[SecretStr, Kind("text (secret)")]
FilePath = Annotated[str, Kind("the path of a file")]

Host = Annotated[str, AfterValidator(_host), Kind("an address or a host name")]
PublicUrl = Annotated[str, AfterValidator(_public_url), Kind("a URL, http or https")]
Origin = Annotated[str, AfterValidator(_allowed_origin), Kind("an origin")]
WebSocketUrl = Annotated[str, AfterValidator(_web_socket_url), Kind("a URL, ws or wss")]
SecureUrl = Annotated[str, AfterValidator(_secure_url), Kind("a URL, https")]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network), Kind("a network (CIDR)")]
HeaderName = Annotated[str, AfterValidator(_header_name), Kind("a header name")]
AdminUser = Annotated[str, AfterValidator(_admin_user), Kind("text")]
Name = Annotated[str, AfterValidator(_slug), Kind("lower-case letters, digits and hyphens")]
GatewayVersion = Annotated[str, AfterValidator(_gateway_version), Kind("a version of a gateway")]
Algorithm = Annotated[str, AfterValidator(_algorithm), Kind("an asymmetric JWS algorithm")]
Claim = Annotated[str, AfterValidator(_claim), Kind("a claim")]
Folder = Annotated[str, AfterValidator(_folder), Kind("an absolute path")]
OptionalFolder = Annotated[
    str, AfterValidator(lambda value: _folder(value) if value else value), Kind("an absolute path, or empty")
]
Word = Annotated[str, AfterValidator(_word), Kind("a name")]
Day = Annotated[str, BeforeValidator(_day), Kind("a day, or empty")]
DatabaseUrl = Annotated[SecretStr, _store_url("postgresql", "postgres"), Kind("a URL, postgresql (secret)")]
RedisUrl = Annotated[SecretStr, _store_url("redis", "rediss", "unix"), Kind("a URL, redis, rediss or unix (secret)")]
Seal = Annotated[SecretStr, AfterValidator(_seal), Kind("text of at least 32 bytes (secret)")]
