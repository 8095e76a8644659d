"""A hanging target takes few slots, whatever waits for it, and leaves slots to other targets."""

from uuid import UUID

from connectors.target_slots import (
    LONGEST_TURN,
    MOST_AT_A_TARGET,
    MOST_WAITING,
    SLOW_SECONDS,
    TargetSlot,
    TargetSlots,
)

ONE, TWO, THREE = UUID(int=1), UUID(int=2), UUID(int=3)


class Watch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(slots: TargetSlots, target: str) -> TargetSlot:
    slot = slots.take(target)
    assert slot is not None
    return slot


def test_each_connector_target_has_three_slots() -> None:
    slots = TargetSlots(8)
    held = [taken(slots, "a") for _ in range(MOST_AT_A_TARGET)]

    assert slots.take("a") is None
    taken(slots, "b")
    slots.give_back(held[0])
    taken(slots, "a")


def test_connector_steps_waiting_for_a_target_each_get_a_slot_once_and_in_order() -> None:
    slots = TargetSlots(8)
    slot = taken(slots, "a")

    assert slots.wait("a", ONE)
    assert slots.wait("a", TWO)
    assert slots.wait("a", ONE), "it waits already"
    assert not slots.wait("b", THREE), "nobody has a slot there"

    assert [slots.next(slot), slots.next(slot), slots.next(slot)] == [ONE, TWO, None]
    assert slots.give_back(slot) == []


def test_no_connector_step_waits_forever_for_a_target() -> None:
    watch = Watch()
    slots = TargetSlots(8, clock=watch)
    slot = taken(slots, "a")
    slots.wait("a", ONE)
    watch.now += LONGEST_TURN + 1

    assert slots.next(slot) is None, "the turn is over"
    assert slots.give_back(slot) == [ONE], "whoever gives the last slot back hands on what waits"

    slot = taken(slots, "a")
    assert all(slots.wait("a", UUID(int=number)) for number in range(MOST_WAITING))
    assert not slots.wait("a", UUID(int=MOST_WAITING))


def test_hanging_targets_leave_half_of_the_slots_to_other_targets() -> None:
    watch = Watch()
    slots = TargetSlots(8, clock=watch)
    hanging = [taken(slots, "hangs") for _ in range(MOST_AT_A_TARGET)]
    watch.now += SLOW_SECONDS + 1

    assert slots.take("hangs") is None
    for slot in hanging:
        assert slots.next(slot) is None
        slots.give_back(slot)
    taken(slots, "hangs")
    assert slots.take("hangs") is None, "one at a time"

    for number in range(3):
        slow = taken(slots, f"hangs too {number}")
        watch.now += SLOW_SECONDS + 1
        slots.next(slow)
    assert slots.take("hangs as the fifth") is not None, "nobody knows yet that it hangs"
    assert slots.take("answers") is not None


def test_slow_targets_take_half_of_the_slots_at_most() -> None:
    watch = Watch()
    slots = TargetSlots(4, clock=watch)
    for name in "abc":
        slot = taken(slots, name)
        watch.now += SLOW_SECONDS + 1
        slots.next(slot)
        slots.give_back(slot)

    taken(slots, "a")
    taken(slots, "b")
    assert slots.take("c") is None
    assert slots.take("answers") is not None


def test_a_recovered_target_has_all_its_slots() -> None:
    watch = Watch()
    slots = TargetSlots(8, clock=watch)
    slot = taken(slots, "a")
    watch.now += SLOW_SECONDS + 1
    slots.next(slot)
    assert slots.take("a") is None

    watch.now += SLOW_SECONDS / 2
    slots.next(slot)

    assert slots.take("a") is not None
