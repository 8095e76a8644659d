"""Chaos runs: the seed determines the plan, no target has two faults at once, and every fault is used."""

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from uuid import UUID

import pytest

from chaos import cards, enough, plan, sometimes
from chaos.cards import CLOSE, DECK, FURTHER, PLAIN
from chaos.celery_messages import MessageFate, MessageLog, written
from chaos.crew import SHIFTED
from chaos.gate_judge import HANDED_OVER, YES_SAID
from chaos.invariants import late_and_counted
from chaos.journal import AttemptedAct, ClosedAnswer, Journal, OpenAnswer, Sight
from chaos.plan import KINDS, Fault
from chaos.strikes import STRIKES
from harness.network import EventLoopThread, Proxy, ProxyMode
from tests.each import each

SEEDS = range(1, 21)
SECONDS = 40


def all_faults() -> list[Fault]:
    return [fault for seed in SEEDS for fault in plan.make(seed, SECONDS).faults]


def test_equal_chaos_seeds_make_equal_plans_and_different_seeds_do_not() -> None:
    assert plan.make(7, SECONDS) == plan.make(7, SECONDS)
    assert len({plan.make(seed, SECONDS).faults for seed in SEEDS}) == len(SEEDS)


def test_the_chaos_plans_of_twenty_seeds_use_every_fault_at_each_of_its_targets() -> None:
    wanted = {(kind.name, target) for kind in KINDS for target in kind.targets}

    assert {(fault.kind, fault.target) for fault in all_faults()} == wanted


def test_the_chaos_plans_of_twenty_seeds_set_each_core_workers_clock_back_and_forward() -> None:
    plans = [plan.make(seed, SECONDS) for seed in SEEDS]

    assert {(one.shifted, one.shift) for one in plans} == {
        (worker, shift) for worker in plan.CORE for shift in (-300, 300)
    }


def test_every_kind_of_chaos_fault_is_implemented_and_planned() -> None:
    assert {kind.name for kind in KINDS} == set(STRIKES)


@each("seed", SEEDS)
def test_no_chaos_target_has_two_faults_at_once_or_a_fault_after_the_end(seed: int) -> None:
    faults = plan.make(seed, SECONDS).faults

    assert list(faults) == sorted(faults, key=lambda one: one.at)
    assert all(0 < fault.at <= fault.ends <= SECONDS for fault in faults)
    for first, second in itertools.combinations(faults, 2):
        assert first.target != second.target or first.ends < second.at


def test_a_longer_chaos_plan_begins_like_a_shorter_plan() -> None:
    short, long = plan.make(5, 20).faults, plan.make(5, 60).faults

    assert [(one.at, one.kind, one.target) for one in short] == [
        (one.at, one.kind, one.target) for one in long[: len(short)]
    ]


def test_a_chaos_plan_is_printed_readably() -> None:
    lines = list(plan.make(5, 20).lines())

    assert lines[0] == f"seed 5, 20 s of load, {len(lines) - 2} faults"
    assert lines[1].endswith("s off all along")


ROUND = len(DECK)


def dealt(seed: int, stories: int) -> list[cards.Card]:
    return [cards.dealt(seed, number) for number in range(stories)]


def test_equal_chaos_seeds_choose_equal_stories_and_different_seeds_do_not() -> None:
    assert dealt(7, ROUND) == dealt(7, ROUND)
    assert len({tuple(dealt(seed, ROUND)) for seed in range(20)}) == 20


def test_each_chaos_story_is_chosen_once_before_any_story_repeats() -> None:
    stories = dealt(3, 3 * ROUND)

    for start in range(0, len(stories), ROUND):
        assert Counter(stories[start : start + ROUND]) == Counter(DECK)


@each("seed", range(20))
def test_in_each_minute_of_chaos_a_third_of_the_stories_end_near_a_deadline_or_another_act(seed: int) -> None:
    stories = [story.ending in CLOSE for story in dealt(seed, 5 * ROUND)]

    assert all(sum(stories[start : start + 60]) >= 20 for start in range(len(stories) - 60))


