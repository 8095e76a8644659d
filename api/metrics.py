"""Expose metrics in Prometheus' text format. They contain no names of people."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from lockbox.monitoring.metrics import GateAnswers, MetricName, MetricSnapshot
from lockbox.notifications.models import Channel
from lockbox.sql import LAG_BUCKETS


@dataclass(frozen=True)
class ShownFigure:
    """`name` has no prefix `lockbox_`."""

    figure: MetricName
    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: type[GaugeMetricFamily | CounterMetricFamily] = GaugeMetricFamily


STANDBY = (
    "Whether a standby follows Postgres to which commits do not wait: a failover may lose what was acknowledged."
)
PROMISED = "How many connections to Postgres the living processes of this role open at most."
OLDEST = "oldest_unsent_notification_age_seconds"
ROLLED_BACK = "Logs that are not what was shipped of them: their checks are refused."
UNVERIFIED = "Rows that would give power and carry no mark of our keys."
SKEW = "The clock furthest from Postgres' in this role; ahead is positive."
DROPPED = "Items in Redis that were no messages of ours, by where they stood."
ATTEMPTS = "How tries to send a notification ended."
GATE_ANSWERS = "Answers of the gate; those without a gateway had no valid token of one."
USES_LOST = "Uses of windows that were not counted, because Postgres was away for too long."
CASE_CHECKS = "Questions to ticket systems whether a case is open and assigned, within a day, by what came of them."
OUTSIDE = "Declarations of access that was taken around Lockbox."
REPORTS = "For how many tenants the gate of a service only reports, where the catalogue says so."
FINDINGS = "Windows that were opened by break-glass and await the customer's finding: in time, or overdue."
OFFBOARDINGS = "Customers that asked to be off-boarded, or whose off-boarding has begun."
UNWRITTEN = "Answers that the gate of this process has counted and not written to Postgres yet."
NEEDED = "Whether a connector worker has to run: the catalogue has connectors, or access at a target is not closed."
DRIFT = "By how much an index in Redis differs from Postgres; it heals within seconds."
CHANNEL, ROLE = ("channel",), ("role",)
COUNTER = CounterMetricFamily
FIGURES = (
    ShownFigure(
        MetricName.OVERDUE, "deadlines_overdue", "Requests whose clock should have run more than a second ago."
    ),
    ShownFigure(MetricName.ACCESS_OPEN, "access_open", "Windows that are open now."),
    ShownFigure(
        MetricName.WEBHOOKS_FAILING, "webhooks_failing", "Webhooks whose last call failed, and that are not disabled."
    ),
    ShownFigure(
        MetricName.CONNECTION_STATE, "connector_connections", "Accesses at targets that are not closed.", ("state",)
    ),
    ShownFigure(MetricName.NEEDS_CONNECTORS, "connector_worker_needed", NEEDED),
    ShownFigure(MetricName.UNSEALED, "audit_unsealed", "Events that no seal covers yet."),
    ShownFigure(MetricName.SEAL_LAG, "audit_seal_lag_seconds", "Age of the oldest event that no seal covers yet."),
    ShownFigure(MetricName.LAGGING_STANDBY, "standby_asynchronous", STANDBY),
    ShownFigure(
        MetricName.CHECKPOINT_AGE, "audit_checkpoint_age_seconds", "Age of the newest checkpoint of any log."
    ),
    ShownFigure(
        MetricName.UNSENT,
        "notifications_unsent",
        "Mails and webhook calls that are still to be sent, and events without notifications yet.",
        CHANNEL,
    ),
    ShownFigure(MetricName.OLDEST_UNSENT, OLDEST, "Age of the oldest of them, 0 where there is none.", CHANNEL),
    ShownFigure(MetricName.DEAD, "deadletters", "Mails and webhook calls that were given up.", CHANNEL),
    ShownFigure(MetricName.ROLLED_BACK, "audit_logs_rolled_back", ROLLED_BACK, ROLE),
    ShownFigure(MetricName.UNVERIFIED, "powers_unverified", UNVERIFIED, ROLE),
    ShownFigure(
        MetricName.PENDING, "deadlines_pending", "Requests whose clock runs, by what it is to do.", ("kind",)
    ),
    ShownFigure(
        MetricName.HEARTBEAT, "heartbeat_age_seconds", "Since anything in this role said that it lives.", ROLE
    ),
    ShownFigure(MetricName.PROCESSES, "processes", "How many said within a minute that they live.", ROLE),
    ShownFigure(MetricName.CONNECTIONS_PROMISED, "connections_promised", PROMISED, ROLE),
    ShownFigure(
        MetricName.CONNECTIONS_ALLOWED,
        "connections_allowed",
        "Connections that Postgres gives to all logins together.",
    ),
    ShownFigure(MetricName.SKEW, "clock_skew_seconds", SKEW, ROLE),
    ShownFigure(MetricName.ATTEMPT, "notify_attempts", ATTEMPTS, ("channel", "outcome"), COUNTER),
    ShownFigure(MetricName.USES_LOST, "gate_uses_lost", USES_LOST, kind=COUNTER),
    ShownFigure(MetricName.OUTSIDE_ACCESS, "outside_access", OUTSIDE, kind=COUNTER),
    ShownFigure(MetricName.GATE_REPORTS, "gate_reporting_tenants", REPORTS, ("service",)),
    ShownFigure(MetricName.CASE_CHECKS, "case_checks", CASE_CHECKS, ("outcome",)),
    ShownFigure(MetricName.FINDINGS, "break_glass_findings", FINDINGS, ("state",)),
    ShownFigure(MetricName.LEGAL_HOLDS, "legal_holds", "Legal holds, of either side, that are not released."),
    ShownFigure(MetricName.OFFBOARDINGS, "offboardings", OFFBOARDINGS, ("state",)),
    ShownFigure(MetricName.DROPPED, "messages_dropped", DROPPED, ("where",), COUNTER),
)


def exposition(figures: MetricSnapshot, answered: Iterable[GateAnswers] | None = None, unwritten: int = 0) -> bytes:
    """Values that could not be read are left out.

    `answered` is None if the gate's answers could not be read. `unwritten` is the number of answers that this process
    has counted but not written yet.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(figures, answered, unwritten))
    return generate_latest(registry)


