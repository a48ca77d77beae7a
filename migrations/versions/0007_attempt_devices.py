"""An attempt knows on which devices its trainer runs, so that a worker with the same ones can adopt it

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("attempt") as batch:
        batch.add_column(sa.Column("devices", sa.JSON(), nullable=True))
