"""Which table a gateway of some version gets, and whether it was checked against that version.

covered     a table's range holds the version: everything that the table opens
nearest     none does, but an older table exists: people come in and read, nothing starts a run or acts as admin
none        older than every table, or no version at all: nobody is served
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sidecar.policy.table import Table, month_of


@dataclass(frozen=True, slots=True)
class Choice:
    """The table for one gateway."""

    table: Table
    covered: bool
    """Whether the table was made for this version."""

    trusted: bool = False
    """Whether the operator vouches for this very version although it was not."""

    @property
    def runs(self) -> bool:
        """May users start runs, and have things done for them as admin?"""
        return self.covered or self.trusted


def choose(tables: Sequence[Table], version: str, trusted: Collection[str] = ()) -> Choice | None:
    """The table for a gateway that calls itself `version`; `trusted` are the exact versions that the operator named.

    Without one of its own a version gets the latest table from before it: gateways take old methods away slowly, and what is new
    in them has no row. A table from after it would open what the gateway understands in another way.
    """
    month = month_of(version)
    if month is None:
        return None
    for table in tables:
        if table.covers(version):
            return Choice(table, covered=True)
    below = [table for table in tables if table.until <= month]
    if not below:
        return None
    return Choice(max(below, key=lambda table: table.until), covered=False, trusted=version in trusted)


def span(table: Table) -> str:
    """The table's range for people: `2026.8 up to, not including, 2026.10`."""
    (year, month), (until_year, until_month) = table.since, table.until
    return f"{year}.{month} up to, not including, {until_year}.{until_month}"
