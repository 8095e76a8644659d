"""The files for Prometheus and Grafana: queries use existing metrics, and each alert fires only for its reason."""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from api.metrics import FIGURES, exposition
from connectors.models import ConnectionState
from devstack.stack import CHECKOUT
from gate.answers import GateReason
from gate.call_counts import GateDecision
from lockbox.database import Database
from lockbox.monitoring.heartbeats import ProcessPart
from lockbox.monitoring.metrics import GateAnswers, MetricName, MetricSnapshot, read
from lockbox.redis_scripts import QueueDepth
from tests.programs import need

PROMETHEUS = CHECKOUT / "deploy" / "prometheus"
RULES_FILE = PROMETHEUS / "lockbox.rules.yaml"
DASHBOARD = json.loads((CHECKOUT / "deploy" / "grafana" / "lockbox.json").read_text())
GROUPS: list[dict[str, Any]] = YAML(typ="safe", pure=True).load(RULES_FILE.read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule
}
RECORDS: dict[str, str] = {
    rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule
}
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SHOWN = [target["expr"] for panel in PANELS for target in panel["targets"]]
INSTANCES = ("one:8000", "two:8000")
MINUTES = 30
DOCS = "{{ $externalLabels.lockbox_docs }}"
"""For so long the made-up series go on; they change after 10, counters after 17, and are looked at after 20."""
LOOKED_AT = "20m"
PARTS = {part.value: 5.0 for part in ProcessPart}
HEALTHY: dict[tuple[str, str], float] = {
    (MetricName.OVERDUE, ""): 0,
    (MetricName.PENDING, "time_out"): 3,
    (MetricName.PENDING, "expire"): 2,
    (MetricName.ACCESS_OPEN, ""): 2,
    (MetricName.UNSENT, "mail"): 1,
    (MetricName.UNSENT, "webhook"): 4,
    (MetricName.UNSENT, "outbox"): 1,
    (MetricName.OLDEST_UNSENT, "mail"): 2,
    (MetricName.OLDEST_UNSENT, "webhook"): 4000,
    (MetricName.OLDEST_UNSENT, "outbox"): 0.2,
    (MetricName.DEAD, "mail"): 9,
    (MetricName.WEBHOOKS_FAILING, ""): 1,
    (MetricName.CONNECTION_STATE, ConnectionState.OPEN): 1,
    (MetricName.NEEDS_CONNECTORS, ""): 1,
    (MetricName.UNSEALED, ""): 3,
    (MetricName.SEAL_LAG, ""): 1,
    (MetricName.CHECKPOINT_AGE, ""): 60,
    **{(MetricName.HEARTBEAT, part): age for part, age in PARTS.items()},
    **{(MetricName.PROCESSES, part): 1 for part in PARTS},
    (MetricName.SKEW, "core"): -0.1,
    (MetricName.ROLLED_BACK, "api"): 0,
    (MetricName.UNVERIFIED, "api"): 0,
    (MetricName.CONNECTIONS_PROMISED, "api"): 116,
    (MetricName.CONNECTIONS_PROMISED, "core"): 40,
    (MetricName.CONNECTIONS_ALLOWED, ""): 297,
    (MetricName.LAGGING_STANDBY, ""): 0,
    (MetricName.FINDINGS, "due"): 1,
    (MetricName.LEGAL_HOLDS, ""): 1,
    (MetricName.OFFBOARDINGS, "asked"): 1,
    (MetricName.ATTEMPT, "mail sent"): 100,
    (MetricName.ATTEMPT, "mail dead"): 9,
    (MetricName.ATTEMPT, "webhook again"): 7,
    (MetricName.GATE_REPORTS, "exchange-online"): 2,
    (MetricName.DEADLINE_LAG, "0.01"): 50,
    (MetricName.DEADLINE_LAG, "0.5"): 2,
    (MetricName.DEADLINE_LAG_TOTAL, ""): 1.5,
}
REDIS = QueueDepth(clocks_in_span=0, notifications=6, unacked=0, oldest_unacked_at=None, now=0)
ANSWERED = (
    GateAnswers("nginx", "exchange-online", GateDecision.ALLOW, "", 900, 9, 90),
    GateAnswers("nginx", "exchange-online", GateDecision.DENY, GateReason.NO_WINDOW, 40, 4, 40),
    GateAnswers("nginx", "exchange-online", GateDecision.DENY, GateReason.BEHIND, 7, 0, 0),
)
Series = dict[str, str]


