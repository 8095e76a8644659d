"""What must hold in every state, said without the code that is explored; each check names what it found."""

from collections.abc import Callable

from lockbox.facts.enumerations import Mode, State
from lockbox.requests.lifecycle import FINAL_STATES, Action
from tests.model.plant import RESTING, ModelWorld, hinting, reconciles
from tests.model.rules import ACTIONS, AMIR, ANN, CLOCK, DESK, ERIN, IDS, MAX, NEVER, STATES, RuleModel

ACTIVE, PENDING, REVIEWING = (STATES.index(state) for state in (State.ACTIVE, State.PENDING, State.REVIEWING))
SUBMIT, APPROVE, ENDORSE, DENY = (
    ACTIONS.index(action) for action in (Action.SUBMIT, Action.APPROVE, Action.ENDORSE, Action.DENY)
)
BREAK_GLASS = ACTIONS.index(Action.BREAK_GLASS)
CANCEL, REVOKE = ACTIONS.index(Action.CANCEL), ACTIONS.index(Action.REVOKE)
CANCELLED, REVOKED = STATES.index(State.CANCELLED), STATES.index(State.REVOKED)
FINAL = frozenset(STATES.index(state) for state in FINAL_STATES)
ENOUGH = 60

Check = Callable[[ModelWorld, RuleModel], str | None]


def one_event_a_move(world: ModelWorld, _: RuleModel) -> str | None:
    """I4: as many events as versions, and nothing after an end."""
    row = world.row
    if row.version != len(row.events):
        return f"version {row.version} has {len(row.events)} events"
    if any(state in FINAL for *_, state in row.events[:-1]):
        return "something happened after the end"
    return "the row is not what its last event says" if row.events[-1][3] != row.state else None


def broken_by_a_manager_in_time(world: ModelWorld, db: RuleModel) -> str | None:
    """I1 of break-glass: a manager opens, in time, only what was submitted for it, and nothing during a stop."""
    broken = [event for event in world.row.events if event[1] == BREAK_GLASS]
    good = all(db.case.break_glass and one[0] == MAX and one[2] < db.case.terms.review_window for one in broken)
    if world.row.stopped != NEVER and any(one[1] == BREAK_GLASS for one in world.row.events[world.row.stopped :]):
        return "it is open by break-glass during an emergency stop"
    return None if good else "it is open by break-glass, and was not submitted for it"


def opened_by_a_timely_yes(world: ModelWorld, db: RuleModel) -> str | None:
    """I1: whoever opens is another person, has the right, and is in time."""
    opened = [event for event in world.row.events if event[3] == ACTIVE]
    if not opened or opened[0][1] == BREAK_GLASS:
        return None
    events, terms = world.row.events, db.case.terms
    if db.case.mode is not Mode.ENFORCE and not any(event[3] == PENDING for event in events):
        good = opened[0][:2] == (MAX, ENDORSE) and opened[0][2] < terms.review_window
        return None if good else "it is open without a timely yes of a manager"
    if db.case.pre_approved and not any(event[3] == PENDING for event in events):
        return _opened_beforehand(world, db)
    asked = next(event[2] for event in events if event[3] == PENDING)
    yes = {person for person, action, at, _ in events if action == APPROVE and at < asked + terms.approval_window}
    if ERIN in yes:
        return "erin decided about her own request"
    if len(yes & {ANN, AMIR}) < terms.quorum or opened[0][2] >= asked + terms.approval_window:
        return "it is open without enough timely approvals"
    reviewed = any(person == MAX and action == ENDORSE for person, action, *_ in events)
    return "it is open and was not reviewed" if terms.vendor_review and not reviewed else None


def approved_step_by_step(world: ModelWorld, db: RuleModel) -> str | None:
    """Nobody approves for a group before each group of the earlier steps has approved."""
    orders = {group: stage.order for stage in db.case.terms.stages for group in db.case.groups[stage.group]}
    done = (
        [
            orders[IDS[person]]
            for person, action, *_ in world.row.events
            if action == APPROVE and person in {ANN, AMIR}
        ]
        if orders
        else []
    )
    return None if done == sorted(done) else "somebody approved before their step"


def _opened_beforehand(world: ModelWorld, db: RuleModel) -> str | None:
    """What was approved beforehand opens at once, or as a manager endorses it, and never once that was revoked."""
    person, action, at, _ = next(event for event in world.row.events if event[3] == ACTIVE)
    reviewed = db.case.terms.vendor_review
    if (person, action) != ((MAX, ENDORSE) if reviewed else (ERIN, SUBMIT)) or at >= db.case.terms.review_window:
        return "it is open beforehand, and not by a timely review"
    row = world.row
    if row.withdrawn != NEVER and row.events[-1][3] == ACTIVE and world.now < row.deadline and at != row.withdrawn:
        return "it is open by what was revoked"
    return "it is open by what was revoked" if row.withdrawn != NEVER and at > row.withdrawn else None


