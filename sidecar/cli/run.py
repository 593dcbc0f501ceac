"""`sidecar run`: settings, logs and an event loop around the app."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping

from sidecar import settings
from sidecar.telemetry.facts import ConfigurationDoubtful
from sidecar.telemetry.logs import FactLog, LogOptions, installed


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serve until the app has ended; it takes SIGTERM and SIGINT itself.

    Raises ConfigurationError and EngineError.
    """
    loaded = settings.load(arguments.config, environ)
    log = FactLog()
    with installed(log_options(loaded)):
        for warning in settings.warnings(loaded):
            log(ConfigurationDoubtful(warning.setting, warning.what, warning.mend))
        # Here, so that `config check` need not wait for the whole app to be imported.
        import uvloop  # noqa: PLC0415 - see above

        from sidecar import app  # noqa: PLC0415 - see above

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(app.run(loaded))
    return 0


def log_options(loaded: settings.Settings) -> LogOptions:
    """With every secret of the settings, so that none is ever in a line."""
    secrets = [loaded.storage.secret, loaded.storage.database_url, loaded.storage.redis_url]
    for gateway in loaded.gateways:
        secrets += [gateway.password, gateway.token]
    return LogOptions(
        loaded.telemetry.log_level,
        loaded.telemetry.log_format,
        tuple(secret.get_secret_value() for secret in secrets if secret.get_secret_value()),
    )
