"""The guard's estimate of the database's time: the latest time possible, and not much too late for long."""

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lockbox_guard.database_clock import DatabaseClock

from harness.wait import wait_for
from tests.unit.guard_lockbox import (
    ERIN,
    LIMITS,
    PATIENCE,
    USE,
    MovedSeconds,
    SmallLockbox,
    guard_of,
    reason,
    wait_until,
    window,
)

AHEAD = 1_000_000_000
"""By how many microseconds the database's clock is ahead of the guard's."""


class GuardSeconds:
    """The guard's clock, which a test sets forward."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    @property
    def database(self) -> int:
        return round(self.now * 1e6) + AHEAD


class SlowSeconds(MovedSeconds):
    """The guard's clock; the next connection takes `slow` seconds by it to begin."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = 0.0

    def begin(self) -> None:
        self.ahead += self.slow
        self.slow = 0


@pytest.fixture
def lockbox() -> Iterator[SmallLockbox]:
    small = SmallLockbox()
    yield small
    small.close()


def known(clock: GuardSeconds, seconds: float = 0.0) -> DatabaseClock:
    """Return what is known after a stream that took so many seconds to begin, and a heartbeat."""
    found = DatabaseClock(clock)
    found.note_sent()
    clock.now += seconds
    found.hear(clock.database, current=None)
    found.hear(clock.database, current=clock.database - 1_000_000)
    return found


def off(found: DatabaseClock, clock: GuardSeconds) -> float:
    """Return by how many seconds the estimate is ahead of the database's clock."""
    now = found.now()
    assert now is not None
    return (now - clock.database) / 1e6


def test_an_answer_of_lockbox_improves_the_guards_clock_on_a_slow_connection() -> None:
    clock = GuardSeconds(100)
    found = known(clock, 1.5)
    assert off(found, clock) == pytest.approx(1.5)

    sent = found.moment()
    clock.now += 0.2
    found.bound(sent, clock.database)

    assert off(found, clock) == pytest.approx(0.2)


def test_a_slow_answer_of_lockbox_does_not_improve_the_guards_clock() -> None:
    clock = GuardSeconds(100)
    found = known(clock, 0.1)

    sent = found.moment()
    clock.now += 2
    found.bound(sent, clock.database)

    assert off(found, clock) == pytest.approx(0.1)


def test_an_answer_from_before_a_clock_change_does_not_set_the_guards_clock() -> None:
    clock = GuardSeconds(100)
    found = known(clock)
    sent, old = found.moment(), clock.database
    found.hear(clock.database + 60_000_000, current=None)

    found.bound(sent, old)

    assert off(found, clock) == pytest.approx(60)


def test_an_answer_of_lockbox_improves_the_guards_clock_after_a_slow_read() -> None:
    clock = GuardSeconds(100)
    found = known(clock)
    found.hear(clock.database + 900_000, current=clock.database - 100_000)
    clock.now += 0.5
    found.hear(clock.database, current=clock.database - 1_000_000)
    assert off(found, clock) == pytest.approx(0.9)

    found.bound(found.moment(), clock.database)

    assert off(found, clock) == pytest.approx(0)


@pytest.mark.parametrize("back", [0, 2, 10])
def test_without_heartbeats_the_guard_allows_nothing_after_2_s_even_if_lockbox_answers(back: int) -> None:
    clock = GuardSeconds(100)
    found = known(clock, 1.5)
    heard = clock.now
    found.bound(found.moment(), clock.database - back * 1_000_000)

    while not found.is_quiet:
        clock.now += 0.01

    # What a heartbeat says may be a second old then.
    assert clock.now - heard <= 2.01


def test_an_answer_before_the_guards_first_stream_does_not_set_its_clock() -> None:
    clock = GuardSeconds(100)
    found = DatabaseClock(clock)

    found.bound(found.moment(), clock.database)

    assert found.now() is None
    assert found.is_quiet