class _SnapshotCollector(Collector):
    def __init__(self, figures: MetricSnapshot, answered: Iterable[GateAnswers] | None, unwritten: int) -> None:
        self._figures = figures
        self._answered = answered
        self._unwritten = unwritten

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        yield _gauge("postgres_up", "Whether Postgres gave its figures.", float(figures.postgres is not None))
        yield _gauge("redis_up", "Whether Redis answers.", float(figures.redis is not None))
        if figures.postgres is not None:
            yield from (_family(one, figures.labelled(one.figure)) for one in FIGURES)
            yield _lags(figures)
        if self._answered is not None:
            yield _gate(self._answered)
        yield _gauge("gate_answers_unwritten", UNWRITTEN, self._unwritten)
        if figures.redis is not None:
            yield _gauge("redis_unacked", "Hints that were handed out and not acknowledged.", figures.redis.unacked)
            oldest = figures.oldest_unacked_age() or 0.0
            yield _gauge("redis_oldest_unacked_age_seconds", "Age of the oldest of them.", oldest)
            yield _drift(figures)


def _family(one: ShownFigure, values: Mapping[str, float]) -> Metric:
    family = one.kind(f"lockbox_{one.name}", one.help, labels=one.labels)
    zeros: dict[str, float] = dict.fromkeys(Channel, 0.0) if one.labels == CHANNEL else {}
    for label, number in sorted((zeros | dict(values)).items()):
        family.add_metric(label.split(" ") if one.labels else (), number)
    return family


def _gate(answered: Iterable[GateAnswers]) -> Metric:
    family = CounterMetricFamily(
        "lockbox_gate_answers", GATE_ANSWERS, labels=["gateway", "service", "decision", "reason"]
    )
    for one in answered:
        family.add_metric([one.gateway, one.service, one.decision, one.reason], one.number)
    return family


def _lags(figures: MetricSnapshot) -> Metric:
    counts = {float(bound): number for bound, number in figures.labelled(MetricName.DEADLINE_LAG).items()}
    buckets, so_far = [], 0.0
    for bound in LAG_BUCKETS:
        so_far += counts.get(bound, 0.0)
        buckets.append(("+Inf" if bound == float("inf") else str(bound), so_far))
    family = HistogramMetricFamily(
        "lockbox_deadline_lag_seconds", "How late the clock came to deadlines that it ended."
    )
    family.add_metric([], buckets, figures.one(MetricName.DEADLINE_LAG_TOTAL) or 0.0)
    return family


def _drift(figures: MetricSnapshot) -> Metric:
    family = GaugeMetricFamily("lockbox_index_drift", DRIFT, labels=["index", "direction"])
    for index_and_direction, number in sorted(figures.drift().items()):
        family.add_metric(index_and_direction, number)
    return family


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lockbox_{name}", said, value=value)