def series_of(postgres: Mapping[tuple[str, str], float] | None, answered: Iterable[GateAnswers] | None) -> Series:
    """Return the metrics of an API process as promtool series, each constant for half an hour."""
    figures = MetricSnapshot(postgres, REDIS)
    return {
        _written(sample.name, sample.labels): f"{sample.value:g}x{MINUTES}"
        for family in text_string_to_metric_families(exposition(figures, answered).decode())
        for sample in family.samples
    }


def _written(name: str, labels: Mapping[str, str]) -> str:
    pairs = ", ".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}"


WELL = series_of(HEALTHY, ANSWERED)
COUNTED = "0x16 1x13"
APPEARS = "_x17 1x12"


def changing(before: object, after: object) -> str:
    """Return a series' values, which change after ten minutes."""
    return f"{before}x9 {after}x20"


def lost(names: Iterable[str]) -> Series:
    """Return these series, which end after ten minutes."""
    return {name: f"{WELL[name].partition('x')[0]}x9 stale" for name in names}


def late(part: str) -> Series:
    """Return series by which no process of this kind runs after ten minutes."""
    return {f'lockbox_heartbeat_age_seconds{{role="{part}"}}': changing(5, 300)}


def without(part: str) -> Series:
    """Return series that stop reporting processes of this kind after ten minutes."""
    return lost(name for name in WELL if f'role="{part}"' in name)