@pytest.mark.far
def test_the_guard_does_not_cut_an_admitted_call_because_of_a_slow_connection(
    lockbox: SmallLockbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SlowSeconds()
    lockbox.begin, clock.slow = clock.begin, 61
    token = lockbox.knows("erin's", seconds=3600)
    with guard_of(lockbox, monkeypatch, clock=clock) as guard:
        wait_until(guard, "no_window", engineer=ERIN)
        said = window(seconds=60)
        request = lockbox.open(said)
        lockbox.says_yes("Bearer erin's", request=said["request"], until=said["until"])
        wait_for("it knows the window", lambda: guard.start().knowledge.windows.of(request), PATIENCE)
        assert reason(guard, engineer=ERIN) == "no_window"

        allowed = guard.check(**USE, token=token)
        watch = guard.watch(allowed)

        assert not allowed.is_known
        assert watch.may_go_on()
        assert guard.check(**USE, token=token).is_known
        clock.ahead += 30
        assert watch.may_go_on()
        clock.ahead += 30
        assert not watch.may_go_on()


@pytest.mark.far
def test_the_guard_replaces_a_connection_that_is_too_slow(
    lockbox: SmallLockbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SlowSeconds()
    lockbox.begin, clock.slow = clock.begin, LIMITS["database_clock.QUIET_SECONDS"]
    token = lockbox.knows("erin's", seconds=3600)
    with guard_of(lockbox, monkeypatch, clock=clock) as guard:
        assert reason(guard, token=token) == "behind"

        wait_until(guard, "no_window", token=token)

    assert len(lockbox.began) == 2


@pytest.mark.parametrize("member", [True, False, None, "true", 1])
def test_the_guard_returns_whether_a_window_was_opened_by_break_glass(
    member: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts: dict[str, Any] = {} if member is None else {"break_glass": member}
    with closing(SmallLockbox()) as lockbox, guard_of(lockbox, monkeypatch) as guard:
        lockbox.open(window(**facts))

        assert guard.check(**USE, engineer=ERIN).break_glass is (member is True)


@pytest.mark.parametrize("header", ["true", "false", None])
def test_the_guard_returns_the_break_glass_header_of_an_answer(
    header: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {} if header is None else {"break-glass": header}
    with closing(SmallLockbox()) as lockbox, guard_of(lockbox, monkeypatch) as guard:
        token = lockbox.knows("erin's")
        lockbox.says_yes("Bearer erin's", **about)

        assert guard.check(**USE, token=token).break_glass is (header == "true")


HOME = Path(__file__).parents[2]
GUARD = HOME / "packages" / "guard-python"
SERVER = {"api", "catalogue", "cli", "config", "devstack", "gate", "harness", "lockbox", "worker"}


def test_the_guard_package_depends_on_httpx_only() -> None:
    project = tomllib.loads((GUARD / "pyproject.toml").read_text())["project"]

    assert project["dependencies"] == ["httpx>=0.28"]
    assert project["version"] == tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["version"]


def test_the_guard_package_imports_no_server_code() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(GUARD)!r})
import lockbox_guard
print(*{{name.partition(".")[0] for name in sys.modules}})
"""
    ended = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)

    loaded = set(ended.stdout.split())
    assert "lockbox_guard" in loaded
    assert loaded & (SERVER | {"fastapi", "starlette", "pydantic", "sqlalchemy", "redis", "uvicorn"}) == set()


def test_the_wheel_of_the_guard_contains_package_and_types(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=GUARD, capture_output=True, timeout=60, check=True)

    (wheel,) = tmp_path.glob("lockbox_guard-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"lockbox_guard"}
    assert "lockbox_guard/py.typed" in names
    assert {f"lockbox_guard/{path.name}" for path in (GUARD / "lockbox_guard").glob("*.py")} <= set(names)


def test_the_development_environment_installs_the_guard_package() -> None:
    assert "--editable ./packages/guard-python" in (HOME / "deploy" / "venv").read_text()
