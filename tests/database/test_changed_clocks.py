"""When daylight saving changes the clocks, reminders, the next tier and the deadline follow the elapsed time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from harness.clocks import StoppedClock
from harness.people import World
from lockbox.database import Database
from lockbox.requests import timers
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import read, state_of, write
from tests.database.test_reminders import reminders, row_of, told
from tests.policy_setup import group, lay_down, put_into_tiers

pytestmark = pytest.mark.usefixtures("alone")

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
WINDOW = 4 * 3600
MISSING, TWICE = datetime(2027, 3, 28, 0, 30, tzinfo=BERLIN), datetime(2027, 10, 31, 0, 30, tzinfo=BERLIN)
BOTH = pytest.mark.parametrize(
    ("here", "ends"),
    [(MISSING, "05:30 CEST"), (TWICE, "03:30 CET")],
    ids=["an hour missing", "an hour twice"],
)


@dataclass(frozen=True)
class WaitingStage:
    """A state in which a request waits: the policy, who is asked first and next, and the templates of the mails."""

    policy: dict[str, Any]
    asked: tuple[str, str]
    prompt: str
    reminder: str


REVIEW = WaitingStage(
    {"vendor_review": True, "review_window": WINDOW, "review_reminders": [25, 75], "review_escalation": [50]},
    ("max", "mia"),
    "reviewing",
    "review_reminder",
)
APPROVAL = WaitingStage(
    {
        "approval_window": WINDOW,
        "approval_reminders": [25, 75],
        "tiers": [["first"], ["second"]],
        "escalation": [50],
    },
    ("abe", "ann"),
    "pending",
    "answer_reminder",
)


@pytest.fixture
def night(superuser: Engine, api: Database, worker: Database) -> StoppedClock:
    """One clock of API and worker, and a database whose default time zone is that of Berlin."""
    (row,) = read(superuser, "SELECT current_database() AS name")
    write(superuser, f"ALTER DATABASE {row.name} SET timezone = 'Europe/Berlin'")
    api.clock = worker.clock = StoppedClock(datetime.now(UTC))
    return api.clock


def reached(worker: Database, night: StoppedClock, request_id: Any, at: datetime) -> list[str]:
    """Run the timer a second too early, when it does nothing, then on time; return all reminders so far."""
    before = reminders(worker, request_id)
    night.at = (at - timedelta(seconds=1)).astimezone(BERLIN)
    assert timers.run(worker, [request_id]).total() == 0
    assert reminders(worker, request_id) == before
    night.at = at.astimezone(BERLIN)
    assert timers.run(worker, [request_id]).total() == 1
    return reminders(worker, request_id)


@pytest.mark.far
@BOTH
@pytest.mark.parametrize("stage", [REVIEW, APPROVAL], ids=["review", "approval"])
def test_reminders_and_escalation_and_the_deadline_stay_on_time_when_clocks_change(
    night: StoppedClock,
    api: Database,
    worker: Database,
    superuser: Engine,
    *,
    here: datetime,
    ends: str,
    stage: WaitingStage,
) -> None:
    world, post = World.make(api), Postbag()
    write(superuser, "UPDATE people SET time_zone = 'Europe/Berlin'")
    put_into_tiers(world, mia=2)
    lay_down(world, groups={"first": group(world, "abe"), "second": group(world, "ann")}, **stage.policy)
    first, second = stage.asked
    night.at, there = here, here.astimezone(UTC)
    request = world.submit()

    done = [reached(worker, night, request.id, there + hours * HOUR) for hours in (1, 2, 3)]
    post.deliver(worker, open_notifications(worker))
    row = row_of(worker, request.id)
    last = reached(worker, night, request.id, there + 4 * HOUR)

    assert done == [["remind"], ["remind", "escalate"], ["remind", "escalate", "remind"]]
    assert last == done[-1]
    assert (row.created_at, row.wake_at, row.deadline_at) == (there, there + 4 * HOUR, there + 4 * HOUR)
    assert told(world, request.id, stage.prompt) == {first: 1, second: 1}
    assert told(world, request.id, stage.reminder) == {first: 2, second: 1}
    assert state_of(worker, request.id) == "timed_out"
    reminders = [mail for mail in post.mail.sent if mail.to_address == address(worker, world, second)]
    assert [mail.subject.partition(",")[0] for mail in reminders][1:] == ["Reminder"]
    assert "1 h left" in reminders[-1].text
    assert ends in reminders[-1].text


@pytest.mark.usefixtures("night")
def test_the_postgres_servers_time_zone_has_no_effect_because_sessions_use_utc(
    api: Database, superuser: Engine
) -> None:
    assert read(superuser, "SHOW timezone")[0][0] == "Europe/Berlin"
    with api.transaction() as session:
        assert session.connection().exec_driver_sql("SHOW timezone").scalar_one() == "UTC"
