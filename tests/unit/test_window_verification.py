"""Messages and reads in every order: memory has each open window, announces it once, and has no ended one."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement
from uuid import UUID

import pytest

from gate import window_verification
from gate.window_memory import BOOT_CLOCK, FRESH_SECONDS, ChangeKind, MemoryChange, WindowMemory
from gate.window_verification import ChangeBatch, WindowChange, WindowVerification
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.lifecycle import HeldBack
from lockbox.requests.models import RequestEntry
from tests.unit.gate_examples import open_window

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
WINDOW = open_window(1, "files")
ID = WINDOW.request.id
OF_TENANT = WindowChange(None, False, WINDOW.request.tenant_id, None)
READS = 2
MOMENTS = 6


class ScriptedRows:
    """Committed rows of Postgres, and reads in the middle of which something else happens."""

    def __init__(self) -> None:
        self.moves: list[WindowChange] = []
        self.active: dict[UUID, RequestEntry] = {}
        self.moment: Callable[[], object] = lambda: None

    def commit(self, entry: RequestEntry) -> None:
        self.active[entry.request.id] = entry
        self.moves.append(WindowChange(entry.request.id, False, None, None))

    def end(self, request_id: UUID) -> None:
        del self.active[request_id]
        self.moves.append(WindowChange(request_id, True, None, None))

    def batch(self, earlier: ChangeBatch | None, at: datetime = AT) -> ChangeBatch:
        seen = len(self.moves)
        since = int(earlier.seen.split(":")[1]) if earlier else seen
        return ChangeBatch("a server", f"1:{seen}:", tuple(self.moves[since:]), at)

    def windows(self, ids: Collection[UUID]) -> Sequence[RequestEntry]:
        """Return the active windows of these; other actions may happen before and after."""
        self.moment()
        found = [self.active[one] for one in ids if one in self.active]
        self.moment()
        return found

    def windows_after(self, after: UUID, most: int) -> Sequence[RequestEntry]:
        self.moment()
        found = sorted(
            (one for one in self.active.values() if one.request.id > after), key=lambda one: one.request.id
        )
        self.moment()
        return found[:most]


class Scene:
    """A memory that was loaded when nothing was open, and all that it has announced since."""

    def __init__(self, clock: Callable[[], float] = BOOT_CLOCK) -> None:
        self.rows = ScriptedRows()
        self.memory = WindowMemory(clock)
        self.windows = WindowVerification(self.memory)
        self.told: list[MemoryChange] = []
        self.read()
        self.memory.listen(self.told.extend)

    def read(self, at: datetime = AT) -> None:
        moment, began = self.rows.moment, self.memory.clock()
        moment()
        batch = self.rows.batch(self.windows.last, at)
        moment()
        self.windows.apply(batch)
        self.windows.settle(self.rows, at)
        self.memory.note_read(began, at, self.windows.in_doubt)
        moment()
        self.windows.go_on(self.rows, at)
        moment()

    def settle(self, at: datetime = AT) -> None:
        """Read until nothing waits any more."""
        self.rows.moment = lambda: None
        self.read(at)
        while self.windows.has_more:
            self.read(at)

    @property
    def kinds(self) -> list[ChangeKind]:
        return [one.kind for one in self.told if one.kind is not ChangeKind.HEARTBEAT]


@dataclass
class Happening:
    """Actions, each of which happens at one of the moments of some reads."""

    actions: Sequence[Callable[[], object]]
    places: Sequence[int]
    now: int = -1

    def moment(self) -> None:
        self.now += 1
        for action, place in zip(self.actions, self.places, strict=True):
            if place == self.now:
                action()


def played(actions: Callable[[Scene], Sequence[Callable[[], object]]]) -> Iterator[Scene]:
    """Yield a scene for each way in which the actions, in this order, can fall between the steps of the reads."""
    count = len(actions(Scene()))
    for places in combinations_with_replacement(range(READS * MOMENTS), count):
        scene = Scene()
        happening = Happening(actions(scene), places)
        scene.rows.moment = happening.moment
        for _ in range(READS):
            scene.read()
        while happening.now < READS * MOMENTS:
            happening.moment()
        scene.settle()
        yield scene


def test_an_approved_window_is_announced_once_whatever_the_order_of_messages() -> None:
    def story(scene: Scene) -> Sequence[Callable[[], object]]:
        return [
            lambda: scene.rows.commit(WINDOW),
            lambda: scene.windows.hear([ID]),
            lambda: scene.windows.hear([ID]),
        ]

    for scene in played(story):
        assert scene.memory.has(ID)
        assert scene.kinds == [ChangeKind.OPEN]


def test_an_ended_window_never_returns_to_memory_whatever_the_order_of_messages() -> None:
    def story(scene: Scene) -> Sequence[Callable[[], object]]:
        def heard() -> None:
            scene.windows.hear([ID], end=True)
            assert not scene.memory.has(ID)
            scene.told.clear()
            scene.windows.hear([ID])

        return [
            lambda: scene.rows.commit(WINDOW),
            lambda: scene.windows.hear([ID]),
            lambda: scene.rows.end(ID),
            heard,
        ]

    for scene in played(story):
        assert not scene.memory.has(ID)
        assert scene.kinds == []


def test_a_false_message_that_an_open_window_ended_does_not_remove_the_window_from_memory() -> None:
    def story(scene: Scene) -> Sequence[Callable[[], object]]:
        return [lambda: scene.rows.commit(WINDOW), lambda: scene.windows.hear([ID], end=True)]

    assert all(scene.memory.has(ID) for scene in played(story))


def test_only_a_message_about_a_remembered_window_triggers_a_read() -> None:
    scene = Scene()
    scene.rows.commit(WINDOW)
    before = scene.windows.hear([ID])
    scene.settle()

    assert (before, scene.windows.hear([ID])) == (False, True)


def test_a_doubtful_window_is_announced_as_closed_only_if_not_verified_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    for number in (1, 2):
        scene.rows.commit(open_window(number, "files"))
    scene.settle()
    scene.told.clear()

    scene.rows.moves.append(OF_TENANT)
    scene.settle()
    in_time = scene.kinds
    monkeypatch.setattr(window_verification, "VERIFIED_AT_ONCE", 1)
    for name in ("AGAIN_SECONDS", "DOUBT_SECONDS"):
        monkeypatch.setattr(window_verification, name, 0.0)
    scene.rows.moves.append(OF_TENANT)
    scene.settle()

    assert in_time == [ChangeKind.FORGET]
    assert scene.kinds == [ChangeKind.FORGET] * 2 + [ChangeKind.CLOSE, ChangeKind.OPEN]
    assert len(scene.memory) == 2


class SlowRows(ScriptedRows):
    """Rows whose verification takes 60 ms for each hundred, on a clock of their own."""

    now = 1000.0

    def clock(self) -> float:
        return self.now

    def windows(self, ids: Collection[UUID]) -> Sequence[RequestEntry]:
        """Return the active windows of these, after a while."""
        found = super().windows(ids)
        self.now += len(ids) * 0.06 / 100
        return found


def crowded(count: int) -> tuple[SlowRows, Scene]:
    """Return a scene with so many windows in memory, half a second after the last read."""
    rows = SlowRows()
    scene = Scene(rows.clock)
    scene.rows = rows
    for number in range(1, count + 1):
        rows.commit(open_window(number, "files"))
    scene.settle()
    scene.read()
    scene.told.clear()
    rows.now += 0.5
    return rows, scene


def found(scene: Scene, entry: RequestEntry) -> bool:
    request = entry.request
    asked = entry.tenant, request.service, request.open_resources[0], request.open_actions[0], request.requester_id
    return scene.memory.find(AccessCheck(*asked)) is not None


def test_two_thousand_doubtful_but_open_windows_are_not_announced_as_closed() -> None:
    rows, scene = crowded(2_000)
    last = open_window(2_000, "files")
    known_at, beats = rows.now - 0.5, []

    rows.moves.append(OF_TENANT)
    scene.read()
    left = len(scene.windows.in_doubt)
    while scene.windows.has_more:
        scene.read()
        # What is in doubt counts for as long as what was read before, and no longer.
        assert found(scene, last) == (not scene.windows.in_doubt or rows.now - known_at < FRESH_SECONDS)
        beats.append([one.kind for one in scene.told].count(ChangeKind.HEARTBEAT))

    assert left > 0
    assert rows.now - known_at > FRESH_SECONDS
    assert scene.kinds == [ChangeKind.FORGET]
    assert len(scene.memory) == 2_000
    assert scene.memory.is_whole
    assert beats[-1] > beats[-2]


def test_one_ended_window_among_two_thousand_is_remembered_for_a_second_at_most() -> None:
    rows, scene = crowded(2_000)
    last = open_window(2_000, "files")
    del rows.active[last.request.id]
    ended_at = rows.now

    rows.moves.append(OF_TENANT)
    while scene.windows.has_more or rows.now == ended_at:
        scene.read()
        assert not found(scene, last) or rows.now - ended_at < FRESH_SECONDS

    closed = [one.window for one in scene.told if one.kind is ChangeKind.CLOSE]
    assert [one.request for one in closed if one] == [last.request.id.int]
    assert not found(scene, last)


def test_a_window_in_doubt_for_too_long_is_closed_in_memory_and_later_returns() -> None:
    rows, scene = crowded(5_000)

    rows.moves.append(OF_TENANT)
    began = rows.now
    while scene.windows.in_doubt or rows.now == began:
        scene.read()
    told = rows.now - began
    closed = scene.kinds.count(ChangeKind.CLOSE)
    scene.settle()

    assert told < 2
    assert 0 < closed == scene.kinds.count(ChangeKind.OPEN) < 4_000
    assert len(scene.memory) == 5_000


def test_the_window_memory_is_complete_once_the_last_page_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_verification, "VERIFIED_AT_ONCE", 2)
    scene = Scene()
    for number in range(1, 6):
        scene.rows.commit(open_window(number, "files"))
    scene.settle()

    scene.windows.begin_anew()
    found = []
    for _ in range(3):
        scene.read()
        found.append((len(scene.memory), scene.memory.is_whole, scene.memory.snapshot() is not None))

    assert found == [(2, False, False), (4, False, False), (5, True, True)]


def test_open_windows_return_to_memory_after_any_number_of_forged_messages_that_they_ended() -> None:
    count = 10_500
    _, scene = crowded(count)

    scene.windows.hear(scene.memory.requests(), end=True)
    before = len(scene.memory)
    scene.settle()

    assert (before, len(scene.memory)) == (0, count)


def later(number: int, begins: datetime, extends: UUID | None = None) -> RequestEntry:
    entry = open_window(number, "files")
    vars(entry.request).update(opens_at=begins, extends=extends)
    return replace(entry, open=False)


@pytest.mark.parametrize("is_held_back", [False, True])
def test_a_window_with_an_approved_extension_is_announced_to_guards_again(*, is_held_back: bool) -> None:
    scene = Scene()
    scene.rows.commit(WINDOW)
    scene.settle()
    extension = later(2, AT + timedelta(hours=1), ID)
    if is_held_back:
        extension = replace(extension, held_back=HeldBack.STRICTER_POLICY)

    scene.rows.commit(extension)
    scene.settle()

    told = [one.window.extended for one in scene.told if one.window]
    assert told == ([False] if is_held_back else [False, True])
    assert scene.kinds == [ChangeKind.OPEN] * len(told)


def test_a_window_whose_extension_ended_is_announced_to_guards_again() -> None:
    """Otherwise guards would hold calls at the window's end for an extension that the customer has revoked."""
    scene = Scene()
    extension = later(2, AT + timedelta(hours=1), ID)
    scene.rows.commit(WINDOW)
    scene.rows.commit(extension)
    scene.settle()

    scene.rows.end(extension.request.id)
    scene.settle()

    assert [one.window.extended for one in scene.told if one.window][-2:] == [True, False]
    assert scene.memory.has(ID)


def test_a_window_with_a_later_start_is_read_into_memory_at_its_start() -> None:
    scene = Scene()
    begins = AT + timedelta(hours=1)
    entry = later(2, begins)
    scene.rows.commit(entry)
    scene.settle()
    before = (scene.windows.next_begin, scene.memory.requests())

    scene.rows.active[entry.request.id] = replace(entry, open=True)
    scene.settle(begins)

    assert before == (begins, [])
    assert (scene.windows.next_begin, scene.memory.requests()) == (None, [entry.request.id])
