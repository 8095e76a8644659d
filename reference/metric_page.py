"""The page of metrics, as `/metrics` describes them."""

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import FIGURES, exposition
from lockbox.monitoring.metrics import GateAnswers, MetricSnapshot
from lockbox.redis_scripts import QueueDepth
from reference.markdown import head, table

INTRODUCTION = """
`GET /metrics` in Prometheus' text form, for this machine and for anyone who sends `LOCKBOX_METRICS_TOKEN`
([monitoring](../operating/monitoring.md) says what to page someone for). All API processes answer alike, but for
`lockbox_gate_answers_unwritten`. No metric names a person, a tenant or what was requested. What could not be read is
left out.
"""


def page() -> str:
    """Return the page."""
    rows = [
        (
            f"`{_name(family)}`",
            family.type,
            ", ".join(f"`{label}`" for label in _labels(family)) or "-",
            family.documentation,
        )
        for family in families()
    ]
    return head("Metrics", INTRODUCTION) + "\n" + table(("metric", "type", "labels", "meaning"), rows)


def families() -> list[Metric]:
    """Return all metrics that an installation can expose, with a sample of each."""
    postgres: dict[tuple[str, str], float] = {(one.figure, " ".join(one.labels)): 1.0 for one in FIGURES}
    read = MetricSnapshot(postgres, QueueDepth(0, 0, 0, None, 0.0))
    shown = exposition(read, [GateAnswers("nginx", "service", "deny", "no_window", 1, 1, 1)])
    return list(text_string_to_metric_families(shown.decode()))


def _name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def _labels(metric: Metric) -> list[str]:
    return sorted({label for sample in metric.samples for label in sample.labels} - {"le"})
