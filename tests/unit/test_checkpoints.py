"""Checkpoints: a signed note reads back unchanged, and each malformed note is refused with the reason."""

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lockbox.audit.log import checkpoint, merkle
from lockbox.audit.log.checkpoint import BadNote, Checkpoint, UnknownKey, VerifierKey, WrongSignature
from lockbox.audit.log.merkle import leaf_hash, root_of
from lockbox.audit.verifier.consistency import ConsistencyChecker
from lockbox.audit.verifier.event_checks import RestoreRecord
from lockbox.audit.verifier.export_format import ExportHeader, Finding, FindingKind, Findings
from tests.each import each
from tests.logs import KEY, NAME, OTHER_KEY, public, subtree_of

SAID = Checkpoint("lockbox.test/audit/vendor", 7, bytes(range(32)), "2026-01-01T00:00:00.000000Z")
ROOT = base64.b64encode(SAID.root).decode()
KEYS = {public().id: public()}
NO_LINES = "this is no checkpoint: origin, size and root stand on three lines"
NO_FORM = "this is no checkpoint: its size or its root is malformed"
NO_NOTE = "this is no signed note: a blank line stands between text and signatures"
NO_SIGNATURE = "this is no signed note: a line of its signatures is not one"


def _note(**changes: str) -> str:
    """Return a note with these changed lines and a signature of zeros."""
    lines = {"origin": SAID.origin, "size": "7", "root": ROOT} | changes
    signature = base64.b64encode(public().id + bytes(64)).decode()
    return "\n".join(lines.values()) + f"\n\n\u2014 {NAME} {signature}\n"


def _refusal(note: str) -> str:
    with pytest.raises(BadNote) as refused:
        checkpoint.read(note)
    return str(refused.value)


def test_a_signed_checkpoint_can_be_read_back() -> None:
    note = checkpoint.sign(SAID, NAME, [KEY])

    assert checkpoint.read(note) == SAID
    assert checkpoint.verify(note, KEYS) == (SAID, public())
    assert note.startswith(f"lockbox.test/audit/vendor\n7\n{ROOT}\n")


def test_several_keys_may_sign_a_checkpoint_and_the_first_trusted_key_is_named() -> None:
    note = checkpoint.sign(SAID, NAME, [OTHER_KEY, KEY])

    assert checkpoint.verify(note, KEYS)[1] == public()
    assert checkpoint.verify(note, KEYS | {public(OTHER_KEY).id: public(OTHER_KEY)})[1] == public(OTHER_KEY)


@pytest.mark.parametrize(("signers", "trusted"), [([OTHER_KEY], KEYS), ([OTHER_KEY, KEY], {})])
def test_all_unknown_signers_of_a_checkpoint_are_named(
    signers: list[Ed25519PrivateKey], trusted: dict[bytes, VerifierKey]
) -> None:
    with pytest.raises(UnknownKey) as refused:
        checkpoint.verify(checkpoint.sign(SAID, NAME, signers), trusted)
    named = ", ".join(f"{NAME}+{public(key).id.hex()}" for key in signers)
    assert str(refused.value) == f"signed by {named}, which you do not trust"


def test_a_checkpoint_signature_under_another_name_does_not_count() -> None:
    note = checkpoint.sign(SAID, "lockbox.other", [KEY])
    id_ = VerifierKey("lockbox.other", public().public).id

    with pytest.raises(UnknownKey):
        checkpoint.verify(note, {id_: public()})


def test_a_trusted_key_that_did_not_sign_a_checkpoint_is_named() -> None:
    with pytest.raises(WrongSignature) as refused:
        checkpoint.verify(_note(), KEYS)
    assert str(refused.value) == f"the signature by {NAME}+{public().id.hex()} is wrong"


@pytest.mark.parametrize("size", [0, 1, 10**18, 10**19 - 1])
def test_the_size_in_a_checkpoint_has_up_to_nineteen_digits(size: int) -> None:
    assert checkpoint.read(_note(size=str(size))).size == size


def test_the_time_of_a_checkpoint_is_read_from_its_first_line_that_starts_with_time() -> None:
    assert checkpoint.read(_note()).at == ""
    assert checkpoint.read(_note(other="timely", time="time then", again="time later")).at == "then"


