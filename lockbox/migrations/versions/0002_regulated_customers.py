"""Add what regulated customers require for requests: see the headings of its SQL. Nothing is removed."""

from contextlib import closing
from pathlib import Path

from alembic import op

revision = "0002_regulated_customers"
down_revision = "0001_217b288efd35"

SCRIPT = Path(__file__).with_suffix(".sql")


def upgrade() -> None:
    with closing(op.get_bind().connection.cursor()) as cursor:
        cursor.execute(SCRIPT.read_text(encoding="utf-8"))
