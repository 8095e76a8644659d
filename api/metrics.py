"""The figures as Prometheus reads them: names, kinds and what each means, without a name of anybody."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from lockbox.monitoring.metrics import MetricSnapshot
from lockbox.notifications.models import Channel
from lockbox.sql import ATTEMPT, DEADLINE_LAG, DROPPED, LAG_BUCKETS

# Name of the gauge, name of the figure, what it says.
PLAIN = (
    ("deadlines_overdue", "overdue", "Requests whose clock should have run more than a second ago."),
    ("access_open", "access_open", "Windows that are open now."),
    ("webhooks_failing", "webhooks_failing", "Webhooks whose last call failed, and that are not disabled."),
    ("audit_unsealed", "unsealed", "Events that no seal covers yet."),
    ("audit_seal_lag_seconds", "seal_lag", "Age of the oldest event that no seal covers yet."),
    (
        "standby_asynchronous",
        "lagging_standby",
        "Whether a standby follows Postgres to which commits do not wait: a failover may lose what was acknowledged.",
    ),
    ("audit_checkpoint_age_seconds", "checkpoint_age", "Age of the newest checkpoint of any log."),
)
BY_CHANNEL = (
    ("notifications_unsent", "unsent", "Mails and webhook calls that are still to be sent."),
    ("oldest_unsent_notification_age_seconds", "oldest_unsent", "Age of the oldest of them, 0 where there is none."),
    ("deadletters", "dead", "Mails and webhook calls that were given up."),
)
LABELLED = (
    ("audit_logs_behind", "behind", "role", "Logs that are not what was shipped of them: their checks are refused."),
    ("powers_unverified", "unverified", "role", "Rows that would give power and carry no mark of our keys."),
    ("deadlines_pending", "pending", "kind", "Requests whose clock runs, by what it is to do."),
    ("heartbeat_age_seconds", "heartbeat", "role", "Since anything in this role said that it lives."),
    ("processes", "processes", "role", "How many said within a minute that they live."),
    ("clock_skew_seconds", "skew", "role", "The clock furthest from Postgres' in this role; ahead is positive."),
)


def exposition(figures: MetricSnapshot) -> bytes:
    """Return the figures in Prometheus' text form; what could not be read is left out."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(figures))
    return generate_latest(registry)


class _SnapshotCollector(Collector):
    """Figures that were read before; nothing is kept from one scrape to the next."""

    def __init__(self, figures: MetricSnapshot) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Return all of them."""
        figures = self._figures
        yield _gauge("postgres_up", "Whether Postgres gave its figures.", float(figures.postgres is not None))
        yield _gauge("redis_up", "Whether Redis answers.", float(figures.redis is not None))
        if figures.postgres is not None:
            yield from _of_postgres(figures)
        if figures.redis is not None:
            yield from _of_redis(figures)


def _of_postgres(figures: MetricSnapshot) -> Iterator[Metric]:
    for name, figure, said in PLAIN:
        value = figures.one(figure)
        if value is not None:
            yield _gauge(name, said, value)
    for name, figure, said in BY_CHANNEL:
        family = GaugeMetricFamily(f"lockbox_{name}", said, labels=["channel"])
        for channel in Channel:
            family.add_metric([channel.value], figures.one(figure, channel) or 0.0)
        yield family
    for name, figure, label, said in LABELLED:
        family = GaugeMetricFamily(f"lockbox_{name}", said, labels=[label])
        for labelled, number in sorted(figures.labelled(figure).items()):
            family.add_metric([labelled], number)
        yield family
    yield _lags(figures)
    yield _attempts(figures)
    yield _dropped(figures)


def _dropped(figures: MetricSnapshot) -> Metric:
    said = "Items in Redis that were no messages of ours, by where they stood."
    family = CounterMetricFamily("lockbox_messages_dropped", said, labels=["where"])
    for where, number in sorted(figures.labelled(DROPPED).items()):
        family.add_metric([where], number)
    return family


def _lags(figures: MetricSnapshot) -> Metric:
    counts = {float(bound): number for bound, number in figures.labelled(DEADLINE_LAG).items()}
    buckets, so_far = [], 0.0
    for bound in LAG_BUCKETS:
        so_far += counts.get(bound, 0.0)
        buckets.append(("+Inf" if bound == float("inf") else str(bound), so_far))
    family = HistogramMetricFamily(
        "lockbox_deadline_lag_seconds", "How late the clock came to deadlines that it ended."
    )
    family.add_metric([], buckets, figures.one("deadline_lag_total") or 0.0)
    return family


def _attempts(figures: MetricSnapshot) -> Metric:
    family = CounterMetricFamily(
        "lockbox_notify_attempts", "How tries to send a notification ended.", labels=["channel", "outcome"]
    )
    for label, number in sorted(figures.labelled(ATTEMPT).items()):
        family.add_metric(label.split(" "), number)
    return family


def _of_redis(figures: MetricSnapshot) -> Iterator[Metric]:
    held = figures.redis
    yield _gauge(
        "redis_unacked", "Hints that were handed out and not acknowledged.", float(held.unacked if held else 0)
    )
    yield _gauge(
        "redis_oldest_unacked_age_seconds", "Age of the oldest of them.", figures.oldest_unacked_age() or 0.0
    )
    family = GaugeMetricFamily(
        "lockbox_index_drift",
        "By how much an index in Redis differs from Postgres; it heals within seconds.",
        labels=["index", "direction"],
    )
    for (index, direction), number in sorted(figures.drift().items()):
        family.add_metric([index, direction], number)
    yield family


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lockbox_{name}", said, value=value)
