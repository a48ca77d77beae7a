"""Sign-in links, browser sessions, how many lines a piece of a log holds, how many steps an epoch has

Revision ID: 0002
"""

import zlib

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sign_in_link",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_link")),
        sa.UniqueConstraint("hash", name=op.f("uq_sign_in_link_hash")),
    )
    op.create_table(
        "browser_session",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["token.id"], name=op.f("fk_browser_session_token_id_token"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_browser_session")),
        sa.UniqueConstraint("hash", name=op.f("uq_browser_session_hash")),
    )
    with op.batch_alter_table("browser_session") as batch:
        batch.create_index(batch.f("ix_browser_session_token_id"), ["token_id"])
    with op.batch_alter_table("log_chunk") as batch:
        batch.add_column(sa.Column("lines", sa.Integer(), nullable=False, server_default="0"))
    _count_lines()
    with op.batch_alter_table("attempt") as batch:
        batch.add_column(sa.Column("steps_per_epoch", sa.Float(), nullable=True))


def _count_lines() -> None:
    """Line ends of each attempt's output up to the end of each piece."""
    chunk = sa.table("log_chunk", *(sa.column(name) for name in ("job_id", "attempt", "offset", "lines")), sa.column("data", sa.LargeBinary))
    connection = op.get_bind()
    lines = {}
    for row in connection.execute(sa.select(chunk).order_by(chunk.c.job_id, chunk.c.attempt, chunk.c.offset)).all():
        attempt = (row.job_id, row.attempt)
        lines[attempt] = lines.get(attempt, 0) + zlib.decompress(row.data).count(b"\n")
        mine = (chunk.c.job_id == row.job_id, chunk.c.attempt == row.attempt, chunk.c.offset == row.offset)
        connection.execute(sa.update(chunk).where(*mine).values(lines=lines[attempt]))