def asked_once_the_customer_decides(world: ModelWorld, db: RuleModel) -> str | None:
    """From a switch to `enforce` on, the door is open by the customer's yes alone.

    A window whose time is over is not revoked; it would take Postgres' clock to step back to open it again.
    """
    row = world.row
    if row.enforced == NEVER or not db.door(row, world.now) or row.deadline <= row.enforced:
        return None
    yes = any(action == APPROVE for _, action, *_ in row.events)
    return None if yes else "it is open without the customer, who decides by now"


def shut_after_the_end(world: ModelWorld, db: RuleModel) -> str | None:
    """I2: the door is never open at or after the end of what was granted."""
    if not db.door(world.row, world.now):
        return None
    opened = next(event[2] for event in world.row.events if event[3] == ACTIVE)
    ends = max(opened, db.case.start) + db.case.terms.access_ceiling
    return f"the door is open at {world.now}, and the window ended at {ends}" if world.now >= ends else None


def ends_with_its_case(world: ModelWorld, _: RuleModel) -> str | None:
    """What its ticket system does to it is its end, and opens nothing."""
    did = [(action, state) for person, action, _, state in world.row.events if person == DESK]
    good = {(CANCEL, CANCELLED), (REVOKE, REVOKED)}
    if not did or (len(did) == 1 and did[0] in good and world.row.state == did[0][1]):
        return None
    return "it goes on after its case was closed"


def not_open_before_its_start(world: ModelWorld, db: RuleModel) -> str | None:
    """Nobody is let in before the time for which access was approved."""
    early = world.now < db.case.start and db.door(world.row, world.now)
    return f"the door is open at {world.now}, and access begins at {db.case.start}" if early else None


def ends_with_what_it_extends(world: ModelWorld, db: RuleModel) -> str | None:
    """What extends a window lets nobody in, and is not approved, once that window was ended."""
    row = world.row
    if row.cut == NEVER:
        return None
    if db.door(row, world.now):
        return "the door is open, and what it extends was ended"
    is_late = ACTIVE in {event[3] for event in row.events[row.cut :]} - {event[3] for event in row.events[: row.cut]}
    return "it was approved after what it extends was ended" if is_late else None


def never_denied_and_open(world: ModelWorld, _: RuleModel) -> str | None:
    states, actions = {event[3] for event in world.row.events}, {event[1] for event in world.row.events}
    return "it was denied, and it was open" if ACTIVE in states and DENY in actions else None


def not_ended_early(world: ModelWorld, db: RuleModel) -> str | None:
    """Silence has its whole time: the clock ends nothing before its deadline."""
    terms = db.case.terms
    windows = {PENDING: terms.approval_window, REVIEWING: terms.review_window, ACTIVE: terms.access_ceiling}
    person, _, at, _ = world.row.events[-1]
    if person != CLOCK:
        return None
    state = world.row.events[-2][3]
    since = next(event[2] for event in world.row.events if event[3] == state)
    start = db.case.start
    ends = since + windows[state]
    if start != NEVER:
        ends = max(since, start) + windows[state] if state == ACTIVE else min(ends, start)
    return None if at >= ends else f"the clock ended it at {at}, before its deadline"


def ends_in_the_end(world: ModelWorld, db: RuleModel) -> str | None:
    """Liveness: whatever was lost, with reconciling at work the request becomes final."""
    key = ("ends", world.now, world.row)
    if key not in db.said:
        lost = world._replace(workers=RESTING, held=(), lease=(), messages=(), arms=(), whole=0)
        db.said[key] = _ends(lost, lambda at: [after for _, after in reconciles(at, db)])
    return None if db.said[key] else "it never ends, though all heals and reconciling works"


def hints_suffice(world: ModelWorld, db: RuleModel) -> str | None:
    """Liveness without repair: where nothing went wrong, messages alone end it."""
    if world.faults < db.faults:
        return None
    key = ("messages", world)
    if key not in db.said:
        db.said[key] = _ends(world, lambda at: [after for _, after in hinting(at, db)])
    return None if db.said[key] else "it never ends by messages alone, though nothing went wrong"


def _ends(world: ModelWorld, after: Callable[[ModelWorld], list[ModelWorld]]) -> bool:
    """Whether time and these steps bring it to an end; where there is one to take, time stands still."""
    for _ in range(ENOUGH):
        if world.row.state in FINAL:
            return True
        world = next(iter(after(world)), world._replace(now=world.now + 1))
    return False


CHECKS: tuple[Check, ...] = (
    one_event_a_move,
    opened_by_a_timely_yes,
    broken_by_a_manager_in_time,
    approved_step_by_step,
    asked_once_the_customer_decides,
    shut_after_the_end,
    not_open_before_its_start,
    ends_with_what_it_extends,
    never_denied_and_open,
    ends_with_its_case,
    not_ended_early,
    ends_in_the_end,
    hints_suffice,
)
