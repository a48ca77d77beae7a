"""A checkpoint's val_loss in a column of its own, so that ten thousand runs can be sorted by it

Revision ID: 0003
"""

import math

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("checkpoint") as batch:
        batch.add_column(sa.Column("val_loss", sa.Float(), nullable=True))
        batch.create_index(batch.f("ix_checkpoint_val_loss"), ["val_loss"])
        batch.create_index(batch.f("ix_checkpoint_stage_id_val_loss"), ["stage_id", "val_loss"])
    checkpoint = sa.table("checkpoint", sa.column("id", sa.Integer), sa.column("metrics", sa.JSON), sa.column("val_loss", sa.Float))
    losses = [(id_, metrics.get("val_loss")) for id_, metrics in op.get_bind().execute(sa.select(checkpoint.c.id, checkpoint.c.metrics))]
    known = [{"key": id_, "loss": loss} for id_, loss in losses if isinstance(loss, int | float) and math.isfinite(loss)]
    if known:
        op.get_bind().execute(sa.update(checkpoint).where(checkpoint.c.id == sa.bindparam("key")).values(val_loss=sa.bindparam("loss")), known)
