"""Checkpoints: what is signed is what is read, and whatever is not of the form is refused by its name."""

import base64
from dataclasses import replace

import pytest

from lockbox.audit.log import checkpoint
from lockbox.audit.log.checkpoint import BadNote, Checkpoint, UnknownKey, VerifierKey, WrongSignature
from tests.each import each
from tests.logs import KEY, NAME, OTHER_KEY, public

SAID = Checkpoint("lockbox.test/audit/vendor", 7, bytes(range(32)), "2026-01-01T00:00:00.000000Z")
ROOT = base64.b64encode(SAID.root).decode()
KEYS = {public().id: public()}
NO_LINES = "this is no checkpoint: origin, size and root stand on three lines"
NO_FORM = "this is no checkpoint: its size or its root is malformed"
NO_NOTE = "this is no signed note: a blank line stands between text and signatures"
NO_SIGNATURE = "this is no signed note: a line of its signatures is not one"


def _note(**changes: str) -> str:
    """Return a note with lines of one's own, signed as it stands."""
    lines = {"origin": SAID.origin, "size": "7", "root": ROOT} | changes
    signature = base64.b64encode(public().id + bytes(64)).decode()
    return "\n".join(lines.values()) + f"\n\n\u2014 {NAME} {signature}\n"


def _refusal(note: str) -> str:
    """Return why a note is refused as no checkpoint."""
    with pytest.raises(BadNote) as refused:
        checkpoint.read(note)
    return str(refused.value)


def test_a_signed_checkpoint_reads_as_what_was_said() -> None:
    note = checkpoint.sign(SAID, NAME, [KEY])

    assert checkpoint.read(note) == SAID
    assert checkpoint.verify(note, KEYS) == (SAID, public())
    assert note.startswith(f"lockbox.test/audit/vendor\n7\n{ROOT}\n")


def test_each_key_signs_and_the_first_that_is_trusted_is_named() -> None:
    note = checkpoint.sign(SAID, NAME, [OTHER_KEY, KEY])

    assert checkpoint.verify(note, KEYS)[1] == public()
    assert checkpoint.verify(note, KEYS | {public(OTHER_KEY).id: public(OTHER_KEY)})[1] == public(OTHER_KEY)


def test_an_unknown_signer_is_named() -> None:
    note = checkpoint.sign(SAID, NAME, [OTHER_KEY])

    with pytest.raises(UnknownKey) as refused:
        checkpoint.verify(note, KEYS)
    assert str(refused.value) == f"signed by {NAME}+{public(OTHER_KEY).id.hex()}, which you do not trust"


def test_all_unknown_signers_are_named() -> None:
    note = checkpoint.sign(SAID, NAME, [OTHER_KEY, KEY])

    with pytest.raises(UnknownKey) as refused:
        checkpoint.verify(note, {})
    signers = f"{NAME}+{public(OTHER_KEY).id.hex()}, {NAME}+{public().id.hex()}"
    assert str(refused.value) == f"signed by {signers}, which you do not trust"


def test_a_signature_under_another_name_counts_for_nothing() -> None:
    note = checkpoint.sign(SAID, "lockbox.other", [KEY])
    id_ = VerifierKey("lockbox.other", public().public).id

    with pytest.raises(UnknownKey):
        checkpoint.verify(note, {id_: public()})


def test_a_trusted_key_that_has_not_signed_this_is_named() -> None:
    with pytest.raises(WrongSignature) as refused:
        checkpoint.verify(_note(), KEYS)
    assert str(refused.value) == f"the signature by {NAME}+{public().id.hex()} is wrong"


@pytest.mark.parametrize("size", ["", "07", "-1", "seven", "\u0667", "1" * 20, "1" * 40])
def test_a_size_that_is_no_plain_number_is_refused(size: str) -> None:
    assert _refusal(_note(size=size)) == NO_FORM


