"""A run's stages are found in their order without sorting them: lists of ten thousand runs ask for the furthest of each

Revision ID: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("stage") as batch:
        batch.create_index(batch.f("ix_stage_run_id_position"), ["run_id", "position"])
        batch.drop_index(batch.f("ix_stage_run_id"))
