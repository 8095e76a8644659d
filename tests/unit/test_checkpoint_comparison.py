"""Holding an export against checkpoints that came another way: what each of them shows, and the words for it."""

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pytest

from lockbox.audit.log import merkle
from lockbox.audit.log.checkpoint import Checkpoint
from lockbox.audit.log.merkle import leaf_hash, root_of
from lockbox.audit.verifier.consistency import ConsistencyChecker
from lockbox.audit.verifier.event_checks import RestoreRecord
from lockbox.audit.verifier.export_format import ExportHeader, Finding, FindingKind, Findings
from tests.logs import subtree_of

LOG = "lockbox.test/audit/contoso"
SECOND, THIRD = f"{LOG}/2", f"{LOG}/3"
AT, THEN = "2026-01-09T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z"
LEAVES = [leaf_hash(str(number).encode()) for number in range(20)]
SIZE = 12
WRONG = bytes(32)


def seen(size: int, origin: str = LOG, root: bytes | None = None) -> Checkpoint:
    """Return a checkpoint that came another way, of the log's own root at that size or of another."""
    return Checkpoint(origin, size, root_of(LEAVES[:size]) if root is None else root, THEN)


def restore(
    size: int, shipped: int, *, origin: str = LOG, root: bytes | None = None, number: int | None = None
) -> RestoreRecord:
    """Return what an event says of a restore; its number is by default the size that was gone on from."""
    said = base64.b64encode(root_of(LEAVES[:shipped]) if root is None else root).decode()
    return RestoreRecord(size if number is None else number, AT, size, (origin, shipped, said))


@dataclass
class CheckpointedExport:
    """An export of twelve events, and the sizes at which it shows the root."""

    origin: str = LOG
    whole: bool = True
    proofs: Collection[int] = ()
    shows: Collection[int] = ()
    restores: Sequence[RestoreRecord] = ()
    findings: Findings = field(default_factory=Findings)

    def held(self, *before: Checkpoint) -> tuple[list[int], list[Finding]]:
        """Return which of the checkpoints it extends, and what is found."""
        proofs = {old: merkle.consistency(subtree_of(LEAVES), old, SIZE) for old in self.proofs}
        header = ExportHeader(self.origin, "contoso", 1, SIZE, "", self.whole, {}, proofs)
        holding = ConsistencyChecker(header, Checkpoint(self.origin, SIZE, root_of(LEAVES[:SIZE]), AT), self.findings)
        for one in before:
            holding.take(one)
        holding.finish({size: root_of(LEAVES[:size]) for size in self.shows}, self.restores)
        return [one.size for one in holding.extended], self.findings.first


def forked(message: str, number: int | None = None) -> Finding:
    return Finding(FindingKind.FORKED, message, number=number)


def not_extended(size: int) -> Finding:
    return forked(f"the log does not extend what it was at {size} events ({THEN})")


def not_extended_before(size: int) -> Finding:
    return forked(f"the log does not extend what it was at {size} events, before it was restored")


def not_shown(size: int) -> Finding:
    message = f"nothing in the file proves that the log extends its state at {size} events"
    return Finding(FindingKind.UNPROVEN, f"{message}; export it again with since={size}")


def given_up(before: int, first: int, proven: str) -> Finding:
    message = (
        f"a back-up was restored at {AT}: the log went on from its first {first} events, and gave up what came after "
        f"them, to which your checkpoint of {before} belongs; {proven}. Give your newest checkpoint of at most "
        f"{first} events, and ask what was given up"
    )
    return Finding(FindingKind.RESTORED, message, number=first)


NOTHING_SHOWN = "that they are the same is not shown"


@pytest.mark.parametrize("size", [0, 1, 5, 8, 11, 12])
def test_a_log_extends_what_a_proof_or_its_own_hashes_show(size: int) -> None:
    by_proof = CheckpointedExport(whole=False, proofs=[size]).held(seen(size))
    by_hashes = CheckpointedExport(shows=[size]).held(seen(size))

    assert by_proof == by_hashes == ([size], [])


