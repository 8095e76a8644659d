"""What `make run` shows and what it keeps in files: no password and no token on the screen, the rest in a log."""

import io
import multiprocessing
import os
import re
import signal
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import honcho.printer
import pytest
from rich.console import Console

from catalogue.service_catalogue import Service
from devstack import welcome
from devstack.run import LAST_LINES, LogPrinter, PatientManager, new_log
from devstack.sample import CUSTOMER, VENDOR, Sample
from devstack.stack import StackPlan

NAMES = [key for key, *_ in (*VENDOR, *CUSTOMER)]


def plan() -> StackPlan:
    return StackPlan("", "", "", "", "", "", None, Path(), api_port=8000, flower_port=5555)


def message(data: str | bytes, name: str = "worker") -> honcho.printer.Message:
    return honcho.printer.Message("line", data, datetime.now(UTC), name, None)


def test_the_run_log_gets_all_lines_and_the_console_shows_only_lines_meant_for_people() -> None:
    log, screen = io.StringIO(), io.StringIO()
    told: list[str] = []
    printer = LogPrinter(log, Console(file=screen, width=200))
    printer.tell = told.append

    printer.write(message(b"a line of the log\n"))
    printer.write(message(b"lockbox: worker ended with 1; it is started again\n"))
    printer.write(message("api stopped (rc=1)\n", "system"))

    assert [line.partition("| ")[2] for line in log.getvalue().splitlines()] == [
        "a line of the log",
        "lockbox: worker ended with 1; it is started again",
        "api stopped (rc=1)",
    ]
    assert screen.getvalue() == "worker: worker ended with 1; it is started again\n"
    assert told == ["api stopped (rc=1)\n"]


class InterruptedFile(io.RawIOBase):
    """A file in whose first write a signal arrives."""

    def __init__(self, handler: Callable[[], object]) -> None:
        super().__init__()
        self.handler: Callable[[], object] | None = handler
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        handler, self.handler = self.handler, None
        if handler:
            handler()
        self.written += bytes(data)
        return len(data)


def test_run_log_output_of_a_signal_handler_follows_the_current_line() -> None:
    file = InterruptedFile(lambda: printer.write(message("SIGINT received\n", "system")))
    log = io.TextIOWrapper(io.BufferedWriter(file), write_through=True)
    printer = LogPrinter(log, None)

    printer.write(message("a line\n" * 2000))
    log.flush()

    lines = [line.partition("| ")[2] for line in file.written.decode().splitlines()]
    assert lines == ["a line"] * 2000 + ["SIGINT received"]


def test_processes_end_if_their_output_lines_cannot_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    full = InterruptedFile(lambda: os.write(-1, b""))
    printer = LogPrinter(io.TextIOWrapper(io.BufferedWriter(full), write_through=True), None)
    manager = PatientManager(1, lambda: None, printer)
    manager.add_process("worker", "echo; exec sleep 60")

    with pytest.raises(OSError, match="Bad file descriptor"):
        manager.loop()

    children = multiprocessing.active_children()
    for child in children:
        child.join(10)
    assert [child for child in children if child.is_alive()] == []


def test_the_run_log_keeps_the_last_lines_of_each_process() -> None:
    printer = LogPrinter(io.StringIO(), None)
    for number in range(LAST_LINES + 2):
        printer.write(message(f"{number}\n", "api"))
    printer.write(message(b"\xff broken\n", "worker"))

    assert printer.last_of("api") == [str(number) for number in range(2, LAST_LINES + 2)]
    assert printer.last_of("worker") == ["\N{REPLACEMENT CHARACTER} broken"]


def test_a_run_log_is_new_and_private_and_an_earlier_log_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log" / "run.log"
    with new_log(path) as first:
        first.write("first\n")
        with new_log(path) as second:
            second.write("second\n")
        first.write("still the first\n")

    assert path.read_text() == "second\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_password_for_flower_is_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "var" / "flower-password"
    first = welcome.keep_flower_password(plan(), path)
    path.chmod(0o644)
    second = welcome.keep_flower_password(plan(), path)

    assert first.flower_password == second.flower_password == path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("known", ["", "short", "a,comma-is-where-flower-ends-it", "a b" * 20, "\x00" * 40])
def test_a_password_unfit_for_flower_is_replaced(tmp_path: Path, known: str) -> None:
    path = tmp_path / "flower-password"
    path.write_text(known)
    own = plan()

    assert welcome.keep_flower_password(own, path) == own
    assert path.read_text().strip() == own.flower_password


def test_the_run_banner_names_the_files_and_no_secret(tmp_path: Path) -> None:
    tokens = {name: f"lbx_development_{name}" for name in NAMES}
    seeded = Sample("contoso", uuid4(), {name: uuid4() for name in NAMES}, tokens)
    services = {"payroll": Service.model_validate({"title": "Payroll", "actions": ("export",)})}
    screen, own = io.StringIO(), plan()

    welcome.show(Console(file=screen, width=80), own, seeded, services, tmp_path / "tokens.env", tmp_path / "run.log")

    said = screen.getvalue()
    assert own.flower_password not in said
    assert "lbx_" not in said
    unwrapped = re.sub(r"[\s│]", "", said)
    for path in ("flower-password", "tokens.env", "run.log"):
        assert path in unwrapped
    assert all(f"${name.upper()}" in said for name in NAMES)
    assert said.splitlines()[-2].startswith("curl -s $API/v1/requests")
    assert '"service":"payroll"' in said
