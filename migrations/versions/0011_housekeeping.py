"""A run knows the directory that it was imported from and what it keeps of its checkpoints; a checkpoint can be pinned

Revision ID: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # None of this makes SQLite write a table anew, so no table forgets which numbers it has given.
    with op.batch_alter_table("run") as batch:
        batch.add_column(sa.Column("imported_from", sa.String(), nullable=True))
        batch.add_column(sa.Column("retention", sa.JSON(), nullable=True))
        batch.create_index(batch.f("ix_run_imported_from"), ["imported_from"], unique=True)
    with op.batch_alter_table("checkpoint") as batch:
        batch.add_column(sa.Column("pinned", sa.Boolean(), nullable=False, server_default="0"))
