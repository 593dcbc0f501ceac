"""Alembic revisions, run by `sidecar.storage.schema.migrate`; no `alembic.ini` is needed."""
