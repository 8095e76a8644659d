"""The plant around one request: Postgres' lock, Redis' index, messages, two workers; and every step that can come."""

from collections.abc import Iterator
from typing import NamedTuple

from lockbox.requests.lifecycle import CLOCK_ACTIONS, Action
from tests.model.rules import ACTIONS, NAMES, NEVER, STATES, ModelRow, RuleModel

IDLE, HAS, HOLDS, SETTLES = range(4)
LEASE = 1
GRACE = 1
SOON = 2
MOST_MESSAGES = 2
MOST_ARMS = 2
KINDS = tuple(ACTIONS.index(action) for action in (Action.TIME_OUT, Action.EXPIRE))


class ModelEntry(NamedTuple):
    """What an index has to hold: kind, and when it is due by Postgres' clock, or in how long if `is_delay`."""

    kind: int
    due: int
    is_delay: int = 0


class Worker(NamedTuple):
    """Where a worker stands; `at` is the clock that it read, `seen` the row that it read before the lock, if so."""

    step: int = IDLE
    kind: int = NEVER
    at: int = NEVER
    promise: tuple[int, ...] = ()
    seen: tuple[object, ...] = ()


class ModelWorld(NamedTuple):
    """Everything at one moment. `arms` are promises that are committed and that Redis has not heard of."""

    now: int
    skew: int
    row: ModelRow
    arms: tuple[ModelEntry, ...]
    held: tuple[int, ...]
    lease: tuple[int, ...]
    whole: int
    messages: tuple[int, ...]
    workers: tuple[Worker, Worker]
    faults: int

    @property
    def is_locked(self) -> bool:
        return any(worker.step == HOLDS for worker in self.workers)


Step = tuple[str, ModelWorld]
RESTING = (Worker(), Worker())


def begin(db: RuleModel) -> ModelWorld:
    """Return the world just after a request was submitted, which Redis has not heard of."""
    row = db.submitted()
    return ModelWorld(0, 0, row, (_promise(row),), (), (), 1, (), RESTING, db.faults)


def steps(world: ModelWorld, db: RuleModel, horizon: int) -> Iterator[Step]:
    """Yield every step that can come next: people's, the plant's own, and an adversary's who has faults left."""
    yield from _acts(world, db)
    if world.now < horizon:
        yield "a tick passes", world._replace(now=world.now + 1)
    yield from hinting(world, db)
    yield from reconciles(world, db)
    if world.faults:
        yield from _faults(world._replace(faults=world.faults - 1))


def hinting(world: ModelWorld, db: RuleModel) -> Iterator[Step]:
    """Yield what is done by messages: arming, claiming, and what a worker does step by step."""
    for arm in world.arms:
        left = list(world.arms)
        left.remove(arm)
        yield f"Redis hears of {_name(arm)}", _armed(world._replace(arms=tuple(left)), arm)
    yield from _claims(world)
    for number in (0, 1):
        yield from _works(world, number, db)


def reconciles(world: ModelWorld, db: RuleModel) -> Iterator[Step]:
    """Yield what reconciling does: act on what is overdue, arm what is missing, rebuild what was lost."""
    row = world.row
    if db.rules.overdue_runs and row.wake != NEVER and row.wake <= world.now - GRACE and not world.is_locked:
        after = db.clocked(row, world.now)
        yield "reconciling acts on what is overdue", _armed(world._replace(row=after), _promise(after))
    if row.wake == NEVER or world.held or world.lease:
        if not world.whole:
            yield "reconciling marks the index as whole", world._replace(whole=1)
    elif not world.whole or world.now - GRACE <= row.wake <= world.now + SOON:
        yield "reconciling arms what is missing", _armed(world._replace(whole=1), _promise(row))


def _acts(world: ModelWorld, db: RuleModel) -> Iterator[Step]:
    if world.is_locked or len(world.arms) == MOST_ARMS:
        return
    for person, action in db.case.acts:
        after = db.judged(world.row, person, action, world.now)
        if after is not None:
            arms = tuple(sorted((*world.arms, _promise(after))))
            yield f"{NAMES[person]}: {action}", world._replace(row=after, arms=arms)
    if db.case.switches and world.row.enforced == NEVER and world.row.is_open:
        after = db.switched(world.row, world.now)
        arms = tuple(sorted((*world.arms, _promise(after))))
        yield "tara: switches to enforce", world._replace(row=after, arms=arms)
    if db.case.extends and world.row.cut == NEVER and world.row.is_open and world.now < db.case.start:
        for who, by_older_code in (("ann", False), ("older code", True)):
            after = db.cut(world.row, world.now, by_older_code=by_older_code)
            arms = tuple(sorted((*world.arms, _promise(after))))
            yield f"{who}: revokes the window that it extends", world._replace(row=after, arms=arms)
    if db.case.stops and world.row.is_open:
        is_stopped = world.row.stopped != NEVER
        after = world.row._replace(stopped=NEVER if is_stopped else world.row.version)
        yield "tara: ends the stop" if is_stopped else "tara: stops all that she sees", world._replace(row=after)
    if db.case.pre_approved and world.row.withdrawn == NEVER and world.row.is_open:
        after = db.withdrawn(world.row, world.now)
        arms = tuple(sorted((*world.arms, _promise(after))))
        yield "ann: revokes the pre-approval", world._replace(row=after, arms=arms)


