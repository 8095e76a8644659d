"""Ten thousand deadlines at once: submissions and sign-ins do not wait for the mails about these deadlines."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from devstack.embedded import ServerAddresses
from harness.stage import unbound
from lockbox.notifications import mailed_codes
from lockbox.requests.lifecycle import Action
from lockbox.schedule import CLOCK, IndexEntry
from tests.whole.conftest import RunningStack, stage_of, wait_until

COUNT = 10_000
PATIENCE = 240.0
COPY = text("""
INSERT INTO requests SELECT c.* FROM requests r CROSS JOIN generate_series(1, :count) AS n
CROSS JOIN LATERAL jsonb_populate_record(NULL::requests, to_jsonb(r) || jsonb_build_object('id', uuidv7(),
    'case_ref', 'CASE-' || n, 'created_at', now() - interval '1 hour', 'deadline_at', now(), 'wake_at', now())) AS c
WHERE r.id = :pattern RETURNING id
""")
WAITS = "SELECT count(*) AS number FROM outbox WHERE template = 'expired'"
ENDED = "SELECT count(*) AS number FROM requests WHERE state = 'expired'"
SENT = """
SELECT count(*) AS number FROM notifications
WHERE outcome = 'sent' AND (template = 'sign_in_code' OR (template = 'pending' AND request_id = :id))
"""


def test_a_submission_and_a_sign_in_overtake_ten_thousand_queued_expiries(
    template: ServerAddresses, tmp_path: Path
) -> None:
    with stage_of(template, tmp_path, names=("api", "worker", "notifications")) as stage:
        world = stage.world(approval_window=600)
        pattern = world.act("ann", Action.APPROVE, world.submit().id)
        wait_until(lambda: not stage.open_notifications(world), "the first mails are sent")
        _end_at_once(stage, pattern.id)
        wait_until(lambda: stage.rows(ENDED)[0].number == COUNT, "all have ended", PATIENCE)

        with stage.as_(world, "erin") as erin:
            asked = erin.post("/v1/requests", json=world.body()).json()["id"]
        with stage.db.transaction() as session:
            mailed_codes.send_code(session, _address(stage, world.people["tara"].person_id))

        wait_until(lambda: stage.rows(SENT, id=asked)[0].number == 4, "three prompts and a code are sent", PATIENCE)
        # However fast the machine is: nearly all that came before them still waits.
        assert stage.rows(WAITS)[0].number > COUNT / 2


def _end_at_once(stage: RunningStack, pattern: object) -> None:
    """Let very many windows like the given one end now."""
    with unbound(stage.db).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        ids = connection.execute(COPY, {"count": COUNT, "pattern": pattern}).scalars().all()
    stage.db.schedule.arm(CLOCK, [IndexEntry(str(one), "expire", timedelta(0)) for one in ids])


def _address(stage: RunningStack, person_id: Any) -> str:
    return str(stage.rows("SELECT email FROM people WHERE id = :id", id=str(person_id))[0].email)
