"""Asks and feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    time = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
    op.create_table(
        "asks",
        sa.Column("id", number, sa.Identity(), primary_key=True),
        sa.Column("ref", sa.Text, nullable=False, unique=True),
        sa.Column("at", time, nullable=False),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("visitor", sa.Text),
        sa.Column("text", sa.Text),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("entry", sa.Text),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.Column("confirmation", sa.Text, nullable=False),
        sa.Column("total_ms", sa.Double, nullable=False),
        sa.Column("index_version", sa.Text, nullable=False),
    )
    op.create_index("ix_asks_at", "asks", ["at"])
    op.create_index("ix_asks_visitor", "asks", ["visitor"])
    op.create_table(
        "feedback",
        sa.Column("id", number, sa.Identity(), primary_key=True),
        sa.Column("ref", sa.Text, nullable=False, unique=True),
        sa.Column("at", time, nullable=False),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("visitor", sa.Text),
        sa.Column("helpful", sa.Boolean, nullable=False),
        sa.Column("comment", sa.Text),
    )
    op.create_index("ix_feedback_at", "feedback", ["at"])
    op.create_index("ix_feedback_visitor", "feedback", ["visitor"])
