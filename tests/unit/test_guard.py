"""The guard with a small Lockbox, over real connections: what it allows, when it asks, and its refusal in doubt."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from lockbox_guard import Allowed, CallStanding, Guard, Refused, database_clock, remote, running_guard, watches

from harness.wait import wait_for
from tests.unit.guard_lockbox import (
    ERIN,
    PATIENCE,
    SERVICE,
    TOKEN,
    USE,
    MovedSeconds,
    SmallLockbox,
    guard_of,
    reason,
    wait_until,
    window,
)
from tests.unit.test_guard_clock import GuardSeconds

ASK_SECONDS = remote.ASK_SECONDS
QUIET_SECONDS = database_clock.QUIET_SECONDS
START_SECONDS = running_guard.START_SECONDS


@pytest.fixture
def lockbox() -> Iterator[SmallLockbox]:
    small = SmallLockbox()
    yield small
    small.close()


@pytest.fixture
def clock() -> MovedSeconds:
    return MovedSeconds()


@pytest.fixture
def guard(lockbox: SmallLockbox, clock: MovedSeconds, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    with guard_of(lockbox, monkeypatch, engineer_header="X-Engineer", clock=clock) as made:
        yield made


def test_in_the_guard_an_open_window_admits_its_engineer_only(lockbox: SmallLockbox, guard: Guard) -> None:
    request = lockbox.open(window())

    allowed = guard.check(**USE, engineer=ERIN)

    assert (allowed.request, allowed.engineer) == (request, ERIN)
    assert allowed.until is not None
    assert lockbox.asked == []
    assert reason(guard, engineer=uuid4()) == "no_window"
    for wrong in ({"tenant": "other"}, {"resource": "mailbox:ceo@contoso.example"}, {"action": "export"}):
        with pytest.raises(Refused):
            guard.check(**USE | wrong, engineer=ERIN)
    with pytest.raises(Refused):
        guard.check(**USE, engineer=ERIN, service="onedrive")


def test_an_engineer_refused_by_the_guard_gets_lockboxs_reason_and_a_link_to_the_request_form(
    lockbox: SmallLockbox, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_guard, "REFUSED_SECONDS", PATIENCE)
    lockbox.reasons[str(ERIN)] = "used_up"

    for _ in range(3):
        with pytest.raises(Refused) as refused:
            guard.check(**USE, engineer=ERIN)

    assert refused.value.reason == "used_up"
    assert refused.value.form == "https://lockbox.example/ask?tenant=contoso"
    ((path, asked, headers),) = lockbox.asked
    assert path == f"/gate/v1/{SERVICE}/check"
    assert asked == {name: [value] for name, value in {**USE, "engineer": str(ERIN)}.items()}
    assert "authorization" not in headers


def test_the_guard_treats_an_allow_about_another_engineer_as_a_refusal(lockbox: SmallLockbox, guard: Guard) -> None:
    other = uuid4()
    lockbox.says_yes(str(ERIN))
    lockbox.says_yes(str(other))

    assert guard.check(**USE, engineer=ERIN).engineer == ERIN
    assert reason(guard, engineer=other) == "behind"


def test_the_guard_updates_its_windows_from_open_and_close_events_of_the_stream(
    lockbox: SmallLockbox, guard: Guard
) -> None:
    assert reason(guard, engineer=ERIN) == "no_window"
    request = lockbox.open(window())
    wait_until(guard, None, engineer=ERIN)
    lockbox.open(window(request, resources=["mailbox:bob@contoso.example"]))
    wait_until(guard, "no_window", engineer=ERIN)
    lockbox.open(window(request))
    wait_until(guard, None, engineer=ERIN)

    lockbox.shut(request)

    wait_until(guard, "no_window", engineer=ERIN)


@pytest.mark.far
def test_the_guard_ends_a_window_by_the_databases_clock(
    lockbox: SmallLockbox, guard: Guard, clock: MovedSeconds
) -> None:
    lockbox.ahead = 600
    lockbox.open(window(seconds=660))
    assert reason(guard, engineer=ERIN) is None

    clock.ahead = 30
    assert reason(guard, engineer=ERIN) is None
    clock.ahead = 60

    assert reason(guard, engineer=ERIN) == "no_window"


def test_the_guard_identifies_a_token_once_until_lockbox_sends_a_forget_event(
    lockbox: SmallLockbox, guard: Guard
) -> None:
    lockbox.open(window())
    token = lockbox.knows("erin's")
    for _ in range(3):
        guard.check(**USE, token=token)
    assert [path for path, _, _ in lockbox.asked] == [f"/gate/v1/{SERVICE}/engineer"]
    lockbox.engineers[f"Bearer {token}"] = {"reason": "unknown_engineer"}

    lockbox.send("forget", {})

    wait_until(guard, "unknown_engineer", token=token)


@pytest.mark.far
def test_the_guard_remembers_a_token_no_longer_than_lockbox_allows(
    lockbox: SmallLockbox, guard: Guard, clock: MovedSeconds
) -> None:
    lockbox.open(window())
    token = lockbox.knows("short", seconds=60)
    assert reason(guard, token=token) is None
    lockbox.engineers.clear()

    clock.ahead = 30
    assert reason(guard, token=token) is None
    clock.ahead = 60

    assert reason(guard, token=token) == "bad_token"


@pytest.mark.far
def test_the_guard_asks_lockbox_before_refusing_and_remembers_the_refusal_for_a_second(
    lockbox: SmallLockbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, clock = lockbox.knows("erin's"), GuardSeconds(100)
    with guard_of(lockbox, monkeypatch, clock=clock) as guard:
        with pytest.raises(Refused) as refused:
            guard.check(**USE, token=token)
        assert refused.value.form == "https://lockbox.example/ask?tenant=contoso"
        asked = len(lockbox.asked)
        for _ in range(50):
            assert reason(guard, token=token) == "no_window"
        assert len(lockbox.asked) == asked
        path, about, headers = lockbox.asked[-1]
        assert path == f"/gate/v1/{SERVICE}/check"
        assert about == {name: [value] for name, value in USE.items()}
        assert (headers["lockbox-gateway"], headers["authorization"]) == (TOKEN, "Bearer erin's")

        said = lockbox.says_yes("Bearer erin's")

        clock.now += 0.9
        assert reason(guard, token=token) == "no_window"
        clock.now += 0.1
        assert str(guard.check(**USE, token=token).request) == said["request"]


def test_an_allow_from_lockbox_to_the_guard_applies_to_one_call_only(lockbox: SmallLockbox, guard: Guard) -> None:
    token = lockbox.knows("erin's")
    lockbox.says_yes("Bearer erin's")
    guard.check(**USE, token=token)
    checks = [path for path, _, _ in lockbox.asked if path.endswith("/check")]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: guard.check(**USE, token=token), range(8)))

    assert all(isinstance(one, Allowed) for one in found)
    assert len([path for path, _, _ in lockbox.asked if path.endswith("/check")]) == len(checks) + 8


@pytest.mark.parametrize("about", ["tenant", "resource", "action", "service", "decision"])
def test_the_guard_treats_an_allow_about_another_resource_as_a_refusal(
    lockbox: SmallLockbox, guard: Guard, about: str
) -> None:
    token = lockbox.knows("erin's")
    lockbox.says_yes("Bearer erin's", **{about: "another"})

    assert reason(guard, token=token) == "behind"


@pytest.mark.parametrize("how", ["broken", "welcome page", "elsewhere", "hang up"])
def test_the_guard_treats_any_unclear_answer_as_a_refusal(lockbox: SmallLockbox, guard: Guard, how: str) -> None:
    lockbox.open(window())
    lockbox.how = how

    assert reason(guard, token="t") == "behind"


@pytest.mark.far
@pytest.mark.parametrize("how", ["late", "drip"])
def test_the_guard_treats_an_answer_slower_than_two_seconds_as_a_refusal(
    lockbox: SmallLockbox, guard: Guard, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ASK_SECONDS", ASK_SECONDS)
    wait_until(guard, "no_window", engineer=ERIN)
    lockbox.how = how
    began = time.monotonic()

    assert reason(guard, token="t") == "behind"
    assert 1.9 < time.monotonic() - began < PATIENCE


def test_the_guard_lets_a_caller_who_is_not_gated_pass_without_a_window(lockbox: SmallLockbox, guard: Guard) -> None:
    token = lockbox.knows("customer's")
    said = lockbox.engineers["Bearer customer's"]
    del said["engineer"]
    said["not_applicable"] = True

    allowed = guard.check(**USE, token=token)

    assert not allowed.is_gated
    assert guard.watch(allowed).may_go_on()


def test_the_guard_sends_a_subject_in_the_header_named_by_the_catalogue(lockbox: SmallLockbox, guard: Guard) -> None:
    lockbox.open(window())
    lockbox.knows("")
    lockbox.engineers["erin"] = lockbox.engineers["Bearer "]

    assert reason(guard, subject="erin") is None
    assert "authorization" not in lockbox.asked[-1][2]


@pytest.mark.parametrize("shown", ["a\r\nLockbox-Gateway: x", "é", " a", "", "a" * 9000])
def test_the_guard_does_not_send_lockbox_a_token_that_no_header_can_contain(
    lockbox: SmallLockbox, guard: Guard, shown: str
) -> None:
    assert reason(guard, token=shown) in {"malformed", "no_token"}
    assert lockbox.asked == []


@pytest.mark.far
def test_without_heartbeats_the_guard_refuses_everything_within_three_seconds(
    lockbox: SmallLockbox, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    lockbox.open(window())
    wait_until(guard, None, engineer=ERIN)
    monkeypatch.setattr(database_clock, "QUIET_SECONDS", QUIET_SECONDS)

    lockbox.is_fresh = False

    wait_until(guard, "behind", engineer=ERIN)
    lockbox.is_fresh = True
    wait_until(guard, None, engineer=ERIN)


@pytest.mark.far
def test_without_lockbox_the_guard_refuses_and_later_recovers(
    lockbox: SmallLockbox, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_guard, "START_SECONDS", START_SECONDS)
    lockbox.refuse_stream = 503
    began = time.monotonic()
    assert reason(guard, engineer=ERIN) == "behind"
    assert 1.9 < time.monotonic() - began < PATIENCE
    lockbox.refuse_stream = None
    lockbox.open(window())

    wait_until(guard, None, engineer=ERIN)


def test_the_guard_reconnects_a_broken_stream_and_drops_closed_windows(lockbox: SmallLockbox, guard: Guard) -> None:
    request = lockbox.open(window())
    wait_until(guard, None, engineer=ERIN)
    lockbox.windows.pop(str(request))

    lockbox.cut()

    wait_until(guard, "no_window", engineer=ERIN)
    assert lockbox.began[-1]["last-event-id"].startswith("g1-")


def test_large_snapshots_reach_the_guard_in_parts_and_replace_its_memory_as_a_whole(
    lockbox: SmallLockbox, guard: Guard
) -> None:
    lockbox.part = 10
    for number in range(95):
        lockbox.open(window(resources=[f"mailbox:{number}@contoso.example"]))

    for number in range(95):
        guard.check(**USE | {"resource": f"mailbox:{number}@contoso.example"}, engineer=ERIN)


def test_an_unreadable_stream_event_clears_the_guards_memory(lockbox: SmallLockbox, guard: Guard) -> None:
    lockbox.open(window())
    wait_until(guard, None, engineer=ERIN)
    lockbox.refuse_stream = 503

    lockbox.send("open", {"request": "none"})

    wait_until(guard, "behind", engineer=ERIN)


def test_an_event_of_another_api_process_clears_the_guards_memory_until_the_next_snapshot(
    lockbox: SmallLockbox, guard: Guard
) -> None:
    lockbox.open(window())
    wait_until(guard, None, engineer=ERIN)
    lockbox.refuse_stream = 503

    lockbox.generation = "g2"

    wait_until(guard, "behind", engineer=ERIN)


def test_many_threads_and_event_loops_share_one_guard_stream(lockbox: SmallLockbox, guard: Guard) -> None:
    lockbox.open(window())
    token = lockbox.knows("erin's")

    async def in_a_loop() -> list[Allowed]:
        return await asyncio.gather(*(guard.check_async(**USE, token=token) for _ in range(20)))

    with ThreadPoolExecutor(8) as threads:
        in_threads = list(threads.map(lambda _: guard.check(**USE, token=token), range(50)))
    in_loops = asyncio.run(in_a_loop()) + asyncio.run(in_a_loop())

    assert len({one.request for one in in_threads + in_loops}) == 1
    assert len(lockbox.began) == 1


@pytest.mark.far
def test_the_event_loop_continues_while_the_guard_asks_lockbox(
    lockbox: SmallLockbox, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ASK_SECONDS", ASK_SECONDS)
    wait_until(guard, "no_window", engineer=ERIN)
    lockbox.how = "late"

    async def ticks() -> int:
        asked = asyncio.create_task(guard.check_async(**USE, token="t"))
        count = 0
        while not asked.done():
            await asyncio.sleep(0.01)
            count += 1
        with pytest.raises(Refused):
            await asked
        return count

    assert asyncio.run(ticks()) > 5


@pytest.mark.far
def test_the_guard_limits_concurrent_questions_to_lockbox(
    lockbox: SmallLockbox, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ASK_SECONDS", 4.0)
    wait_until(guard, "no_window", engineer=ERIN)
    lockbox.how = "late"

    with ThreadPoolExecutor(90) as threads:
        found = list(threads.map(lambda number: reason(guard, token=f"t{number}"), range(90)))

    assert set(found) == {"busy", "behind"}


def test_a_stopped_guard_can_be_started_again(lockbox: SmallLockbox, guard: Guard) -> None:
    lockbox.open(window())
    assert reason(guard, engineer=ERIN) is None

    guard.stop()

    assert "lockbox-guard" not in {one.name for one in threading.enumerate()}
    assert reason(guard, engineer=ERIN) is None


@pytest.mark.far
def test_the_guard_uses_a_new_token_written_to_its_file(lockbox: SmallLockbox, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    guard = Guard(lockbox.url, service=SERVICE, token_file=file)
    assert reason(guard, engineer=ERIN) == "behind"

    file.write_text(f"{TOKEN}\n")

    wait_until(guard, "no_window", engineer=ERIN)
    guard.stop()


@pytest.mark.parametrize(
    "url", ["http://lockbox.example", "ftp://127.0.0.1", "lockbox", "https://u:p@lockbox.example", "http://10.0.0.1"]
)
def test_the_guard_accepts_only_tls_or_loopback_addresses_of_lockbox(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKBOX_GUARD_TOKEN", TOKEN)

    with pytest.raises(ValueError, match="give the address of Lockbox"):
        Guard(url, service=SERVICE)


@pytest.mark.far
def test_the_guard_logs_no_secret(
    lockbox: SmallLockbox, guard: Guard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_guard, "START_SECONDS", START_SECONDS)
    caplog.set_level(logging.DEBUG, "lockbox_guard")
    lockbox.refuse_stream = 401
    reason(guard, token="secret-of-erin")
    reason(guard, token="secret-of-erin")

    wait_for("the guard logs the trouble", lambda: "the stream broke" in caplog.text, PATIENCE)
    assert "secret-of-erin" not in caplog.text + repr(guard)
    assert TOKEN not in caplog.text + repr(guard)


@pytest.mark.far
def test_the_guard_lets_a_call_continue_until_its_window_ends(lockbox: SmallLockbox, guard: Guard) -> None:
    request = lockbox.open(window())
    watch = guard.watch(guard.check(**USE, engineer=ERIN))
    assert watch.may_go_on()

    lockbox.shut(request)

    wait_until(guard, "no_window", engineer=ERIN)
    began = time.monotonic()
    while watch.may_go_on():
        time.sleep(0.02)
    assert time.monotonic() - began < PATIENCE


@pytest.mark.far
def test_the_guard_lets_a_call_continue_while_its_window_is_verified(
    lockbox: SmallLockbox, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "GONE_SECONDS", PATIENCE)
    again = window()
    request = lockbox.open(again)
    watch = guard.watch(guard.check(**USE, engineer=ERIN))
    assert watch.may_go_on()
    lockbox.shut(request)
    wait_for("the call waits", lambda: watch.look() is CallStanding.WAITS, PATIENCE)

    lockbox.open(again)

    wait_for("the call goes on", lambda: watch.look() is CallStanding.GOES_ON, PATIENCE)
    monkeypatch.setattr(watches, "GONE_SECONDS", 0.0)
    assert watch.may_go_on()


def test_the_guard_ends_a_call_at_once_when_its_window_is_narrowed(lockbox: SmallLockbox, guard: Guard) -> None:
    request = lockbox.open(window())
    watch = guard.watch(guard.check(**USE, engineer=ERIN))

    lockbox.open(window(request, actions=["export"]))

    wait_until(guard, "no_window", engineer=ERIN)
    assert not watch.may_go_on()


@pytest.mark.far
def test_the_guard_lets_a_call_drain_for_a_bounded_time(lockbox: SmallLockbox, guard: Guard) -> None:
    request = lockbox.open(window())
    watch = guard.watch(guard.check(**USE, engineer=ERIN), drain_seconds=1)
    lockbox.open(window(request, actions=["export"]))
    wait_until(guard, "no_window", engineer=ERIN)
    began = time.monotonic()
    assert watch.may_go_on()

    while watch.may_go_on():
        time.sleep(0.02)

    assert 0.9 < time.monotonic() - began < PATIENCE
    with pytest.raises(ValueError, match="0 to 300 seconds"):
        guard.watch(guard.check(**USE | {"action": "export"}, engineer=ERIN), drain_seconds=301)


@pytest.mark.far
def test_the_guard_ends_a_call_after_three_seconds_if_the_stream_never_shows_its_window(
    lockbox: SmallLockbox, guard: Guard
) -> None:
    token = lockbox.knows("erin's")
    lockbox.says_yes("Bearer erin's")
    began = time.monotonic()
    watch = guard.watch(guard.check(**USE, token=token))

    while watch.may_go_on():
        time.sleep(0.02)

    assert 2.8 < time.monotonic() - began < PATIENCE