@pytest.mark.parametrize("size", [0, 1, 5, 8, 11, 12])
def test_another_root_than_the_log_had_is_a_fork(size: int) -> None:
    by_proof = CheckpointedExport(whole=False, proofs=[size]).held(seen(size, root=WRONG))
    by_hashes = CheckpointedExport(shows=[size]).held(seen(size, root=WRONG))

    assert by_proof == by_hashes == ([], [not_extended(size)])


def test_what_nothing_shows_is_to_be_exported_again_from_there_on() -> None:
    assert CheckpointedExport(proofs=[4], shows=[6]).held(seen(5)) == ([], [not_shown(5)])


def test_two_checkpoints_of_one_size_that_differ_are_a_fork_though_nothing_shows_which_is_right() -> None:
    same = CheckpointedExport().held(seen(5), seen(5))
    differing = CheckpointedExport().held(seen(5), seen(5, root=WRONG), seen(6))

    assert same == ([], [not_shown(5), not_shown(5)])
    assert differing == ([], [not_extended(5), not_extended(5), not_shown(6)])


@pytest.mark.parametrize("whole", [True, False])
def test_two_checkpoints_of_what_was_given_up_that_differ_are_a_fork(whole: bool) -> None:  # noqa: FBT001 - a case
    export = CheckpointedExport(SECOND, whole=whole, restores=[restore(8, 13)])

    fork = forked(f"of {LOG} at 14 events you gave checkpoints with different roots")
    assert export.held(seen(14), seen(14, root=WRONG)) == ([], [fork, fork])


def test_checkpoints_of_one_size_of_two_generations_contradict_nothing() -> None:
    export = CheckpointedExport(THIRD, restores=[restore(8, 14), restore(8, 14, origin=SECOND)])

    given = given_up(14, 8, NOTHING_SHOWN)
    assert export.held(seen(14), seen(14, SECOND, WRONG), seen(14)) == (
        [],
        [given, forked(f"the restore of {AT} names another root for 14 events than you were given", 8), given],
    )


def test_the_checkpoint_of_another_log_proves_nothing() -> None:
    found = CheckpointedExport(shows=[5]).held(seen(5, "lockbox.test/audit/fabrikam"))

    message = f"the checkpoint that you gave is of lockbox.test/audit/fabrikam, not {LOG}"
    assert found == ([], [Finding(FindingKind.ANOTHER_LOG, message)])


def test_an_export_of_a_generation_that_has_ended_is_older() -> None:
    found = CheckpointedExport(SECOND, shows=[5]).held(seen(5, THIRD))

    ((one,), extended) = (found[1], found[0])
    assert (one.kind, extended) == (FindingKind.OLDER, [])
    assert f"a checkpoint of {THIRD} that was seen before" in one.message


def test_an_export_that_ends_before_what_was_seen_is_older() -> None:
    found = CheckpointedExport().held(seen(13))

    ((one,), extended) = (found[1], found[0])
    assert (one.kind, extended) == (FindingKind.OLDER, [])
    assert one.message.startswith("the export ends at 12 events (")
    assert "has 13, and was signed no later" in one.message


def test_the_sizes_to_show_are_those_of_all_checkpoints_of_the_log_and_of_its_earlier_generations() -> None:
    own = Checkpoint(SECOND, SIZE, root_of(LEAVES[:SIZE]), AT)
    holding = ConsistencyChecker(
        ExportHeader(SECOND, "contoso", 2, SIZE, "", whole=True, asked={}, consistency={}), own, Findings()
    )

    for one in (seen(5, SECOND), seen(7, SECOND), seen(7), seen(14), seen(9, THIRD), seen(13, SECOND), seen(3, "x")):
        holding.take(one)

    assert holding.sizes == {5, 7, 14}


def test_checkpoints_of_earlier_generations_are_extended_in_order_of_their_size() -> None:
    export = CheckpointedExport(THIRD, shows=[2, 5, 8])

    assert export.held(seen(8, SECOND), seen(2), seen(5, SECOND), seen(8, THIRD)) == ([8, 2, 5, 8], [])


def test_how_a_log_follows_on_an_earlier_generation_only_a_whole_export_shows() -> None:
    message = (
        f"the log began anew, as {SECOND}, after a back-up was restored; how it follows on {LOG} only a whole export "
        "shows"
    )

    assert CheckpointedExport(SECOND, whole=False).held(seen(5)) == ([], [Finding(FindingKind.UNPROVEN, message)])
    assert CheckpointedExport(SECOND, whole=False, proofs=[5]).held(seen(5)) == ([5], [])


