"""The verifier of exports: what a customer can tell of a log that began anew after a back-up was restored."""

from lockbox.audit.log import checkpoint
from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.verify import BAD, CANNOT_TELL, GOOD
from tests.logs import TENANT, Log, SealedEvent, event
from tests.verification_results import verified

COMMON, SHIPPED = 300, 320
BEFORE = Log([event(number) for number in range(SHIPPED)])


def restored(number: int, of: Log, size: int, **changes: object) -> SealedEvent:
    """Return what the log says of a restore: that it goes on from its first `size` events."""
    said, root = checkpoint.read(of.note()), of.note().split("\n")[2]
    facts = {"log_id": str(TENANT), "size": size, "shipped_origin": said.origin, "shipped_size": said.size}
    facts |= {"shipped_root": root, "seq": None, "request_id": None} | changes
    return event(number, {}, action="restored", **facts)  # type: ignore[arg-type]


def gone_on(of: Log, size: int, generation: int, said: SealedEvent | None = None) -> Log:
    """Return the log that goes on from a back-up, with what it says of it and two events more."""
    told = restored(10_000 * generation, of, size) if said is None else said
    further = [told, event(10_000 * generation + 1), event(10_000 * generation + 2)]
    return Log([*of.events[:size], *further], generation=generation)


AFTER = gone_on(BEFORE, COMMON, 2)


def test_checkpoints_from_before_what_was_given_up_are_still_extended() -> None:
    whole = verified(AFTER.whole(), BEFORE.note(0), BEFORE.note(100), BEFORE.note(COMMON), AFTER.note())
    filtered = verified(AFTER.filtered(lambda n: n == 3, since=[100]), BEFORE.note(100))

    assert (whole.exit_code, sorted(whole.seen)) == (GOOD, [0, 100, COMMON, len(AFTER.events)])
    assert (filtered.exit_code, filtered.seen) == (GOOD, [100])


def test_a_checkpoint_of_what_was_given_up_cannot_be_shown_and_says_from_where_the_log_went_on() -> None:
    result = verified(AFTER.whole(), BEFORE.note())

    (only,) = result.findings.first
    assert (result.exit_code, only.kind, only.number) == (CANNOT_TELL, FindingKind.RESTORED, COMMON)
    assert f"went on from its first {COMMON} events" in only.message
    assert "that they are the same is not shown" in only.message


def test_what_is_common_is_said_to_be_shown_as_far_as_another_checkpoint_shows_it() -> None:
    result = verified(AFTER.whole(), BEFORE.note(), BEFORE.note(250))

    (only,) = result.findings.first
    assert "that the first 250 are the same is shown" in only.message


def test_a_log_that_lost_more_events_than_it_has_since_is_not_called_older() -> None:
    short = gone_on(BEFORE, 10, 2)

    assert verified(short.whole(), BEFORE.note()).findings.kinds == {FindingKind.RESTORED}


def test_what_stands_before_the_restore_was_not_to_change() -> None:
    events = list(AFTER.events)
    events[3] = event(3, {"name": "Somebody else"})

    result = verified(Log(events, generation=2).whole(), BEFORE.note(100))

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.FORKED})


def test_a_log_that_began_anew_and_says_nothing_of_it_is_forked() -> None:
    silent = Log([*BEFORE.events[:COMMON], event(20_000)], generation=2)
    of_another = gone_on(BEFORE, COMMON, 2, restored(20_000, BEFORE, COMMON, log_id="another"))
    beyond_itself = gone_on(BEFORE, COMMON, 2, restored(20_000, BEFORE, COMMON + 1))

    for log in (silent, of_another, beyond_itself):
        result = verified(log.whole(), BEFORE.note())
        assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.FORKED})


def test_a_restore_that_names_another_root_than_was_seen_is_a_fork() -> None:
    log = gone_on(BEFORE, COMMON, 2, restored(20_000, BEFORE, COMMON, shipped_root="A" * 43 + "="))

    assert verified(log.whole(), BEFORE.note()).findings.kinds == {FindingKind.FORKED}


def test_of_two_restores_the_one_that_gave_up_more_counts() -> None:
    third = gone_on(AFTER, 200, 3)

    result = verified(third.whole(), BEFORE.note(250), BEFORE.note(200), AFTER.note(250))

    assert (result.exit_code, result.seen, result.findings.kinds) == (CANNOT_TELL, [200], {FindingKind.RESTORED})


def test_what_an_earlier_restore_gave_up_no_later_one_brings_back() -> None:
    third = gone_on(AFTER, COMMON + 2, 3)

    result = verified(third.whole(), BEFORE.note(COMMON + 1), AFTER.note(COMMON + 2))

    assert (result.exit_code, result.seen, result.findings.kinds) == (
        CANNOT_TELL,
        [COMMON + 2],
        {FindingKind.RESTORED},
    )


def test_only_a_whole_export_shows_how_a_log_follows_on_an_earlier_generation() -> None:
    result = verified(AFTER.filtered(lambda n: n == 3), BEFORE.note(100))

    assert (result.exit_code, result.findings.kinds) == (CANNOT_TELL, {FindingKind.UNPROVEN})


def test_an_export_from_before_a_restore_that_was_seen_is_older() -> None:
    result = verified(BEFORE.whole(), AFTER.note(100))

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.OLDER})
