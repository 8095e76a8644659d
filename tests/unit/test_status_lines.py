"""The figures in words, as the operators' page and the terminal both show them."""

from collections.abc import Mapping

from lockbox.monitoring.metrics import MetricName, MetricSnapshot
from lockbox.monitoring.status import Status, StatusLine, lines
from lockbox.redis_scripts import QueueDepth

HELD = QueueDepth(notifications=0, clocks_in_span=1, unacked=4, oldest_unacked_at=None, now=0.0)


def shown(
    postgres: Mapping[tuple[str, str], float] | None, redis: QueueDepth | None, *, said: str = "ok"
) -> Mapping[str, StatusLine]:
    found = Status("ok", said, "0001", "0001", MetricSnapshot(postgres, redis))
    return {line.name: line for line in lines(found)}


def test_status_reports_late_work_as_wrong_and_timely_work_as_fine() -> None:
    found = shown(
        {(MetricName.OVERDUE, ""): 2, (MetricName.SEAL_LAG, ""): 61.0, (MetricName.OLDEST_UNSENT, "mail"): 300.0},
        HELD,
    )

    assert found["Overdue steps"] == StatusLine("Overdue steps", "2", is_well=False)
    assert found["Seal lag"] == StatusLine("Seal lag", "1 min", is_well=False)
    assert found["Oldest mail to send"] == StatusLine("Oldest mail to send", "5 min", is_well=True)


def test_status_reports_undelivered_mails_as_wrong_and_only_counts_undelivered_webhook_calls() -> None:
    dead: dict[tuple[str, str], float] = {(MetricName.DEAD_LATELY, channel): 3.0 for channel in ("mail", "webhook")}

    found = shown(dead, HELD)

    assert found["Mails not delivered within a day"].is_well is False
    assert found["Webhook calls not delivered within a day"].value == "3"
    assert found["Webhook calls not delivered within a day"].is_well is None


def test_status_reports_a_schedule_lacking_an_entry_as_wrong() -> None:
    lacking = shown({(MetricName.SOON, "count"): 3.0}, HELD)
    whole = shown({(MetricName.SOON, "count"): 1.0}, HELD)

    assert lacking["Missing in the schedule"] == StatusLine("Missing in the schedule", "2", is_well=False)
    assert whole["Missing in the schedule"] == StatusLine("Missing in the schedule", "0", is_well=True)


def test_status_reports_an_unreachable_redis_as_wrong_and_an_unchecked_redis_as_unknown() -> None:
    away, not_asked = shown({}, None, said="away: x"), shown({}, None, said="not asked")

    for name in ("Unacknowledged messages", "Missing in the schedule"):
        assert away[name] == StatusLine(name, "Redis is away", is_well=False)
        assert not_asked[name] == StatusLine(name, "not known", is_well=None)


def test_status_reports_database_figures_as_unknown_without_postgres() -> None:
    found = shown(None, HELD)

    for name in ("Windows open", "Scheduled steps", "Mails to send", "Webhooks failing", "Newest checkpoint"):
        assert found[name].value == "not known"


def test_status_counts_unsent_outbox_rows() -> None:
    waiting: dict[tuple[str, str], float] = {
        (MetricName.UNSENT, "outbox"): 12.0,
        (MetricName.OLDEST_UNSENT, "outbox"): 301.0,
    }

    found, none = shown(waiting, HELD), shown({}, HELD)

    assert found["Events to notify"] == StatusLine("Events to notify", "12")
    assert found["Oldest event to notify"] == StatusLine("Oldest event to notify", "5 min", is_well=False)
    assert none["Events to notify"] == StatusLine("Events to notify", "0")
    assert none["Oldest event to notify"] == StatusLine("Oldest event to notify", "0 s", is_well=True)


def test_status_reports_a_missing_connector_worker_only_if_one_is_needed() -> None:
    needed: dict[tuple[str, str], float] = {(MetricName.NEEDS_CONNECTORS, ""): 1.0}
    living = needed | {(MetricName.PROCESSES, "connectors"): 1.0, (MetricName.HEARTBEAT, "connectors"): 3.0}

    assert "Connector workers alive" not in shown({(MetricName.NEEDS_CONNECTORS, ""): 0.0}, HELD)
    assert shown(needed, HELD)["Connector workers alive"].is_well is False
    assert shown(living, HELD)["Connector workers alive"].is_well is True
    troubles = [Status("ok", "ok", "1", "1", MetricSnapshot(found, HELD)).troubles for found in (needed, living, {})]
    assert [any(one.startswith("connectors: ") for one in said) for said in troubles] == [True, False, False]