@pytest.mark.parametrize("size", [0, 1, 10**18, 10**19 - 1])
def test_a_size_has_up_to_nineteen_digits(size: int) -> None:
    assert checkpoint.read(_note(size=str(size))).size == size


def test_a_time_is_said_on_the_first_line_that_begins_as_one() -> None:
    assert checkpoint.read(_note()).at == ""
    assert checkpoint.read(_note(other="timely", time="time then", again="time later")).at == "then"


@pytest.mark.parametrize(
    ("root", "why"),
    [
        ("x", NO_LINES),
        (f"{ROOT[:4]}*{ROOT[4:]}", NO_LINES),
        (base64.b64encode(bytes(31)).decode(), NO_FORM),
        (base64.b64encode(bytes(33)).decode(), NO_FORM),
    ],
)
def test_a_root_that_is_none_is_refused(root: str, why: str) -> None:
    assert _refusal(_note(root=root)) == why


def test_a_checkpoint_without_an_origin_or_with_two_lines_is_refused() -> None:
    assert _refusal(_note(origin="")) == NO_FORM
    assert _refusal("a\n7\n\n\u2014 x AAAAAAAA\n") == NO_LINES


@pytest.mark.parametrize(
    ("note", "why"),
    [
        ("", NO_NOTE),
        ("a\nb\nc\n", NO_NOTE),
        (f"a\n7\n{ROOT}\n\n\u2014 x AAAAAAA=", NO_NOTE),
        (f"a\n7\n{ROOT}\n\n\u2014 x AAAAAAA=x", NO_NOTE),
        (f"a\n7\n{ROOT}\n\n\n", NO_NOTE),
        (f"a\n7\n{ROOT}\n\nx AAAAAAA=\n", NO_SIGNATURE),
    ],
)
def test_what_is_no_signed_note_is_refused(note: str, why: str) -> None:
    assert _refusal(note) == why


@pytest.mark.parametrize("encoded", ["AAAA", "AAAAAA==", "!", "AAAA*AAA="])
def test_a_signature_that_is_none_or_empty_is_refused(encoded: str) -> None:
    assert _refusal(f"a\n7\n{ROOT}\n\n\u2014 x {encoded}\n") == NO_SIGNATURE


@pytest.mark.parametrize("name", ["a+b", "", "a b"])
def test_a_signature_under_what_is_no_name_is_refused(name: str) -> None:
    assert _refusal(f"a\n7\n{ROOT}\n\n\u2014 {name} AAAAAAA=\n") == NO_SIGNATURE


def test_a_note_of_more_than_4096_characters_is_refused() -> None:
    room = 4096 - len(_note(further=""))

    assert checkpoint.read(_note(further="x" * room)) == replace(SAID, at="")
    assert _refusal(_note(further="x" * (room + 1))) == "this is too long for a checkpoint"


def test_a_key_reads_as_it_is_written_and_has_a_fingerprint() -> None:
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
def test_a_text_that_is_no_key_is_refused(text: str) -> None:
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
def test_a_log_keeps_its_name_over_its_generations(origin: str, name: str, generation: int) -> None:
    assert checkpoint.named(origin) == (name, generation)


def test_a_note_is_the_same_whatever_saved_it() -> None:
    note = checkpoint.sign(SAID, NAME, [KEY])

    assert checkpoint.saved("\ufeff\r\n" + note.replace("\n", "\r\n") + "\r\n") == note
    assert checkpoint.saved(" X\t\n\nX ") == " X\t\n\nX \n"
    assert checkpoint.saved("\nXaX\n") == "XaX\n"


@pytest.mark.parametrize(
    ("name", "good"), [("a", True), ("", False), ("a b", False), ("a+b", False), ("a\u00a0", False)]
)
def test_a_name_has_no_white_space_and_no_plus_sign(name: str, good: bool) -> None:  # noqa: FBT001 - a case of a table
    assert checkpoint.is_name(name) is good
