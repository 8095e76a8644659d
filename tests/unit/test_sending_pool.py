"""Sending pools: a hanging destination delays no other, unsent jobs are returned, and everything ends."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from lockbox.notifications import sending_pool
from lockbox.notifications.circuit_breaker import FIRST_OPEN, NotSent, PeerResponse, domain_of, host_of
from lockbox.notifications.sending_pool import (
    FORGOTTEN_SECONDS,
    LONGEST_IN_QUEUE,
    MOST_UNRECORDED,
    WITHDRAWN_WAIT,
    ChannelPool,
    SendingLoop,
    SendingPool,
)

PATIENCE = 10.0


class HandClock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class HangingJob:
    """A send that hangs until it is let go, and notes what became of it."""

    said: PeerResponse = PeerResponse.ANSWER
    let_go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    returned: list[tuple[NotSent, float]] = field(default_factory=list)
    company: int = 0
    is_unrecorded: bool = False
    recorded: Callable[[], None] = lambda: None
    rested: threading.Event = field(default_factory=threading.Event)

    async def run(self) -> PeerResponse:
        """Wait to be let go."""
        self.begun.set()
        while not self.let_go.is_set():  # noqa: ASYNC110 - a test sets it from its own thread
            await asyncio.sleep(0.002)
        return self.said

    def finish(self, recorded: Callable[[], None]) -> None:
        """Note that the send is over, and confirm the record of it unless the test does that."""
        self.recorded = recorded
        if not self.is_unrecorded:
            recorded()
        self.over.set()

    def give_back(self, why: NotSent, seconds: float, others: "Sequence[HangingJob]" = ()) -> None:
        for one in (self, *others):
            one.returned.append((why, seconds))
            one.company = len(others)

    async def rest(self) -> None:
        self.rested.set()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def way(clock: HandClock) -> Iterator[ChannelPool]:
    way = ChannelPool("webhook", 8, clock)
    yield way
    way.stop(PATIENCE)


def quick(said: PeerResponse = PeerResponse.ANSWER) -> HangingJob:
    job = HangingJob(said)
    job.let_go.set()
    return job


def send(way: ChannelPool, destination: str, job: HangingJob) -> HangingJob:
    """Send a job to a destination that has room."""
    assert way.enter(destination) == 0.0
    way.send(destination, job)
    return job


def wait(true: Callable[[], object]) -> bool:
    until = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < until:
        time.sleep(0.002)
    return bool(true())


def prove(way: ChannelPool, destination: str) -> None:
    assert send(way, destination, quick()).over.wait(PATIENCE)


def test_urgent_sends_go_before_waiting_sends(way: ChannelPool) -> None:
    prove(way, "slow:443")
    hanging = [send(way, "slow:443", HangingJob()) for _ in range(4)]
    assert wait(lambda: all(one.begun.is_set() for one in hanging))
    waiting = [send(way, "slow:443", HangingJob()) for _ in range(3)]
    first, second = HangingJob(), HangingJob()

    for urgent in (first, second):
        assert way.enter("slow:443", urgent=True) == 0.0
        way.send("slow:443", urgent, urgent=True)
    hanging[0].let_go.set()
    came_first = first.begun.wait(PATIENCE)
    hanging[1].let_go.set()
    came_second = second.begun.wait(PATIENCE)
    others = [one for one in waiting if one.begun.is_set()]
    for one in (*hanging, *waiting, first, second):
        one.let_go.set()

    assert (came_first, came_second, others) == (True, True, [])


def test_a_destination_runs_at_most_four_sends_and_delays_no_other_destination(way: ChannelPool) -> None:
    hanging = [send(way, "slow:443", HangingJob()) for _ in range(6)]

    good = send(way, "good:443", quick())

    assert good.over.wait(PATIENCE)
    assert wait(lambda: sum(one.begun.is_set() for one in hanging) == 4)
    hanging[0].let_go.set()
    assert wait(lambda: sum(one.begun.is_set() for one in hanging) == 5)
    for one in hanging:
        one.let_go.set()
    assert all(one.over.wait(PATIENCE) for one in hanging)


def test_destinations_known_to_work_continue_while_others_hang(way: ChannelPool) -> None:
    prove(way, "good:443")
    hanging = [send(way, f"slow-{number}:443", HangingJob()) for number in range(5) for _ in range(4)]
    assert wait(lambda: sum(one.begun.is_set() for one in hanging) == 6)

    assert send(way, "good:443", quick()).over.wait(PATIENCE)

    assert sum(one.begun.is_set() for one in hanging) == 6
    for one in hanging:
        one.let_go.set()
    assert all(one.over.wait(PATIENCE) for one in hanging)


def test_destinations_with_waiting_sends_take_turns(way: ChannelPool) -> None:
    order: list[str] = []
    blocking = [send(way, f"slow-{number}:443", HangingJob()) for number in (1, 2) for _ in range(4)]
    assert wait(lambda: sum(one.begun.is_set() for one in blocking) == 6)

    class RecordingJob(HangingJob):
        async def run(self) -> PeerResponse:
            order.append(self.destination)
            return PeerResponse.ANSWER

        destination = ""

    jobs = []
    for destination in ("many:1", "many:1", "many:1", "few:1"):
        job = RecordingJob()
        job.destination = destination
        jobs.append(send(way, destination, job))
    for one in blocking:
        one.let_go.set()

    assert all(one.over.wait(PATIENCE) for one in jobs)
    assert order.index("few:1") < 3


def test_a_circuit_breaker_that_opens_returns_all_sends_that_have_not_begun(
    way: ChannelPool, clock: HandClock
) -> None:
    trying = [send(way, "dead:443", HangingJob(PeerResponse.SILENCE)) for _ in range(4)]
    assert wait(lambda: all(one.begun.is_set() for one in trying))
    waiting = [send(way, "dead:443", HangingJob(PeerResponse.SILENCE)) for _ in range(8)]
    assert way.enter("dead:443") == 0.0

    for one in trying:
        one.let_go.set()
    assert all(one.over.wait(PATIENCE) for one in trying)
    promised = quick()
    way.send("dead:443", promised)

    # The first two of the three silences let the next two begin.
    assert wait(lambda: sum(one.returned == [(NotSent.CIRCUIT_OPEN, FIRST_OPEN)] for one in waiting) >= 5)
    assert promised.returned == [(NotSent.CIRCUIT_OPEN, FIRST_OPEN)]
    assert max(one.company for one in waiting) >= 4, "they came back in one call"
    assert not any(one.begun.is_set() for one in waiting if one.returned)
    assert way.enter("dead:443") >= FIRST_OPEN
    for one in waiting:
        one.let_go.set()
    assert wait(lambda: all(one.returned or one.over.is_set() for one in waiting))
    clock.now += FIRST_OPEN
    prove(way, "dead:443")
    assert way.enter("dead:443") == 0.0


def test_a_send_slot_that_was_not_used_is_free_again(way: ChannelPool) -> None:
    places = 0
    while not way.enter("host:443"):
        places += 1

    way.leave("host:443")

    assert way.enter("host:443") == 0.0
    assert way.enter("host:443") > 0
    for _ in range(places):
        way.leave("host:443")


def test_a_send_that_waits_too_long_in_the_pool_is_returned(way: ChannelPool, clock: HandClock) -> None:
    trying = [send(way, "slow:443", HangingJob()) for _ in range(4)]
    assert wait(lambda: all(one.begun.is_set() for one in trying))
    late = send(way, "slow:443", quick())

    clock.now += LONGEST_IN_QUEUE + 1

    assert wait(lambda: late.returned == [(NotSent.TOO_OLD, 0.0)])
    for one in trying:
        one.let_go.set()
    assert all(one.over.wait(PATIENCE) for one in trying)
    assert not late.begun.is_set()


def test_stopping_the_sending_pool_returns_waiting_sends_and_waits_for_running_sends(way: ChannelPool) -> None:
    running = [send(way, "slow:443", HangingJob()) for _ in range(4)]
    assert wait(lambda: all(one.begun.is_set() for one in running))
    waiting = send(way, "slow:443", quick())
    assert way.enter("other:443") == 0.0

    ended = way.stop(0.05)
    promised = quick()
    way.send("other:443", promised)

    assert not ended
    assert waiting.returned == promised.returned == [(NotSent.STOPPING, 0.0)]
    assert way.enter("slow:443") > 0
    for one in running:
        one.let_go.set()
    assert way.stop(PATIENCE)
    assert all(one.over.is_set() for one in running)


def test_a_withdrawn_send_is_returned_and_running_sends_continue(way: ChannelPool) -> None:
    running = [send(way, "slow:443", HangingJob()) for _ in range(4)]
    assert wait(lambda: all(one.begun.is_set() for one in running))
    mine, another = send(way, "slow:443", quick()), send(way, "slow:443", quick())

    way.withdraw([*running, mine])

    assert mine.returned == [(NotSent.WITHDRAWN, WITHDRAWN_WAIT)]
    for one in running:
        one.let_go.set()
    assert all(one.over.wait(PATIENCE) for one in (*running, another))
    assert not mine.begun.is_set()
    assert not any(one.returned for one in (*running, another))


def test_at_most_fifty_sends_are_running_or_not_yet_recorded(way: ChannelPool) -> None:
    jobs = [quick() for _ in range(MOST_UNRECORDED + 20)]
    for number, job in enumerate(jobs):
        job.is_unrecorded = True
        send(way, f"host-{number}:443", job)

    assert wait(lambda: sum(one.over.is_set() for one in jobs) == MOST_UNRECORDED)
    time.sleep(0.05)
    assert sum(one.begun.is_set() for one in jobs) == MOST_UNRECORDED
    for one in jobs[:5]:
        one.recorded()
    assert wait(lambda: sum(one.over.is_set() for one in jobs) == MOST_UNRECORDED + 5)
    for one in jobs:
        one.is_unrecorded = False
    for one in jobs[5:MOST_UNRECORDED]:
        one.recorded()
    assert all(one.over.wait(PATIENCE) for one in jobs)


def test_the_event_loop_of_the_sending_pool_starts_and_ends_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending_pool, "IDLE_SECONDS", 0.05)
    loop = SendingLoop()
    way = ChannelPool("webhook", 8, loop=loop)
    assert wait(lambda: not loop.is_running)

    for _ in range(2):
        last = send(way, "good:443", quick())
        assert last.rested.wait(PATIENCE)
        assert wait(lambda: not loop.is_running)
    way.stop(PATIENCE)


def test_a_send_arriving_as_the_pools_loop_checks_for_work_is_handled() -> None:
    looks, calls = threading.Event(), threading.Event()

    class CalledLoop(SendingLoop):
        def call(self, work: Callable[[], object]) -> None:
            calls.set()
            super().call(work)

    class WatchedPool(ChannelPool):
        @property
        def is_busy(self) -> bool:
            looks.set()
            calls.wait(PATIENCE)
            return super().is_busy

    way = WatchedPool("webhook", 8, loop=CalledLoop())
    prove(way, "good:443")
    calls.clear()
    looks.clear()
    assert looks.wait(PATIENCE)
    job = quick()

    threading.Thread(target=send, args=(way, "good:443", job), daemon=True).start()

    assert job.over.wait(PATIENCE)


def test_a_send_that_arrives_while_the_pools_loop_closes_connections_runs_in_the_same_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending_pool, "IDLE_SECONDS", 0.05)
    loop = SendingLoop()
    way = ChannelPool("webhook", 8, loop=loop)
    threads: list[threading.Thread] = []

    class LateJob(HangingJob):
        async def rest(self) -> None:
            threads.append(threading.current_thread())
            if len(threads) == 1:
                send(way, "good:443", another)
            await super().rest()

    class WatchingJob(HangingJob):
        async def run(self) -> PeerResponse:
            threads.append(threading.current_thread())
            return PeerResponse.ANSWER

    another, late = WatchingJob(), LateJob()
    late.let_go.set()
    send(way, "good:443", late)

    assert another.over.wait(PATIENCE)
    assert len(threads) == 2
    assert threads[0] is threads[1]
    assert wait(lambda: not loop.is_running)


def test_the_event_loop_of_the_sending_pool_does_not_keep_the_process_alive(way: ChannelPool) -> None:
    hanging = send(way, "slow:443", HangingJob())
    assert hanging.begun.wait(PATIENCE)

    threads = [one for one in threading.enumerate() if one.name == "sending-loop"]

    assert threads
    assert all(thread.daemon for thread in threads)
    hanging.let_go.set()


def test_circuit_breakers_that_are_not_used_are_forgotten(way: ChannelPool, clock: HandClock) -> None:
    for number in range(100):
        prove(way, f"host-{number}:443")
    used = send(way, "slow:443", HangingJob())

    clock.now += FORGOTTEN_SECONDS + 1
    prove(way, "new:443")

    assert way.remembered == 2
    used.let_go.set()


def test_mails_and_webhooks_share_no_send_slots() -> None:
    sending_pool = SendingPool(mails_at_once=2, hooks_at_once=2)
    hanging = [send(sending_pool.hooks, f"slow-{number}:443", HangingJob()) for number in range(4)]

    assert send(sending_pool.mail, "contoso.example", quick()).over.wait(PATIENCE)

    for one in hanging:
        one.let_go.set()
    assert sending_pool.stop(PATIENCE)


@pytest.mark.parametrize(
    ("url", "destination"),
    [
        ("https://Hooks.Example/a?b", "hooks.example:443"),
        ("https://hooks.example:8443/", "hooks.example:8443"),
        ("http://127.0.0.1/", "127.0.0.1:80"),
        ("https://[2606:4700::1]:8443/", "2606:4700::1:8443"),
        ("https://hooks.example:99999/", ":0"),
    ],
)
def test_webhooks_share_a_circuit_breaker_by_host_and_port(url: str, destination: str) -> None:
    assert host_of(url) == destination


def test_mails_share_a_circuit_breaker_by_domain() -> None:
    assert domain_of("Ann@Contoso.Example") == "contoso.example"
    assert domain_of("") == ""
