"""Jobs can be moved in the queue and queues paused; workers tell what their GPUs hold and how far they are behind

Revision ID: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "switch",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_switch")),
    )
    with op.batch_alter_table("job") as batch:
        batch.add_column(sa.Column("rank", sa.Float(), nullable=False, server_default="0"))
        batch.drop_index(batch.f("ix_job_status_devices_priority_id"))
        batch.create_index(batch.f("ix_job_status_devices_priority_rank"), ["status", "devices", "priority", "rank"])
    op.execute(sa.text("UPDATE job SET rank = id"))
    with op.batch_alter_table("worker") as batch:
        batch.add_column(sa.Column("gpus", sa.JSON(), nullable=False, server_default="[]"))
        batch.add_column(sa.Column("gpus_at", sa.DateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("held_back", sa.String(), nullable=True))
        batch.add_column(sa.Column("points", sa.BigInteger(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("unread", sa.BigInteger(), nullable=False, server_default="0"))
