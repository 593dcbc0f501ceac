"""One tree of settings, from a TOML file and `SIDECAR_*` variables; everything wrong with it is said at once.

    load(config, environ) ─► read TOML ─► lay SIDECAR_* over it ─► read secret files ─► tree ─► cross checks
                                 every step adds to one list of problems; ConfigurationError carries them all

`tree` holds the names, types, defaults and sentences; `values` the types that check one value; `checks` what
can only be judged with several settings side by side. `reference` is generated from the tree.
"""

from sidecar.settings.checks import warnings
from sidecar.settings.load import load
from sidecar.settings.reference import reference
from sidecar.settings.tree import (
    Environments,
    Gateway,
    Identity,
    Issuer,
    Quota,
    Server,
    Settings,
    Storage,
    Telemetry,
)

__all__ = [
    "Environments",
    "Gateway",
    "Identity",
    "Issuer",
    "Quota",
    "Server",
    "Settings",
    "Storage",
    "Telemetry",
    "load",
    "reference",
    "warnings",
]