def test_no_ending_of_a_chaos_story_is_in_two_categories() -> None:
    assert len({*CLOSE, *PLAIN, *FURTHER}) == len(CLOSE) + len(PLAIN) + len(FURTHER)


PATIENCE = 10.0
MESSAGE = json.dumps({"body": "b", "properties": {"delivery_tag": "first"}}).encode()


@pytest.fixture
def loop() -> Iterator[EventLoopThread]:
    found = EventLoopThread()
    yield found
    found.close()


@contextmanager
def echo() -> Iterator[int]:
    """A server that echoes everything; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(line: socket.socket) -> None:
        with line:
            while data := _received(line):
                line.sendall(data)

    def accept() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(line,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(PATIENCE)


def _received(line: socket.socket) -> bytes:
    try:
        return line.recv(100)
    except OSError:
        return b""


@pytest.fixture
def proxy(loop: EventLoopThread) -> Iterator[Proxy]:
    with echo() as port:
        found = Proxy(port)
        loop.do(found.open())
        yield found
        loop.do(found.leave())


def called(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)


def test_a_chaos_proxy_in_pass_mode_forwards_data_in_both_directions(proxy: Proxy) -> None:
    with called(proxy) as line:
        line.sendall(b"hello")

        assert line.recv(100) == b"hello"


def test_a_chaos_proxy_in_refuse_mode_resets_and_refuses_connections_until_the_mode_changes(
    loop: EventLoopThread, proxy: Proxy
) -> None:
    with called(proxy) as line:
        line.sendall(b"hello")
        assert line.recv(100) == b"hello"

        loop.do(proxy.turn(ProxyMode.REFUSE))

        with pytest.raises(ConnectionResetError):
            line.recv(100)
        with pytest.raises(ConnectionRefusedError):
            called(proxy)
    loop.do(proxy.turn(ProxyMode.PASS))
    with called(proxy) as line:
        line.sendall(b"again")
        assert line.recv(100) == b"again"


@pytest.mark.far
def test_a_black_hole_proxy_accepts_connections_and_stays_silent_until_its_end(
    loop: EventLoopThread, proxy: Proxy
) -> None:
    with called(proxy) as old:
        old.sendall(b"hello")
        assert old.recv(100) == b"hello"
        loop.do(proxy.turn(ProxyMode.BLACK_HOLE))
        with called(proxy) as new:
            for line in (old, new):
                line.settimeout(0.2)
                line.sendall(b"lost?")
                with pytest.raises(TimeoutError):
                    line.recv(100)

            loop.do(proxy.turn(ProxyMode.PASS))

            for line in (old, new):
                line.settimeout(PATIENCE)
                assert line.recv(100) == b"lost?"


def test_after_the_chaos_proxy_cuts_open_connections_it_accepts_new_connections(
    loop: EventLoopThread, proxy: Proxy
) -> None:
    with called(proxy) as old:
        old.sendall(b"hello")
        assert old.recv(100) == b"hello"

        loop.do(proxy.cut())

        with pytest.raises(ConnectionResetError):
            old.recv(100)
    with called(proxy) as new:
        new.sendall(b"hello")
        assert new.recv(100) == b"hello"


def test_a_chaos_proxy_in_slow_mode_delays_data(loop: EventLoopThread, proxy: Proxy) -> None:
    loop.do(proxy.turn(ProxyMode.SLOW))
    with called(proxy) as line:
        began = time.monotonic()
        line.sendall(b"hello")

        assert line.recv(100) == b"hello"
        assert time.monotonic() - began > 0.1


def commands(data: bytes) -> list[list[bytes]]:
    """Return the Redis commands in the data, which has the one form that this test writes."""
    return [re.findall(rb"\$\d+\r\n(.*?)\r\n", part, re.DOTALL) for part in re.split(rb"\*\d+\r\n", data)[1:]]


def test_commands_pass_the_chaos_proxy_unchanged_however_they_are_split() -> None:
    data = written([b"SET", b"key", b"a\r\nb"]) + written([b"LPUSH", b"core", MESSAGE]) + written([b"PING"])
    line, _ = MessageLog().line()

    passed = b"".join(line(data[at : at + 3]) for at in range(0, len(data), 3))

    assert passed == data


def test_a_message_tripled_by_the_chaos_proxy_is_delivered_three_times() -> None:
    messages = MessageLog()
    messages.fate = MessageFate.TRIPLE

    (command,) = commands(messages.line()[0](written([b"LPUSH", b"notify", MESSAGE])))

    deliveries = [json.loads(word) for word in command[2:]]
    assert command[:2] == [b"LPUSH", b"notify"]
    assert {delivery["body"] for delivery in deliveries} == {"b"}
    assert len({delivery["properties"]["delivery_tag"] for delivery in deliveries}) == 3


@pytest.mark.parametrize("fate", [MessageFate.HOLD, MessageFate.LOSE])
def test_the_chaos_proxy_moves_delayed_or_lost_messages_to_a_queue_that_no_worker_reads(fate: MessageFate) -> None:
    messages = MessageLog()
    messages.fate = fate
    line, _ = messages.line()

    (held,) = commands(line(written([b"LPUSH", b"core", MESSAGE])))
    (other,) = commands(line(written([b"LPUSH", b"unknown", MESSAGE])))

    assert held == [b"LPUSH", f"chaos:{fate}:core".encode(), MESSAGE]
    assert other[1] == b"unknown"


def test_the_chaos_run_notices_secrets_sent_to_redis_except_its_own_passwords() -> None:
    messages = MessageLog()
    messages.forbid(["anna@contoso.example"])
    line, _ = messages.line()

    line(written([b"AUTH", b"anna@contoso.example"]))
    assert messages.leaks == []

    line(written([b"SET", b"k", b"to anna@contoso.example"]))
    assert messages.leaks == ["SET"]


@pytest.mark.far
@pytest.mark.parametrize("shift", [-300, 300])
def test_a_chaos_process_with_a_shifted_clock_runs_with_that_shift(shift: int) -> None:
    script = """