WITH_POSTGRES = [name for name in WELL if name not in series_of(None, None)]
WRONG: dict[str, list[Series]] = {
    "LockboxUnreachable": [lost(WELL) | {'up{job="lockbox"}': changing(1, 0)}],
    "LockboxPostgresDown": [lost(WITH_POSTGRES) | {"lockbox_postgres_up{}": changing(1, 0)}],
    "LockboxRedisDown": [{"lockbox_redis_up{}": changing(1, 0)}],
    "LockboxProcessSilent": [late("notifications"), late("reconcile")],
    "LockboxProcessMissing": [without("core"), without("notifications")],
    "LockboxConnectorWorkerMissing": [without("connectors"), late("connectors")],
    "LockboxAccessNotClosed": [{'lockbox_connector_connections{state="close_failed"}': changing("_", 1)}],
    "LockboxDeadlinesOverdue": [{"lockbox_deadlines_overdue{}": changing(0, 2)}],
    "LockboxDeadlinesLate": [
        {
            'lockbox_deadline_lag_seconds_bucket{le="60.0"}': "52x9 53+1x20",
            'lockbox_deadline_lag_seconds_bucket{le="+Inf"}': "52x9 53+1x20",
        }
    ],
    "LockboxNotificationsUnsent": [
        {f'lockbox_oldest_unsent_notification_age_seconds{{channel="{channel}"}}': changing(2, 301)}
        for channel in ("mail", "outbox")
    ],
    "LockboxMailsGivenUp": [
        {'lockbox_notify_attempts_total{channel="mail", outcome="dead"}': values}
        for values in ("9x16 10x13", APPEARS)
    ],
    "LockboxAuditUnsealed": [{"lockbox_audit_seal_lag_seconds{}": changing(1, 61)}],
    "LockboxAuditLogRolledBack": [{'lockbox_audit_logs_rolled_back{role="api"}': changing(0, 1)}],
    "LockboxRowsUnverified": [{'lockbox_powers_unverified{role="api"}': changing(0, 1)}],
    "LockboxStandbyAsynchronous": [{"lockbox_standby_asynchronous{}": changing(0, 1)}],
    "LockboxFindingOverdue": [{'lockbox_break_glass_findings{state="overdue"}': changing("_", 1)}],
    "LockboxIndexDrift": [{'lockbox_index_drift{direction="missing", index="clock"}': changing(0, 5)}],
    "LockboxMessagesDropped": [{'lockbox_messages_dropped_total{where="keys"}': each} for each in (COUNTED, APPEARS)],
    "LockboxGateUnanswered": [
        {
            _written(
                "lockbox_gate_answers_total",
                {"gateway": "nginx", "service": "exchange-online", "decision": "deny", "reason": reason},
            ): values
        }
        for reason, values in ((GateReason.BEHIND, "7x16 8x13"), (GateReason.BUSY, APPEARS))
    ],
    "LockboxGateCountsUnwritten": [{"lockbox_gate_answers_unwritten{}": changing(0, 3)}],
    "LockboxGateUsesLost": [{"lockbox_gate_uses_lost_total{}": each} for each in (COUNTED, APPEARS)],
    "LockboxClockSkew": [{'lockbox_clock_skew_seconds{role="core"}': changing(-0.1, -6)}],
    "LockboxConnectionsShort": [{'lockbox_connections_promised{role="api"}': changing(116, 280)}],
}
HARMLESS: dict[str, Series] = {
    "nothing at all": {},
    "a webhook that fails": {"lockbox_webhooks_failing{}": changing(0, 7)},
    "Postgres that was away and is back": {
        name: f"{WELL[name].partition('x')[0]}x9 stale _x2 {WELL[name].partition('x')[0]}x17"
        for name in WITH_POSTGRES
    }
    | {"lockbox_postgres_up{}": "1x9 0x2 1x17"},
    "an installation without connectors": without("connectors")
    | {"lockbox_connector_worker_needed{}": f"0x{MINUTES}"},
}