@each(
    ("note", "why"),
    [
        *((_note(size=one), NO_FORM) for one in ("", "07", "-1", "seven", "\u0667", "1" * 20, "1" * 40)),
        *((_note(root=one), NO_LINES) for one in ("x", f"{ROOT[:4]}*{ROOT[4:]}")),
        *((_note(root=base64.b64encode(bytes(one)).decode()), NO_FORM) for one in (31, 33)),
        (_note(origin=""), NO_FORM),
        ("a\n7\n\n\u2014 x AAAAAAAA\n", NO_LINES),
        ("", NO_NOTE),
        ("a\nb\nc\n", NO_NOTE),
        (f"a\n7\n{ROOT}\n\n\u2014 x AAAAAAA=", NO_NOTE),
        (f"a\n7\n{ROOT}\n\n\u2014 x AAAAAAA=x", NO_NOTE),
        (f"a\n7\n{ROOT}\n\n\n", NO_NOTE),
        (f"a\n7\n{ROOT}\n\nx AAAAAAA=\n", NO_SIGNATURE),
        *((f"a\n7\n{ROOT}\n\n\u2014 x {one}\n", NO_SIGNATURE) for one in ("AAAA", "AAAAAA==", "!", "AAAA*AAA=")),
        *((f"a\n7\n{ROOT}\n\n\u2014 {one} AAAAAAA=\n", NO_SIGNATURE) for one in ("a+b", "", "a b")),
    ],
)
def test_a_malformed_checkpoint_is_refused_with_the_reason(note: str, why: str) -> None:
    assert _refusal(note) == why


def test_a_checkpoint_note_of_more_than_4096_characters_is_refused() -> None:
    room = 4096 - len(_note(further=""))

    assert checkpoint.read(_note(further="x" * room)) == replace(SAID, at="")
    assert _refusal(_note(further="x" * (room + 1))) == "this is too long for a checkpoint"


def test_a_verifier_key_reads_back_and_has_a_fingerprint() -> None:
    key = public()

    assert VerifierKey.read(f" {key.text}\n") == key
    assert [len(part) for part in key.fingerprint.split(" ")] == [8] * 8
    assert replace(key, name="other").fingerprint == key.fingerprint


@each(
    "text",
    [
        "",
        "lockbox.test",
        public().text.replace("lockbox.test", "lockbox.toast"),
        public().text[:-4],
        f"{NAME}+00000000+{public().text.rpartition('+')[2]}",
        f"{NAME}+{public().id.hex()}+{base64.b64encode(bytes([2]) + public().public).decode()}",
        f"{NAME}+{public().id.hex()}+%%%",
        public().text[:-4] + "*" + public().text[-4:],
        public().text + "+",
    ],
)
def test_a_malformed_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(BadNote) as refused:
        VerifierKey.read(text)
    assert str(refused.value) == "this is no key of the form name+id+base64 for Ed25519"


@pytest.mark.parametrize(
    ("origin", "name", "generation"),
    [
        ("x/audit/vendor", "x/audit/vendor", 1),
        ("x/audit/vendor/2", "x/audit/vendor", 2),
        ("x/audit/vendor/two", "x/audit/vendor/two", 1),
        ("x/y/2", "x/y/2", 1),
        ("x/audit/vendor/" + "1" * 19, "x/audit/vendor", int("1" * 19)),
        ("x/audit/vendor/" + "1" * 20, "x/audit/vendor/" + "1" * 20, 1),
        ("x/audit/vendor/" + "1" * 40, "x/audit/vendor/" + "1" * 40, 1),
    ],
)
def test_a_log_keeps_its_name_across_generations(origin: str, name: str, generation: int) -> None:
    assert checkpoint.named(origin) == (name, generation)


def test_the_line_endings_of_a_saved_checkpoint_note_do_not_matter() -> None:
    note = checkpoint.sign(SAID, NAME, [KEY])

    assert checkpoint.saved("\ufeff\r\n" + note.replace("\n", "\r\n") + "\r\n") == note
    assert checkpoint.saved(" X\t\n\nX ") == " X\t\n\nX \n"
    assert checkpoint.saved("\nXaX\n") == "XaX\n"


@pytest.mark.parametrize(
    ("name", "good"), [("a", True), ("", False), ("a b", False), ("a+b", False), ("a\u00a0", False)]
)
def test_a_key_name_with_white_space_or_a_plus_sign_is_refused(name: str, good: bool) -> None:  # noqa: FBT001 - a case of a table
    assert checkpoint.is_name(name) is good