def _claims(world: ModelWorld) -> Iterator[Step]:
    """Yield a poller's claim, of what is due or of what was leased for too long, and its message."""
    at = world.now + world.skew
    for held in (world.held, world.lease):
        if held and held[1] <= at and len(world.messages) < MOST_MESSAGES:
            messages = tuple(sorted((*world.messages, held[0])))
            claimed = world._replace(held=(), lease=(held[0], at + LEASE), messages=messages)
            yield f"a poller claims it and sends {ACTIONS[held[0]]}", claimed


def _works(world: ModelWorld, number: int, db: RuleModel) -> Iterator[Step]:
    worker, name = world.workers[number], f"worker {number + 1}"
    if worker.step == IDLE:
        for kind in sorted(set(world.messages)):
            messages = list(world.messages)
            messages.remove(kind)
            seen = () if db.rules.rechecks else tuple(world.row)
            taken = Worker(HAS, kind, world.now if seen else NEVER, (), seen)
            yield (
                f"{name} takes the message {ACTIONS[kind]}",
                _with(world._replace(messages=tuple(messages)), number, taken),
            )
    elif worker.step == HAS:
        if world.is_locked:
            again = Worker(SETTLES, promise=ModelEntry(worker.kind, 1, 1))
            yield f"{name} finds the row locked and leaves it for later", _with(world, number, again)
        else:
            holds = worker._replace(step=HOLDS, at=worker.at if worker.seen else world.now)
            yield f"{name} locks the row and reads the clock", _with(world, number, holds)
    elif worker.step == HOLDS:
        after, promise = _handled(world, worker, db)
        done = world._replace(row=after)
        yield f"{name} commits", _with(done, number, Worker(SETTLES, promise=promise))
        if world.faults:
            spent = done._replace(faults=world.faults - 1)
            yield f"{name} commits and hears nothing of it", _with(spent, number, Worker())
    else:
        yield f"{name} settles the index", _with(_armed(world, ModelEntry(*worker.promise)), number, Worker())


def _handled(world: ModelWorld, worker: Worker, db: RuleModel) -> tuple[ModelRow, ModelEntry]:
    """Return the row after a handler and what it settles: the row's present truth, early ones as a delay."""
    if worker.seen:
        # A handler that believes the message and what it read before the lock.
        seen = ModelRow(*worker.seen)  # type: ignore[arg-type]
        if not seen.is_open:
            return world.row, _promise(world.row)
        after = db.ended(seen, worker.at)
        after = after._replace(events=(*world.row.events, after.events[-1]))
        return after, _promise(after)
    after = db.clocked(world.row, worker.at)
    if after is world.row and after.wake != NEVER:
        return after, ModelEntry(_promise(after).kind, after.wake - worker.at, 1)
    return after, _promise(after)


def _faults(world: ModelWorld) -> Iterator[Step]:
    """Yield what goes wrong; the fault is already counted."""
    for kind in KINDS:
        if len(world.messages) < MOST_MESSAGES:
            word = "a message is doubled:" if kind in world.messages else "somebody forges a message:"
            yield f"{word} {ACTIONS[kind]}", world._replace(messages=tuple(sorted((*world.messages, kind))))
    if world.messages:
        yield "a message is dropped", world._replace(messages=world.messages[1:])
        yield "a message is dropped", world._replace(messages=world.messages[:-1])
    yield "Redis is flushed", world._replace(held=(), lease=(), messages=(), whole=0)
    if world.arms:
        yield "Redis does not hear of what is promised", world._replace(arms=world.arms[1:])
    if world.now:
        yield "Postgres' clock steps back", world._replace(now=world.now - 1)
    for skew in (-1, 1):
        if skew != world.skew:
            yield f"Redis' clock is off by {skew}", world._replace(skew=skew)
    for number, worker in enumerate(world.workers):
        if worker.step != IDLE:
            yield f"worker {number + 1} is killed", _with(world, number, Worker())


def _armed(world: ModelWorld, promise: ModelEntry) -> ModelWorld:
    """Return the world after the index was made to hold just this of the request."""
    due = promise.due
    if due != NEVER and promise.is_delay:
        due += world.now + world.skew
    return world._replace(held=() if due == NEVER else (promise.kind, due), lease=())


def _promise(row: ModelRow) -> ModelEntry:
    action = CLOCK_ACTIONS.get(STATES[row.state], Action.EXPIRE)
    return ModelEntry(ACTIONS.index(action), row.wake)


def _with(world: ModelWorld, number: int, worker: Worker) -> ModelWorld:
    # Two workers are alike: which of them does it makes no other state.
    pair = sorted((worker, world.workers[1 - number]))
    return world._replace(workers=(pair[0], pair[1]))


def _name(promise: ModelEntry) -> str:
    return "an end" if promise.due == NEVER else f"{ACTIONS[promise.kind]} at {promise.due}"
