"""The outbox around one request: what waits, who is told of it and in which order; every step that can come."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from lockbox.audit.events import Actor
from lockbox.facts.enumerations import Mode
from lockbox.notifications.event_recipients import AudienceCache, NotificationRecipient
from lockbox.notifications.outbox import NotifiedMove
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests.lifecycle import Action
from tests.model.rules import AMIR, ANN, ERIN, IDS, MAX, NAMES, START, TARA

TENANT, REQUEST = UUID(int=100), UUID(int=101)
PROMPTED = frozenset({"pending", "answer_reminder", "active"})
"""The templates that make somebody one of those who are told how it ends, as the house looks them up."""
WAITS, TAKES, WRITES, SETTLES = range(4)
MOST_MESSAGES = 2
ENOUGH = 60

Told = tuple[int, NotificationRecipient]


def _moved(who: int | None, action: Action, states: tuple[str | None, str], *asked: int) -> NotifiedMove:
    at = START + timedelta(seconds=1)
    return NotifiedMove(
        request_id=REQUEST,
        tenant_id=TENANT,
        requester_id=IDS[ERIN],
        mode=Mode.ENFORCE,
        service="exchange-online",
        action=action,
        actor=Actor(IDS[who] if who is not None else None, ROLES[who] if who is not None else "clock"),
        from_state=states[0],
        to_state=states[1],
        at=at,
        deadline_at=at,
        asked_at=None if "reviewing" in states[1:] or states == ("reviewing", "denied") else at,
        asked=frozenset(IDS[one] for one in asked),
    )


ROLES = {ERIN: "engineer", MAX: "manager", ANN: "approver", AMIR: "approver", TARA: "tenant_admin"}
LIVES: dict[str, tuple[NotifiedMove, ...]] = {
    "opened and over": (
        _moved(ERIN, Action.SUBMIT, (None, "pending"), ANN, AMIR),
        _moved(ANN, Action.APPROVE, ("pending", "active")),
        _moved(None, Action.EXPIRE, ("active", "expired")),
    ),
    "reviewed and denied": (
        _moved(ERIN, Action.SUBMIT, (None, "reviewing"), MAX),
        _moved(MAX, Action.ENDORSE, ("reviewing", "pending"), ANN, AMIR),
        _moved(AMIR, Action.DENY, ("pending", "denied")),
    ),
    "one vote of two": (
        _moved(ERIN, Action.SUBMIT, (None, "pending"), ANN, AMIR),
        _moved(ANN, Action.APPROVE, ("pending", "pending")),
        _moved(None, Action.TIME_OUT, ("pending", "timed_out")),
    ),
}


@dataclass(frozen=True)
class OutboxRules:
    """What the house promises of its outbox; each promise can be broken.

    `queues` is whether a move writes its row, `deletes` whether the commit that tells of an event takes the row away,
    `in_order` whether a worker takes all of a request's rows, the oldest first, and not the one of its message,
    `reconciles` whether a row that the index lost is found.
    """

    queues: Callable[[NotifiedMove], bool] = lambda _: True
    deletes: bool = True
    in_order: bool = True
    reconciles: bool = True


class FanOutWorker(NamedTuple):
    """Where a worker of notifications stands, the event of its message, and the rows that it has read."""

    step: int = WAITS
    event: int = -1
    rows: tuple[int, ...] = ()


class OutboxWorld(NamedTuple):
    """Everything at one moment: how many moves are committed, and by its number each event that is somewhere.

    `told` are the notifications that are committed, in the order in which they were written.
    """

    moves: int
    rows: tuple[int, ...]
    told: tuple[Told, ...]
    arms: tuple[int, ...]
    held: tuple[int, ...]
    messages: tuple[int, ...]
    workers: tuple[FanOutWorker, FanOutWorker]
    faults: int

    @property
    def is_locked(self) -> bool:
        return any(worker.step == WRITES for worker in self.workers)


OutboxStep = tuple[str, OutboxWorld]
RESTING_WORKERS = (FanOutWorker(), FanOutWorker())


@dataclass
class OutboxModel:
    """The outbox of one life, remembering who is told of what."""

    life: tuple[NotifiedMove, ...]
    rules: OutboxRules = field(default_factory=OutboxRules)
    said: dict[tuple[int, frozenset[UUID]], tuple[NotificationRecipient, ...]] = field(default_factory=dict)
    ends: dict[tuple[object, ...], bool] = field(default_factory=dict)

    def begin(self, faults: int) -> OutboxWorld:
        """Return the world in which the request was just submitted."""
        return self._committed(OutboxWorld(0, (), (), (), (), (), RESTING_WORKERS, faults))

    def audience(self, event: int, told: tuple[Told, ...]) -> tuple[NotificationRecipient, ...]:
        """Return who is told of an event, by the house's own code, where so much was told before."""
        prompted = {one.person_id for _, one in told if one.template in PROMPTED and one.person_id}
        informed = frozenset(prompted & {IDS[ANN], IDS[AMIR], IDS[TARA]})
        if (event, informed) not in self.said:
            cache = AudienceCache(_directory())
            numbers = cache.of(self.life[event], informed)
            self.said[event, informed] = tuple(cache.due[number - 1].recipient for number in numbers)
        return self.said[event, informed]

    def steps(self, world: OutboxWorld) -> Iterator[OutboxStep]:
        if world.moves < len(self.life):
            move = self.life[world.moves]
            by = next((NAMES[who] for who, one in enumerate(IDS) if one == move.actor.person_id), "the clock")
            yield f"{by}: {move.action}", self._committed(world)
        yield from self.works(world)
        if world.faults:
            yield from _outbox_faults(world._replace(faults=world.faults - 1))

    def works(self, world: OutboxWorld) -> Iterator[OutboxStep]:
        """Yield what comes without people and faults: arming, polling, fanning out, reconciling."""
        for event in world.arms:
            held = tuple(sorted({*world.held, event}))
            yield f"Redis hears of event {event}", world._replace(arms=_without(world.arms, event), held=held)
        for event in world.held:
            if len(world.messages) < MOST_MESSAGES and event not in world.messages:
                yield f"a poller sends event {event}", world._replace(messages=(*world.messages, event))
        for number in (1, 0):
            yield from self._fans_out(world, number)
        lost = set(world.rows) - {*world.held, *world.arms}
        if self.rules.reconciles and lost:
            yield "reconciling arms what is missing", world._replace(held=tuple(sorted({*world.held, *lost})))

    def _fans_out(self, world: OutboxWorld, number: int) -> Iterator[OutboxStep]:
        worker, name = world.workers[number], f"worker {number + 1}"
        if worker.step == WAITS:
            for event in sorted(set(world.messages)):
                taken = _put(
                    world._replace(messages=_without(world.messages, event)), number, FanOutWorker(TAKES, event)
                )
                yield f"{name} takes the message of event {event}", taken
        elif worker.step == TAKES:
            if worker.event not in world.rows:
                yield f"{name} finds nothing in the outbox", _put(world, number, worker._replace(step=SETTLES))
            elif world.is_locked:
                yield f"{name} leaves it for later", _put(world, number, FanOutWorker())
            else:
                rows = world.rows if self.rules.in_order else (worker.event,)
                yield (
                    f"{name} reads {rows} in the outbox",
                    _put(world, number, worker._replace(step=WRITES, rows=rows)),
                )
        elif worker.step == WRITES:
            done = self._told(world, worker.rows)
            yield f"{name} commits", _put(done, number, worker._replace(step=SETTLES))
            if world.faults:
                lost = _put(done, number, FanOutWorker())._replace(faults=world.faults - 1)
                yield f"{name} commits and hears nothing of it", lost
        else:
            gone = {worker.event, *worker.rows}
            held = tuple(event for event in world.held if event not in gone)
            yield f"{name} settles the index", _put(world._replace(held=held), number, FanOutWorker())

    def _committed(self, world: OutboxWorld) -> OutboxWorld:
        """Return the world after the next move, its event and its row in the outbox are committed."""
        event, after = world.moves, world._replace(moves=world.moves + 1)
        if not self.rules.queues(self.life[event]):
            return after
        return after._replace(rows=(*world.rows, event), arms=(*world.arms, event))

    def _told(self, world: OutboxWorld, rows: tuple[int, ...]) -> OutboxWorld:
        told = world.told
        for event in rows:
            told += tuple((event, one) for one in self.audience(event, told))
        left = tuple(event for event in world.rows if event not in rows) if self.rules.deletes else world.rows
        return world._replace(told=told, rows=left)


