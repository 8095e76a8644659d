"""A run of the tests in several processes, each forked from the one that has imported and collected all of them."""

import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import pytest

NUMBER = pytest.StashKey[int]()
"""The number of a forked process, from 0 on; the process that forks has none."""

Chooses = Callable[[int, str], bool]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processes", type=int, default=0, help="fork so many processes to run the tests")


def batches(items: Sequence[pytest.Item], key: Callable[[pytest.Item], str]) -> deque[deque[pytest.Item]]:
    """Return tests that follow each other and share a key, together: one process runs them, one after the other."""
    return deque(deque(together) for _, together in groupby(items, key))


@dataclass
class Fork:
    """A forked process as its parent sees it; `left` are the tests that it was given and has not run."""

    number: int
    pid: int
    connection: "Connection[Any, Any]"
    left: deque[pytest.Item] = field(default_factory=deque)


class ForkedRun:
    """Gives batches of tests to forked processes, and reports what they report.

    `prefers` says whether a process of this number takes a batch with this file before others.
    """

    def __init__(self, session: pytest.Session, waiting: deque[deque[pytest.Item]], prefers: Chooses) -> None:
        self._session = session
        self._waiting = waiting
        self._prefers = prefers
        self._places = {item: place for place, item in enumerate(session.items)}
        self._forks: dict[Connection[Any, Any], Fork] = {}

    def run(self, count: int) -> None:
        """Run all that waits in so many processes.

        Raises:
            Failed: enough tests have failed for the options of this run.
        """
        assert threading.active_count() == 1, "a lock that another thread holds would stay held in each fork"
        try:
            for number in range(min(count, len(self._waiting))):
                self._fork(number)
            while self._forks:
                for connection in wait([*self._forks]):
                    self._hear(self._forks[connection])  # type: ignore[index]
        finally:
            for fork in [*self._forks.values()]:
                self._bury(fork)

    def _fork(self, number: int) -> None:
        ours, theirs = Pipe()
        # What was not written yet would be written twice.
        sys.stdout.flush()
        sys.stderr.flush()
        if pid := os.fork():
            theirs.close()
            self._forks[ours] = Fork(number, pid, ours)
            return
        try:
            # As long as it holds their ends, others do not see that they are alone.
            for connection in (ours, *self._forks):
                connection.close()
            RunProcess(self._session, number, theirs).run()
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            raise
        finally:
            # What is to be done at the end of the process that forked it is left to that one.
            os._exit(0)

    def _hear(self, fork: Fork) -> None:
        try:
            said = fork.connection.recv()
        except EOFError:
            self._bury(fork)
            if fork.left:
                self._note_crash(fork)
            return
        if said is None:
            given = self._next(fork.number)
            fork.left += given
            fork.connection.send([self._places[item] for item in given])
            return
        fork.left.popleft()
        for told in said:
            self._report(
                self._session.config.hook.pytest_report_from_serializable(config=self._session.config, data=told)
            )
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)
        if self._session.shouldstop:
            raise self._session.Interrupted(self._session.shouldstop)

    def _next(self, number: int) -> deque[pytest.Item]:
        preferred = (batch for batch in self._waiting if self._prefers(number, batch[0].nodeid))
        found = next(preferred, self._waiting[0] if self._waiting else deque())
        if found:
            self._waiting.remove(found)
        return found

    def _report(self, report: pytest.TestReport) -> None:
        hook = self._session.config.hook
        hook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)

    def _note_crash(self, fork: Fork) -> None:
        """Report the test during which a process has ended, and have another process run what it left."""
        crashed = fork.left.popleft()
        said = f"process {fork.number} ended while it ran this"
        self._report(pytest.TestReport(crashed.nodeid, crashed.location, {}, "failed", said, "call"))
        if fork.left:
            self._waiting.appendleft(fork.left)
        if self._waiting:
            self._fork(fork.number)

    def _bury(self, fork: Fork) -> None:
        del self._forks[fork.connection]
        fork.connection.close()
        os.waitpid(fork.pid, 0)


class RunProcess:
    """Runs the tests that it is given, in the process that was forked for it."""

    def __init__(self, session: pytest.Session, number: int, connection: "Connection[Any, Any]") -> None:
        self._session = session
        self._connection = connection
        self._reports: list[Any] = []
        session.config.stash[NUMBER] = number

    def run(self) -> None:
        plugins = self._session.config.pluginmanager
        capture = plugins.get_plugin("capturemanager")
        assert capture
        # The files into which it writes, and the places in them, are those of all processes.
        capture.stop_global_capturing()
        capture.start_global_capturing()
        capture.suspend_global_capture()
        plugins.unregister(name="terminalreporter")
        plugins.register(self)
        # Where nobody listens any more, the run is over.
        with suppress(EOFError, BrokenPipeError):
            try:
                self._run_all()
            finally:
                self._session._setupstate.teardown_exact(None)  # noqa: SLF001 - as pytest's own sessionfinish does

    def _run_all(self) -> None:
        items = self._ask()
        while items:
            item = items.popleft()
            # The last test is told what follows: it leaves that one what they share, or takes down everything.
            items = items or self._ask()
            hook = self._session.config.hook
            hook.pytest_runtest_protocol(item=item, nextitem=items[0] if items else None)
            reports, self._reports = self._reports, []
            self._connection.send(reports)

    def _ask(self) -> deque[pytest.Item]:
        self._connection.send(None)
        return deque(self._session.items[place] for place in self._connection.recv())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        config = self._session.config
        self._reports.append(config.hook.pytest_report_to_serializable(config=config, report=report))
