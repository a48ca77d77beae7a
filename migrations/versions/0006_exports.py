"""Exports of checkpoints, which are jobs

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "export",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("stage_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("checkpoint_id", sa.Integer(), nullable=True),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("directory", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"], name=op.f("fk_export_checkpoint_id_checkpoint"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_export_run_id_run"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["stage_id"], ["stage.id"], name=op.f("fk_export_stage_id_stage"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_export")),
        sa.UniqueConstraint("stage_id", "step", "sha256", name=op.f("uq_export_stage_id_step_sha256")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("export") as batch:
        batch.create_index(batch.f("ix_export_checkpoint_id"), ["checkpoint_id"])
        batch.create_index(batch.f("ix_export_run_id"), ["run_id"])
    # SQLite adds no named key to a table that is there, so the table is written anew, and must not forget which numbers it has given.
    given = _last_number() if op.get_context().dialect.name == "sqlite" else None
    with op.batch_alter_table("job", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("export_id", sa.Integer(), nullable=True))
        batch.create_foreign_key(batch.f("fk_job_export_id_export"), "export", ["export_id"], ["id"], ondelete="CASCADE")
        batch.create_index(batch.f("ix_job_export_id"), ["export_id"])
    if given is not None:
        op.execute("DELETE FROM sqlite_sequence WHERE name = 'job'")
        op.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES ('job', :given)").bindparams(given=given))


def _last_number() -> int | None:
    """Of a job, whether it is there or not; None while there was none."""
    return op.get_bind().execute(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'job'")).scalar()
