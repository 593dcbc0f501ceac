"""`sidecar doctor`: what is safe, what is not, and the lines that mend it.

Exit codes: 0 nothing above a note, 1 warnings, 2 dangers, things that could not be checked, or a wrong configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import __version__, settings
from sidecar.cli.plain import plain

if TYPE_CHECKING:
    from sidecar.doctor.attack.run import AttackReport
    from sidecar.doctor.checkup import Checkup, Patient
    from sidecar.doctor.reading import Expected

NOT_CHECKED = 2


def doctor(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Look, tell, and return the exit code. Raises ConfigurationError."""
    if (arguments.control or arguments.model_address) and not arguments.attack:
        print("sidecar: --control and --model-address belong to --attack", file=sys.stderr)
        return NOT_CHECKED
    loaded = settings.load(arguments.config, environ)
    from sidecar.doctor import show  # noqa: PLC0415 - so that other commands need not wait for it to be imported
    from sidecar.doctor.attack.told import as_json  # noqa: PLC0415 - the same
    from sidecar.doctor.findings import exit_code  # noqa: PLC0415 - the same

    patient = patient_of(loaded, arguments.gateway)
    if not patient.gateways:
        print(f"sidecar: no gateway is called {plain(arguments.gateway)}; look at `gateways[].id`", file=sys.stderr)
        return NOT_CHECKED
    clean = cleaner(loaded)
    seen, reports = asyncio.run(_look(patient, arguments, local_root(loaded), clean))
    if arguments.json:
        more = {"attacks": [as_json(report) for report in reports]} if arguments.attack else {}
        print(show.document(seen.findings, seen.levels, __version__, clean, **more))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for line in show.lines(seen.findings, seen.levels, colour=colour, clean=clean):
            print(line)
    return exit_code(seen.findings)


async def _look(
    patient: Patient, arguments: argparse.Namespace, root: Path | None, clean: Callable[[str], str]
) -> tuple[Checkup, list[AttackReport]]:
    from sidecar.doctor.attack.run import AttackOptions  # noqa: PLC0415 - see above
    from sidecar.doctor.checkup import attacked, checkup  # noqa: PLC0415 - see above

    seen = await checkup(patient)
    if not arguments.attack:
        return seen, []
    host, port = arguments.model_address or ("127.0.0.1", 0)
    options = [
        AttackOptions(gateway, expected, root, control=arguments.control, model_host=host, model_port=port)
        for gateway, expected in patient.gateways
    ]
    return await attacked(seen, options, lambda text: print(f"sidecar: {clean(text)}", file=sys.stderr, flush=True))


def local_root(loaded: settings.Settings) -> Path | None:
    """`environments.root` as this process sees it; None where it cannot be reached."""
    wanted = loaded.environments
    root = Path(wanted.local_root or wanted.root)
    return root if root.is_dir() and os.access(root, os.W_OK) else None


def patient_of(loaded: settings.Settings, gateway: str | None) -> Patient:
    """What the settings say is to be looked at; all gateways, or one of them."""
    from sidecar import app, options  # noqa: PLC0415 - see above
    from sidecar.doctor.checkup import Patient  # noqa: PLC0415 - see above

    storage = loaded.storage
    return Patient(
        gateways=[
            (how, expected_of(loaded, row))
            for row, how in zip(loaded.gateways, options.gateway_options(loaded), strict=True)
            if gateway in {None, row.id}
        ],
        tables=app.shipped_tables(),
        issuers=options.issuer_options(loaded),
        problems=settings.warnings(loaded),
        data_dir=storage.data_dir,
        database_url=storage.database_url.get_secret_value(),
        redis_url=storage.redis_url.get_secret_value(),
        seal_given=bool(storage.secret.get_secret_value()),
    )


def expected_of(loaded: settings.Settings, row: settings.Gateway) -> Expected:
    from sidecar.doctor.reading import Expected  # noqa: PLC0415 - see above

    shared = row.namespace == "shared-agent"
    return Expected(
        id=row.id,
        auth=row.auth,
        local=False,
        user_header=row.user_header,
        admin_user=row.admin_user,
        origins=(loaded.server.public_url, *loaded.server.allowed_origins),
        root=loaded.environments.root,
        tools_allow=row.shared_tools_allow if shared else loaded.environments.tools_allow,
        model_allow=loaded.environments.model_allow,
        shared_agent=row.shared_agent if shared else "",
        own_workspaces=row.accepts_workspace,
        allow_open=row.allow_open_gateway,
        concurrent_runs=loaded.quota.concurrent_runs,
    )


def cleaner(loaded: settings.Settings) -> Callable[[str], str]:
    """Takes out what is a secret or looks like one, and what could talk to a terminal; line by line."""
    from sidecar.cli.run import log_options  # noqa: PLC0415 - see above
    from sidecar.telemetry.logs import Redaction  # noqa: PLC0415 - see above

    redaction = Redaction(log_options(loaded).secrets)
    return lambda text: "\n".join(str(redaction.clean(line, "agent_id")) for line in text.splitlines())


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError("write host:port, as 10.0.0.5:9000")
    return host.strip("[]"), int(port)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add `doctor`; its parser, for the options that all commands share."""
    command = commands.add_parser(
        "doctor",
        allow_abbrev=False,
        help="say what is safe, what is not, and which lines mend it",
        description="Look at gateways, issuers, engines and settings, beside a running sidecar or without one, and change "
        "nothing. Exit with 0 if there is nothing above a note, 1 with warnings, 2 with dangers or what could not be checked.",
    )
    command.add_argument("--gateway", metavar="ID", help="this one of `gateways[].id` only")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument(
        "--attack",
        action="store_true",
        help="also let a throw-away agent try to reach another one's things with every tool of the gateway, then remove both; "
        "asks no model, costs no tokens, and writes the gateway's configuration",
    )
    command.add_argument(
        "--control",
        action="store_true",
        help="with --attack: show that the attacks win from an agent that nobody closed; there is such an agent for that moment",
    )
    command.add_argument(
        "--model-address",
        type=_address,
        metavar="HOST:PORT",
        help="with --attack: an address of this host at which the gateway reaches the doctor (127.0.0.1, any free port)",
    )
    command.set_defaults(command=doctor)
    return command
