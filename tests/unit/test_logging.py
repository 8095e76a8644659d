"""Logs: secrets and addresses are masked on their way out, whoever logs them."""

import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog
from structlog.stdlib import ProcessorFormatter

from config import logging as lockbox_logging
from config.logging import masked
from config.settings import Settings
from tests.each import each

TOKEN = "lbx_production_0197f3a0a0a07a0a8a0a0a0a0a0a0a0a_" + "aB3-_" * 8 + "xyz"


@pytest.fixture
def log_as_in_production() -> Iterator[Callable[[], None]]:
    """Return a function that sets up logging as in production; the test's end restores the earlier setup."""
    root = logging.getLogger()
    level, kept = root.level, structlog.get_config()
    yield lambda: lockbox_logging.configure(Settings(environment="test"))
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler.formatter, ProcessorFormatter)]
    for chatty in ("httpx", "alembic.runtime.migration"):
        logging.getLogger(chatty).setLevel(logging.NOTSET)
    structlog.configure(**kept)


Logs = pytest.CaptureFixture[str]


@each(
    ("text", "shown"),
    [
        (f"Bearer {TOKEN}", "Bearer lbx_***"),
        (f"{TOKEN} and {TOKEN}", "lbx_*** and lbx_***"),
        ("postgresql+psycopg://api:p4ss@db:5432/x", "postgresql+psycopg://***@db:5432/x"),
        ("redis://:p4ss@127.0.0.1/0", "redis://***@127.0.0.1/0"),
        ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD/=", "whsec_***"),
        ("whsk_C2FVsBQIhrscChlQIMV+b5sSYspob7oD/=", "whsec_***"),
        ("mail to anna.b+c@sub.contoso.example failed", "mail to ***@*** failed"),
        ("<anna@contoso.example>", "<***@***>"),
        ("nothing to hide: 42 @ noon", "nothing to hide: 42 @ noon"),
        ("https://lockbox.example/requests/1", "https://lockbox.example/requests/1"),
    ],
)
def test_tokens_passwords_secrets_and_addresses_are_masked_in_logs(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_log_lines_of_lockbox_are_masked_json(log_as_in_production: Callable[[], None], capsys: Logs) -> None:
    log_as_in_production()

    structlog.get_logger("x").info("went", token=TOKEN, number=3)

    line = json.loads(capsys.readouterr().err)

    assert line["event"] == "went"
    assert line["token"] == "lbx_***"
    assert line["number"] == 3
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")


def test_log_lines_of_libraries_are_masked(log_as_in_production: Callable[[], None], capsys: Logs) -> None:
    log_as_in_production()

    logging.getLogger("library").warning("cannot reach %s for %s", "redis://:p4ss@h/0", "a@b.example")

    line = json.loads(capsys.readouterr().err)

    assert line["event"] == "cannot reach redis://***@h/0 for ***@***"


def test_a_traceback_in_the_log_is_masked(log_as_in_production: Callable[[], None], capsys: Logs) -> None:
    log_as_in_production()

    structlog.get_logger("x").error("failed", exc_info=RuntimeError(f"bad token {TOKEN}"))

    written = capsys.readouterr().err

    assert "RuntimeError: bad token lbx_***" in written
    assert TOKEN not in written


@pytest.mark.parametrize("held", [[TOKEN], {"a": TOKEN}, (TOKEN,), {"a": {"b": [TOKEN]}}, RuntimeError(TOKEN)])
def test_a_nested_secret_in_a_log_line_is_masked(
    held: object, log_as_in_production: Callable[[], None], capsys: Logs
) -> None:
    log_as_in_production()

    structlog.get_logger("x").info("went", held=held)

    assert TOKEN not in capsys.readouterr().err


def test_reading_the_database_revision_is_not_logged(log_as_in_production: Callable[[], None], capsys: Logs) -> None:
    log_as_in_production()

    logging.getLogger("alembic.runtime.migration").info("Context impl %s.", "PostgresqlImpl")
    logging.getLogger("alembic.runtime.migration").warning("something is wrong")

    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "something is wrong"