def _directory() -> RecipientDirectory:
    known = RecipientDirectory(managers={IDS[MAX]: 1})
    known.approvers[TENANT] |= {IDS[ANN], IDS[AMIR]}
    known.admins[TENANT] |= {IDS[TARA]}
    return known


def _outbox_faults(world: OutboxWorld) -> Iterator[OutboxStep]:
    """Yield what goes wrong; the fault is already counted."""
    for event in range(world.moves):
        if len(world.messages) < MOST_MESSAGES:
            yield (
                f"the message of event {event} is doubled or forged",
                world._replace(messages=(*world.messages, event)),
            )
    for event in sorted(set(world.messages)):
        yield f"the message of event {event} is lost", world._replace(messages=_without(world.messages, event))
    if world.held or world.messages:
        yield "Redis is flushed", world._replace(held=(), messages=())
    for event in world.arms:
        yield f"Redis does not hear of event {event}", world._replace(arms=_without(world.arms, event))
    for number, worker in enumerate(world.workers):
        if worker.step != WAITS:
            yield f"worker {number + 1} is killed", _put(world, number, FanOutWorker())


def _without(events: tuple[int, ...], event: int) -> tuple[int, ...]:
    place = events.index(event)
    return events[:place] + events[place + 1 :]


def _put(world: OutboxWorld, number: int, worker: FanOutWorker) -> OutboxWorld:
    pair = sorted((worker, world.workers[1 - number]))
    return world._replace(workers=(pair[0], pair[1]))


