"""What `make run` passes on of the caller's own settings: to whom, and why not the others."""

from pathlib import Path

import pytest

from cli.passed_settings import FILES, PASSED, REFUSED, TAKEN, sort_settings
from cli.stack import commands
from config.children import given
from config.settings import Settings


def test_every_setting_is_passed_on_taken_or_refused_with_a_reason() -> None:
    assert sorted([*PASSED, *TAKEN, *REFUSED]) == sorted(Settings.model_fields)
    assert set(FILES) <= set(PASSED)
    assert set().union(*PASSED.values()) == set(commands())


def test_a_setting_reaches_the_processes_that_need_it() -> None:
    passed = sort_settings({"LOCKBOX_LOG_LEVEL": "debug", "LOCKBOX_METRICS_TOKEN": "a-token"})

    assert passed.of("api") == {"LOCKBOX_LOG_LEVEL": "debug", "LOCKBOX_METRICS_TOKEN": "a-token"}
    assert passed.of("flower") == passed.of("worker") == {"LOCKBOX_LOG_LEVEL": "debug"}
    assert passed.refused == {}


def test_a_file_is_found_from_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    passed = sort_settings({"LOCKBOX_CATALOGUE": "mine.yaml"})

    assert passed.of("api") == passed.of("notifications") == {"LOCKBOX_CATALOGUE": str(tmp_path / "mine.yaml")}
    assert passed.of("worker") == {}


def test_the_folder_of_targets_reaches_the_connector_worker_alone(tmp_path: Path) -> None:
    passed = sort_settings({"LOCKBOX_CONNECTOR_TARGETS": str(tmp_path)})

    assert passed.of("connectors") == {"LOCKBOX_CONNECTOR_TARGETS": str(tmp_path)}
    assert {name: passed.of(name) for name in ("api", "worker", "notifications", "flower")} == {
        name: {} for name in ("api", "worker", "notifications", "flower")
    }


@pytest.mark.parametrize(
    ("variable", "why"),
    [
        ("LOCKBOX_PUBLIC_URL", "make run PORT=N"),
        ("LOCKBOX_API_PORT", "make run PORT=N"),
        ("LOCKBOX_SECRET_KEYS", "keys of its own"),
        ("LOCKBOX_TOKEN", "the command `lockbox`"),
        ("LOCKBOX_CATALOG", "did you mean LOCKBOX_CATALOGUE?"),
        ("LOCKBOX_SERVICES", "there is no such setting"),
        ("lockbox_embedded", "starts a server"),
    ],
)
def test_what_is_not_passed_on_is_named_with_the_reason_and_without_its_value(variable: str, why: str) -> None:
    passed = sort_settings({variable: "hunter2"})

    assert passed.values == {}
    assert why in passed.refused[variable]
    assert "hunter2" not in passed.refused[variable]


def test_what_the_stack_uses_itself_is_not_refused() -> None:
    assert sort_settings({"LOCKBOX_REDIS_URL": "redis://:x@localhost/0"}).refused == {}


def test_the_callers_variables_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("lockbox_log_level", "debug")
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")

    assert given()["lockbox_log_level"] == "debug"
    assert all(name.upper().startswith("LOCKBOX_") for name in given())