LOG = "lockbox.test/audit/contoso"
SECOND, THIRD = f"{LOG}/2", f"{LOG}/3"
AT, THEN = "2026-01-09T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z"
LEAVES = [leaf_hash(str(number).encode()) for number in range(20)]
SIZE = 12
WRONG = bytes(32)


def seen(size: int, origin: str = LOG, root: bytes | None = None) -> Checkpoint:
    """Return a checkpoint seen earlier, with the log's root at that size or with another root."""
    return Checkpoint(origin, size, root_of(LEAVES[:size]) if root is None else root, THEN)


def restore(
    size: int, shipped: int, *, origin: str = LOG, root: bytes | None = None, number: int | None = None
) -> RestoreRecord:
    """Return the record of a restore; its event's number is by default the size from which the log continued."""
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

    def held(self, *before: Checkpoint) -> tuple[list[int], list[Finding]]:
        """Return the sizes of the checkpoints that the export extends, and the findings."""
        proofs = {old: merkle.consistency(subtree_of(LEAVES), old, SIZE) for old in self.proofs}
        header = ExportHeader(self.origin, "contoso", 1, SIZE, "", self.whole, {}, proofs)
        findings = Findings()
        holding = ConsistencyChecker(header, Checkpoint(self.origin, SIZE, root_of(LEAVES[:SIZE]), AT), findings)
        for one in before:
            holding.take(one)
        holding.finish({size: root_of(LEAVES[:size]) for size in self.shows}, self.restores)
        return [one.size for one in holding.extended], findings.first


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
def test_a_checkpoint_is_confirmed_by_a_proof_or_by_the_hashes_of_the_log(size: int) -> None:
    by_proof = CheckpointedExport(whole=False, proofs=[size]).held(seen(size))
    by_hashes = CheckpointedExport(shows=[size]).held(seen(size))

    assert by_proof == by_hashes == ([size], [])


@pytest.mark.parametrize("size", [0, 1, 5, 8, 11, 12])
def test_a_root_that_differs_from_a_seen_checkpoint_is_a_fork(size: int) -> None:
    by_proof = CheckpointedExport(whole=False, proofs=[size]).held(seen(size, root=WRONG))
    by_hashes = CheckpointedExport(shows=[size]).held(seen(size, root=WRONG))

    assert by_proof == by_hashes == ([], [not_extended(size)])


FABRIKAM = "lockbox.test/audit/fabrikam"
LOST = given_up(14, 8, NOTHING_SHOWN)
ANOTHER_ROOT = f"the restore of {AT} names another root for 14 events than you were given"
TWO_ROOTS = forked(f"of {LOG} at 14 events you gave checkpoints with different roots")
OF_ANOTHER_LOG = Finding(FindingKind.ANOTHER_LOG, f"the checkpoint that you gave is of {FABRIKAM}, not {LOG}")
UNLINKED = Finding(
    FindingKind.UNPROVEN,
    f"the log began anew, as {SECOND}, after a back-up was restored; "
    f"how it follows on {LOG} only a whole export shows",
)
FIRST, NEXT = restore(8, 14), restore(8, 14, origin=SECOND)
SEVERAL = [FIRST, restore(4, 10, origin=SECOND), restore(6, 9, origin=SECOND)]


def unexplained(new: str, old: str) -> Finding:
    return forked(f"the log began anew as {new}, and no event of it says why it left {old}")


def of(origin: str = LOG, **facts: Any) -> CheckpointedExport:
    return CheckpointedExport(origin, **facts)