OutboxCheck = Callable[[OutboxWorld, OutboxModel], str | None]


def nobody_forgotten(world: OutboxWorld, _: OutboxModel) -> str | None:
    """I5: each committed move waits in the outbox, or somebody is told of it."""
    told = {event for event, _ in world.told}
    lost = [event for event in range(world.moves) if event not in told and event not in world.rows]
    return f"event {lost[0]} is not in the outbox, and nobody is told of it" if lost else None


def told_once(world: OutboxWorld, _: OutboxModel) -> str | None:
    """I5: nobody is told twice, and nothing that was told waits."""
    if len(set(world.told)) < len(world.told):
        return "somebody is told twice"
    waits = [event for event in world.rows if any(event == one for one, _ in world.told)]
    return f"event {waits[0]} was told and waits in the outbox" if waits else None


def told_in_order(world: OutboxWorld, _: OutboxModel) -> str | None:
    last = max((event for event, _ in world.told), default=-1)
    early = [event for event in world.rows if event < last]
    return f"event {last} is told before event {early[0]}" if early else None


def everybody_hears_the_end(world: OutboxWorld, db: OutboxModel) -> str | None:
    """Who asked and who was asked hears how it ended, once anybody does."""
    end = len(db.life) - 1
    heard = {one.person_id for event, one in world.told if event == end}
    deaf = [NAMES[one] for one in (ERIN, ANN, AMIR) if IDS[one] not in heard]
    return f"{deaf[0]} never hears how it ended" if heard and deaf else None


def told_in_the_end(world: OutboxWorld, db: OutboxModel) -> str | None:
    """Liveness: whatever was lost, what waits is told of."""
    key = (world.moves, world.rows, world.told)
    if key not in db.ends:
        lost = world._replace(arms=(), held=(), messages=(), workers=RESTING_WORKERS, faults=0)
        db.ends[key] = _is_told(lost, db)
    return None if db.ends[key] else f"event {world.rows[0]} waits for ever"


def _is_told(world: OutboxWorld, db: OutboxModel) -> bool:
    """Whether a worker that goes on, and else what gives it work, empties the outbox."""
    for _ in range(ENOUGH):
        if not world.rows:
            return True
        now = world
        goes_on = [after for _, after in db.works(now) if after.workers != now.workers]
        world = next(iter(goes_on or [after for _, after in db.works(now)]), now)
    return False


OUTBOX_CHECKS: tuple[OutboxCheck, ...] = (
    nobody_forgotten,
    told_once,
    told_in_order,
    everybody_hears_the_end,
    told_in_the_end,
)
