"""Checkpoints: what is signed is what is read, and whatever is not of the form is refused by its name."""

import base64
from dataclasses import replace

import pytest

from lockbox.audit import checkpoint
from lockbox.audit.checkpoint import BadNote, Checkpoint, UnknownKey, VerifierKey, WrongSignature
from tests.logs import KEY, NAME, OTHER_KEY, public

SAID = Checkpoint("lockbox.test/audit/vendor", 7, bytes(range(32)), "2026-01-01T00:00:00.000000Z")
ROOT = base64.b64encode(SAID.root).decode()
KEYS = {public().id: public()}


def _note(**changes: str) -> str:
    """Return a note with lines of one's own, signed as it stands."""
    lines = {"origin": SAID.origin, "size": "7", "root": ROOT} | changes
    signature = base64.b64encode(public().id + bytes(64)).decode()
    return "\n".join(lines.values()) + f"\n\n\u2014 {NAME} {signature}\n"


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
    assert str(refused.value) == f"signed by {NAME}+{public(OTHER_KEY).id.hex()}, which is no key that you trust"


def test_a_signature_under_another_name_counts_for_nothing() -> None:
    note = checkpoint.sign(SAID, "lockbox.other", [KEY])
    id_ = VerifierKey("lockbox.other", public().public).id

    with pytest.raises(UnknownKey):
        checkpoint.verify(note, {id_: public()})


def test_a_trusted_key_that_has_not_signed_this_is_named() -> None:
    with pytest.raises(WrongSignature) as refused:
        checkpoint.verify(_note(), KEYS)
    assert str(refused.value) == f"the signature by {NAME}+{public().id.hex()} is wrong"


@pytest.mark.parametrize("size", ["", "07", "-1", "seven", "\u0667", "1" * 40])
def test_a_size_that_is_no_plain_number_is_refused(size: str) -> None:
    with pytest.raises(BadNote, match="its size or its root is not of the right form"):
        checkpoint.read(_note(size=size))


def test_an_empty_log_may_say_so() -> None:
    assert checkpoint.read(_note(size="0")).size == 0
    assert checkpoint.read(_note()).at == ""


@pytest.mark.parametrize("root", ["x", base64.b64encode(bytes(31)).decode(), base64.b64encode(bytes(33)).decode()])
def test_a_root_that_is_none_is_refused(root: str) -> None:
    with pytest.raises(BadNote, match="this is no checkpoint"):
        checkpoint.read(_note(root=root))


def test_a_checkpoint_without_an_origin_or_with_two_lines_is_refused() -> None:
    with pytest.raises(BadNote, match="right form"):
        checkpoint.read(_note(origin=""))
    with pytest.raises(BadNote, match="stand on three lines"):
        checkpoint.read("a\n7\n\n\u2014 x AAAAAAAA\n")


@pytest.mark.parametrize(
    "note", ["", "a\nb\nc\n", f"a\n7\n{ROOT}\n\n\u2014 x AAAAAAA=", f"a\n7\n{ROOT}\n\nx AAAAAAA=\n"]
)
def test_what_is_no_signed_note_is_refused(note: str) -> None:
    with pytest.raises(BadNote, match="this is no signed note"):
        checkpoint.read(note)


@pytest.mark.parametrize("line", ["\u2014 x AAAA", "\u2014 x !", "\u2014 a+b AAAAAAA=", "\u2014  AAAAAAA="])
def test_a_line_of_signatures_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(BadNote, match="a line of its signatures is not one"):
        checkpoint.read(f"a\n7\n{ROOT}\n\n{line}\n")


def test_a_note_without_end_is_refused() -> None:
    with pytest.raises(BadNote, match="too long"):
        checkpoint.read(_note(further="x" * 1_000_000))


def test_a_key_reads_as_it_is_written_and_has_a_fingerprint() -> None:
    key = public()

    assert VerifierKey.read(f" {key.text}\n") == key
    assert [len(part) for part in key.fingerprint.split(" ")] == [8] * 8
    assert replace(key, name="other").fingerprint == key.fingerprint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lockbox.test",
        public().text.replace("lockbox.test", "lockbox.toast"),
        public().text[:-4],
        f"{NAME}+00000000+{public().text.rpartition('+')[2]}",
        f"{NAME}+{public().id.hex()}+{base64.b64encode(bytes([2]) + public().public).decode()}",
        f"{NAME}+{public().id.hex()}+%%%",
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
        ("x/audit/vendor/" + "1" * 40, "x/audit/vendor/" + "1" * 40, 1),
    ],
)
def test_a_log_keeps_its_name_over_its_generations(origin: str, name: str, generation: int) -> None:
    assert checkpoint.named(origin) == (name, generation)


def test_a_note_is_the_same_whatever_saved_it() -> None:
    note = checkpoint.sign(SAID, NAME, [KEY])

    assert checkpoint.saved("\ufeff\r\n" + note.replace("\n", "\r\n") + "\r\n") == note


@pytest.mark.parametrize(
    ("name", "good"), [("a", True), ("", False), ("a b", False), ("a+b", False), ("a\u00a0", False)]
)
def test_a_name_has_no_white_space_and_no_plus_sign(name: str, good: bool) -> None:  # noqa: FBT001 - a case of a table
    assert checkpoint.is_name(name) is good
