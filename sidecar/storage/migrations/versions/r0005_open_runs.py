"""Runs that have begun, so that one whose gateway died, or whose end nobody heard, is on the bill too."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    create table usage_open_runs (
        gateway_id text not null check (gateway_id <> ''),
        run_id text not null check (run_id <> ''),
        slug text not null check (slug <> ''),
        session_key text not null,
        began_at timestamptz not null,
        primary key (gateway_id, run_id)
    )
    """,
    """
    comment on table usage_open_runs is
        'Runs that began and whose end was not heard yet: where a gateway dies, what it was doing is estimated.'
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("drop table usage_open_runs")