def case(name: str, changes: Series, expected: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    """Return a promtool test: two API processes with the same series."""
    series = {'up{job="lockbox"}': f"1x{MINUTES}", **WELL, **changes}
    return {
        "name": name,
        "interval": "1m",
        "input_series": [
            {"series": f'{name[:-1]}{"" if name.endswith("{}") else ", "}instance="{instance}"}}', "values": values}
            for name, values in series.items()
            for instance in INSTANCES
        ],
        "promql_expr_test": expected,
        **more,
    }


def firing(*alerts: str) -> list[dict[str, Any]]:
    """Return the expectation that these alerts fire and no others."""
    return [
        {
            "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": LOOKED_AT,
            "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts],
        }
    ]


def promtool_accepts(folder: Path, cases: list[dict[str, Any]]) -> None:
    file = folder / "tests.json"
    file.write_text(json.dumps({"rule_files": [str(RULES_FILE)], "evaluation_interval": "1m", "tests": cases}))
    ran = subprocess.run(
        [need("promtool"), "test", "rules", file], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_prometheus_sample_and_rules_are_valid(tmp_path: Path) -> None:
    text = (PROMETHEUS / "prometheus.yaml").read_text()
    token = tmp_path / "token"
    token.write_text("a-token")
    sample = tmp_path / "prometheus.yaml"
    sample.write_text(text.replace("/etc/prometheus/lockbox-metrics-token", str(token)))
    (tmp_path / "lockbox.rules.yaml").write_text(RULES_FILE.read_text())

    checked = subprocess.run(
        [need("promtool"), "check", "config", "--lint=all", "--lint-fatal", sample],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert sample.read_text() != text
    assert "job_name: lockbox" in text, "the rules look for this name"


@pytest.mark.far
def test_each_prometheus_alert_fires_for_its_own_reason(tmp_path: Path) -> None:
    assert WRONG.keys() == ALERTS.keys()

    promtool_accepts(
        tmp_path,
        [
            case(f"{alert} {number}", changes, firing(alert))
            for alert, reasons in WRONG.items()
            for number, changes in enumerate(reasons)
        ],
    )


def test_no_prometheus_alert_fires_on_a_healthy_installation(tmp_path: Path) -> None:
    promtool_accepts(tmp_path, [case(name, changes, firing()) for name, changes in HARMLESS.items()])


def test_the_text_of_an_alert_names_what_is_wrong(tmp_path: Path) -> None:
    alert = ALERTS["LockboxProcessSilent"]
    summary = "No process has said for 5m 0s that it runs as notifications."
    says = {
        "eval_time": LOOKED_AT,
        "alertname": "LockboxProcessSilent",
        "exp_alerts": [
            {
                "exp_labels": {"severity": "critical", "role": "notifications"},
                "exp_annotations": {
                    **alert["annotations"],
                    "summary": summary,
                    "runbook_url": alert["annotations"]["runbook_url"].removeprefix(DOCS),
                },
            }
        ],
    }

    promtool_accepts(tmp_path, [case("said", late("notifications"), [], alert_rule_test=[says])])


def test_every_prometheus_alert_has_a_severity_and_a_runbook() -> None:
    for name, rule in ALERTS.items():
        assert name.startswith("Lockbox")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        place = rule["annotations"]["runbook_url"]
        assert place.startswith(DOCS)
        file, _, anchor = place.removeprefix(DOCS).partition("#")
        headings = re.findall(r"^#+ (.+)$", (CHECKOUT / file).read_text(), flags=re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w-]", "", text.lower().replace(" ", "-")) for text in headings}, (
            name
        )


def test_alert_rules_and_dashboard_panels_query_existing_metrics(api: Database) -> None:
    text = exposition(read(api), answered=()).decode()
    families = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, flags=re.MULTILINE))
    known = set(families)
    known |= {f"{name}_bucket" for name, kind in families.items() if kind == "histogram"}
    asked = {name for query in queries() for name in re.findall(r"\blockbox_\w+", query)}

    assert asked <= known
    assert len(asked) > 20
    assert {f"lockbox_{one.name}" for one in FIGURES} <= {name.removesuffix("_total") for name in known}


def test_prometheus_queries_use_existing_labels_and_values() -> None:
    labels = {name: set(re.findall(r'(\w+)="', series)) for series in WELL for name in [series.partition("{")[0]]}
    for query in queries():
        for name, matchers in re.findall(r"\b(lockbox_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)[=!]", matchers)) <= labels.get(name, set()), query


def test_every_dashboard_panel_shows_data_on_a_healthy_installation(tmp_path: Path) -> None:
    asked = [expression.replace("$__rate_interval", "5m") for expression in SHOWN]

    promtool_accepts(
        tmp_path,
        [
            case(
                "panels",
                {},
                [
                    {
                        "expr": f"count({one}) > bool 0",
                        "eval_time": LOOKED_AT,
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                    for one in asked
                ],
            )
        ],
    )


def test_grafana_can_import_the_dashboard() -> None:
    every = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert {panel["type"] for panel in PANELS} == {"stat", "timeseries"}
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource"]
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    taken: set[tuple[int, int]] = set()
    for panel in every:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def queries() -> list[str]:
    """Return every query of the rules and of the dashboard."""
    annotations = [one["expr"] for one in DASHBOARD["annotations"]["list"]]
    return [*(rule["expr"] for rule in ALERTS.values()), *RECORDS.values(), *SHOWN, *annotations]


def test_the_recorded_prometheus_series_are_exactly_the_series_that_queries_use() -> None:
    used = {name for query in queries() for name in re.findall(r"\blockbox:[\w:]+", query)}

    assert used == RECORDS.keys()
