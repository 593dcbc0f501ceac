"""`sidecar …` in processes of its own, beside engines that run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.schema import migrate
from tests.settings.documents import good, to_toml
from tests.storage.engines import Reports


@dataclass(frozen=True, slots=True)
class Beside:
    """A data folder in which PostgreSQL runs, and a configuration that names it."""

    engines: EmbeddedEngines
    reports: Reports
    database: Database
    config: Path
    data_dir: Path


@pytest_asyncio.fixture(scope="module")
async def beside(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Beside]:
    """An empty audit log at first; one a module."""
    folder, reports = tmp_path_factory.mktemp("beside"), Reports()
    data_dir = folder / "data"
    config = folder / "sidecar.toml"
    config.write_text(to_toml(good(storage={"data_dir": str(data_dir)})))
    async with EmbeddedEngines(data_dir, reports, redis=False) as engines:
        await migrate(engines.database_url)
        async with Database(DatabaseOptions(engines.database_url)) as database:
            yield Beside(engines, reports, database, config, data_dir)
