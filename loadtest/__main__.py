"""`make loadtest`: the whole comparison, about six minutes; `--quick` shows in twenty seconds that it works.

Exit codes: 0 done, 1 it could not run, lost an event, or the floor does not hold, 2 the command line is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtest import report
from loadtest.clock import allow_many_files
from loadtest.measure import QUICK, Plan, measure
from loadtest.targets import NGINX, PARSED, house
from loadtest.wire import BenchError
from tests.stack.process import StackError

OPTIONAL = {"nginx": NGINX, "orjson": PARSED}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a little of everything; the figures mean nothing")
    parser.add_argument(
        "--rounds", type=int, default=Plan().rounds, help="how often each is measured (default: %(default)s)"
    )
    parser.add_argument(
        "--without", action="append", default=[], choices=OPTIONAL, help="leave this one out; repeatable"
    )
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the JSON files")
    parsed = parser.parse_args(argv)
    if parsed.rounds < 1:
        parser.error("--rounds is at least 1")
    return parsed


async def run(options: argparse.Namespace) -> int:
    plan = QUICK if options.quick else Plan(rounds=options.rounds)
    allow_many_files()
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        async with house(Path(folder), [OPTIONAL[name] for name in options.without]) as running:
            rows = await measure(running, plan, lambda line: print(line, file=sys.stderr, flush=True))
    print(report.table(rows))
    print(f"every measurement: {report.write(rows, options.results)}")
    if options.quick:
        return 0
    held = report.floor_holds(rows)
    print(f"floor ({', '.join(report.FLOOR)}; no more CPU than aiohttp coalesced): {'holds' if held else 'BROKEN'}")
    return 0 if held else 1


def main() -> int:
    try:
        return asyncio.run(run(arguments()))
    except (BenchError, StackError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