import time, datetime
from sqlmodel import SQLModel
now = datetime.datetime.now(datetime.UTC)
assert isinstance(now, datetime.datetime) and type(now) is type(datetime.datetime(2026, 1, 1))
print(time.time(), time.time_ns() / 1e9, now.timestamp(), datetime.datetime.now().timestamp())
"""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SHIFTED), "CHAOS_SHIFT": str(shift)}

    before = time.time()
    told = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    after = time.time()

    assert all(before + shift <= float(one) <= after + shift for one in told.stdout.split())


END = 1000.0
ONE = UUID(int=1)
DOOR = "mailbox:a"


def act(action: str, sent: float = END, *, who: str = "ann", status: int = 200, late: bool = False) -> AttemptedAct:
    return AttemptedAct(ONE, action, who, status, sent, sent + 0.01, END, late)


def lost(action: str, sent: float = END) -> AttemptedAct:
    return act(action, sent, status=409, late=True)


def happened(
    *acts: AttemptedAct, opened: tuple[OpenAnswer, ...] = (), closed: tuple[ClosedAnswer, ...] = ()
) -> dict[str, int]:
    journal = Journal(acts=list(acts), opened=list(opened), closed=list(closed))
    return {name: count for name, count in sometimes.counted(journal, {ONE: END}).items() if count}


CASES = {
    **{
        f"{action} in the last 100 ms counted": (act(action, END - 0.09),)
        for action in ("approve", "endorse", "deny", "cancel")
    },
    **{f"late {action} lost": (lost(action, END + 0.09),) for action in ("approve", "endorse", "deny", "cancel")},
    **{f"{action} beat expire": (act(action, END - 0.05),) for action in ("revoke", "complete")},
    **{f"{action} met expire": (lost(action),) for action in ("revoke", "complete")},
    **{
        f"{one} and {other} met, one counted": (act(other, END - 3, status=409), act(one, END - 3.05))
        for one, other in (
            ("approve", "deny"),
            ("approve", "cancel"),
            ("cancel", "deny"),
            ("cancel", "endorse"),
            ("complete", "revoke"),
        )
    },
    "two yeses met, both counted": (act("approve", END - 3), act("approve", END - 3, who="amir")),
    "one yes sent twice, counted once": (act("approve", END - 3), act("approve", END - 3, status=409)),
    "filings by one key met, one request": (act("submit", END - 3, status=201), act("submit", END - 3)),
}
OPEN = OpenAnswer(DOOR, ONE, END - 0.09, END - 0.08)


@each("name", CASES)
def test_the_example_of_each_chaos_situation_counts_as_that_situation_only(name: str) -> None:
    assert happened(*CASES[name]) == {name: 1}


def test_every_situation_that_chaos_must_produce_has_a_test_example() -> None:
    assert {*CASES, *sometimes.CHECKS} == {*sometimes.NAMES}
    assert len(sometimes.NAMES) >= 20


def test_the_chaos_run_counts_windows_that_begin_later_and_extensions_seen_at_the_gate() -> None:
    journal = Journal(seen=Counter({Sight.LATER: 2}))

    seen = sometimes.further(journal, {("gate", HANDED_OVER): 3, ("gate", YES_SAID): 9})

    assert seen.keys() == {*sometimes.FURTHER}
    assert {name: count for name, count in seen.items() if count} == {
        "access approved that begins later": 2,
        "gate: as one window follows another": 3,
    }


@each("name", CASES)
def test_the_chaos_run_does_not_count_acts_far_apart_as_close(name: str) -> None:
    apart = [replace(one, sent=END - 9 * place, answered=END - 9 * place) for place, one in enumerate(CASES[name], 1)]

    assert happened(*apart) == {}


def test_the_chaos_run_counts_access_that_stayed_open_to_its_deadline_and_was_then_closed() -> None:
    behind = ClosedAnswer(DOOR, END + 0.09, END + 0.1)

    assert happened(opened=(OPEN,), closed=(behind,)) == dict.fromkeys(sometimes.CHECKS[:2], 1)


def test_the_chaos_run_counts_access_that_was_closed_after_a_revoke() -> None:
    revoked = act("revoke", END - 3)
    early = replace(OPEN, sent=END - 3.1, answered=END - 3.05)

    assert happened(revoked, opened=(early,), closed=(ClosedAnswer(DOOR, END - 2.95, END - 2.9),)) == {
        sometimes.CHECKS[2]: 1
    }


def test_chaos_does_not_count_a_409_refusal_as_late_unless_lateness_was_the_reason() -> None:
    assert happened(act("approve", status=409)) == {}


def test_a_chaos_story_counts_as_close_if_an_act_is_near_another_act_or_a_deadline() -> None:
    def story(number: int, *acts: AttemptedAct) -> list[AttemptedAct]:
        return [replace(one, request_id=UUID(int=number)) for one in (act("submit", END - 4, status=201), *acts)]

    far = [story(number, act("approve", END - 3)) for number in range(3, 9)]
    at_the_end = story(10, act("cancel"))
    together = story(11, act("approve", END - 3), act("deny", END - 3))
    nobody_could = [story(12), story(13, act("approve", status=0))]

    assert sometimes.close(chain(*far, at_the_end, together, *nobody_could)) == (2, 8)


def test_a_chaos_run_fails_if_under_a_third_of_20_stories_act_near_a_deadline_or_another_act() -> None:
    assert list(enough.too_far(7, 21)) == []
    assert list(enough.too_far(6, 21)) == ["only 6 of 21 stories acted within 100 ms of a deadline or of each other"]
    assert list(enough.too_far(0, 19)) == []


def test_the_chaos_run_detects_an_approval_that_counted_although_late() -> None:
    acts = [act("approve", END - 0.001), act("deny", END + 1), lost("approve", END + 1), act("approve", END + 0.25)]

    assert list(late_and_counted(Journal(acts=acts))) == [
        f"approve of {ONE} counted, sent 0.250 s after its deadline"
    ]