@pytest.mark.parametrize(
    "restores",
    [
        [],
        [restore(8, 14, origin=SECOND)],
        [restore(8, 14, origin=THIRD)],
        [restore(8, 14, origin="lockbox.test/audit/fabrikam")],
        [restore(8, 14, origin="lockbox.test/audit/adatum")],
    ],
)
def test_a_log_that_does_not_say_why_it_left_an_earlier_generation_is_a_fork(restores: list[RestoreRecord]) -> None:
    found = CheckpointedExport(SECOND, restores=restores).held(seen(14))

    assert found == ([], [forked(f"the log began anew as {SECOND}, and no event of it says why it left {LOG}")])


def test_a_restore_of_an_earlier_generation_explains_nothing_of_a_later_one() -> None:
    found = CheckpointedExport(THIRD, restores=[restore(8, 14)]).held(seen(14, SECOND))

    assert found == ([], [forked(f"the log began anew as {THIRD}, and no event of it says why it left {SECOND}")])


def test_a_checkpoint_of_what_was_given_up_says_from_where_the_log_went_on() -> None:
    export = CheckpointedExport(SECOND, restores=[restore(8, 14)])

    assert export.held(seen(14)) == ([], [given_up(14, 8, NOTHING_SHOWN)])


def test_of_what_was_given_up_the_checkpoint_may_be_no_longer_than_the_log_is_now() -> None:
    export = CheckpointedExport(SECOND, shows=[9], restores=[restore(8, 14)])

    assert export.held(seen(9, root=WRONG)) == ([], [given_up(9, 8, NOTHING_SHOWN)])


def test_how_much_is_common_is_said_by_the_largest_checkpoint_of_that_generation_that_is_extended() -> None:
    export = CheckpointedExport(SECOND, shows=[3, 6], restores=[restore(8, 14)])

    found = export.held(seen(14), seen(6), seen(3))

    assert found == ([3, 6], [given_up(14, 8, "that the first 6 are the same is shown")])


def test_what_another_generation_has_in_common_says_nothing_of_this_one() -> None:
    export = CheckpointedExport(THIRD, shows=[6], restores=[restore(8, 14, origin=SECOND)])

    assert export.held(seen(6), seen(14, SECOND)) == ([6], [given_up(14, 8, NOTHING_SHOWN)])


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_restores_the_one_that_kept_the_least_counts(order: int) -> None:
    restores = [restore(8, 14), restore(4, 10, origin=SECOND), restore(6, 9, origin=SECOND)][::order]

    assert CheckpointedExport(THIRD, restores=restores).held(seen(14)) == ([], [given_up(14, 4, NOTHING_SHOWN)])


@pytest.mark.parametrize("size", [0, 5, 8])
def test_what_stands_before_a_restore_was_not_to_change(size: int) -> None:
    export = CheckpointedExport(SECOND, shows=[5, 8], restores=[restore(8, 14)])

    assert export.held(seen(size, root=WRONG)) == ([], [not_extended_before(size)])


def test_what_stands_before_a_restore_is_not_shown_where_the_log_has_not_its_root() -> None:
    export = CheckpointedExport(SECOND, restores=[restore(8, 14)])

    assert export.held(seen(5)) == ([], [not_shown(5)])


def test_a_restore_that_names_another_root_than_was_given_is_a_fork() -> None:
    named = restore(8, 14, root=WRONG, number=9)

    found = CheckpointedExport(SECOND, restores=[named]).held(seen(14))

    assert found == ([], [forked(f"the restore of {AT} names another root for 14 events than you were given", 9)])


@pytest.mark.parametrize("named", [restore(8, 13, root=WRONG), restore(8, 14, origin=SECOND, root=WRONG)])
def test_a_restore_that_names_the_root_of_another_checkpoint_contradicts_nothing(named: RestoreRecord) -> None:
    found = CheckpointedExport(THIRD, restores=[named]).held(seen(14))

    assert found == ([], [given_up(14, 8, NOTHING_SHOWN)])
