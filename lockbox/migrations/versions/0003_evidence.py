"""Complete the evidence and the enforcement: see the headings of its SQL. The schema is only extended."""

from contextlib import closing
from pathlib import Path

from alembic import op

revision = "0003_evidence"
down_revision = "0002_regulated_customers"

SCRIPT = Path(__file__).with_suffix(".sql")


def upgrade() -> None:
    with closing(op.get_bind().connection.cursor()) as cursor:
        cursor.execute(SCRIPT.read_text(encoding="utf-8"))