@each(
    ("export", "before", "extended", "findings"),
    [
        # A log that nobody restored.
        (of(proofs=[4], shows=[6]), [seen(5)], [], [not_shown(5)]),
        (of(), [seen(5), seen(5)], [], [not_shown(5)] * 2),
        (of(), [seen(5), seen(5, root=WRONG), seen(6)], [], [*[not_extended(5)] * 2, not_shown(6)]),
        (of(shows=[5]), [seen(5, FABRIKAM)], [], [OF_ANOTHER_LOG]),
        # An earlier generation's checkpoints count by their number of events; only a whole export links generations.
        (of(THIRD, shows=[2, 5, 8]), [seen(8, SECOND), seen(2), seen(5, SECOND), seen(8, THIRD)], [8, 2, 5, 8], []),
        (of(SECOND, whole=False), [seen(5)], [], [UNLINKED]),
        (of(SECOND, whole=False, proofs=[5]), [seen(5)], [5], []),
        # A new generation that no restore explains is a fork.
        *(
            (of(SECOND, restores=restores), [seen(14)], [], [unexplained(SECOND, LOG)])
            for restores in ([], *([restore(8, 14, origin=one)] for one in (SECOND, THIRD, FABRIKAM, f"{LOG}x")))
        ),
        (of(THIRD, restores=[FIRST]), [seen(14, SECOND)], [], [unexplained(THIRD, SECOND)]),
        # A checkpoint that a restore gave up: it may not exceed the log.
        (of(SECOND, restores=[FIRST]), [seen(14)], [], [LOST]),
        (of(SECOND, shows=[9], restores=[FIRST]), [seen(9, root=WRONG)], [], [given_up(9, 8, NOTHING_SHOWN)]),
        # The report names the largest checkpoint that the log extends, and of its own generation alone.
        (
            of(SECOND, shows=[3, 6], restores=[FIRST]),
            [seen(14), seen(6), seen(3)],
            [3, 6],
            [given_up(14, 8, "that the first 6 are the same is shown")],
        ),
        (of(THIRD, shows=[6], restores=[NEXT]), [seen(6), seen(14, SECOND)], [6], [LOST]),
        # Of several restores it is the one that kept the fewest events.
        *(
            (of(THIRD, restores=restores), [seen(14)], [], [given_up(14, 4, NOTHING_SHOWN)])
            for restores in (SEVERAL, SEVERAL[::-1])
        ),
        # What was before a restore must be unchanged, and is unproven without its root.
        *(
            (of(SECOND, shows=[5, 8], restores=[FIRST]), [seen(size, root=WRONG)], [], [not_extended_before(size)])
            for size in (0, 5, 8)
        ),
        (of(SECOND, restores=[FIRST]), [seen(5)], [], [not_shown(5)]),
        # Two roots of one size are a fork, but not in two generations, nor of another size.
        *(
            (
                of(SECOND, whole=whole, restores=[restore(8, 13)]),
                [seen(14), seen(14, root=WRONG)],
                [],
                [TWO_ROOTS] * 2,
            )
            for whole in (True, False)
        ),
        (
            of(THIRD, restores=[FIRST, NEXT]),
            [seen(14), seen(14, SECOND, WRONG), seen(14)],
            [],
            [LOST, forked(ANOTHER_ROOT, 8), LOST],
        ),
        (of(SECOND, restores=[restore(8, 14, root=WRONG, number=9)]), [seen(14)], [], [forked(ANOTHER_ROOT, 9)]),
        *(
            (of(THIRD, restores=[named]), [seen(14)], [], [LOST])
            for named in (restore(8, 13, root=WRONG), restore(8, 14, origin=SECOND, root=WRONG))
        ),
    ],
)
def test_the_verifier_reports_whether_the_log_continues_checkpoints_seen_earlier(
    export: CheckpointedExport, before: list[Checkpoint], extended: list[int], findings: list[Finding]
) -> None:
    assert export.held(*before) == (extended, findings)


@pytest.mark.parametrize(
    ("export", "size", "origin", "says"),
    [
        (CheckpointedExport(SECOND, shows=[5]), 5, THIRD, (f"a checkpoint of {THIRD} that was seen before",)),
        (CheckpointedExport(), 13, LOG, ("the export ends at 12 events (", "has 13, and was signed no later")),
    ],
)
def test_an_export_that_ends_before_a_seen_checkpoint_counts_as_older(
    export: CheckpointedExport, size: int, origin: str, says: tuple[str, ...]
) -> None:
    extended, (finding,) = export.held(seen(size, origin))

    assert (finding.kind, extended) == (FindingKind.OLDER, [])
    assert all(words in finding.message for words in says)


def test_the_sizes_to_prove_are_checkpoint_sizes_of_this_and_earlier_log_generations() -> None:
    own = Checkpoint(SECOND, SIZE, root_of(LEAVES[:SIZE]), AT)
    holding = ConsistencyChecker(
        ExportHeader(SECOND, "contoso", 2, SIZE, "", whole=True, asked={}, consistency={}), own, Findings()
    )

    for one in (seen(5, SECOND), seen(7, SECOND), seen(7), seen(14), seen(9, THIRD), seen(13, SECOND), seen(3, "x")):
        holding.take(one)

    assert holding.sizes == {5, 7, 14}
