"""Keys of sign-ins, roles and codes: derived from a root, known by their ids, and trusted while configured."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from lockbox.audit.log.signing_keys import BadKey
from lockbox.identity import keyring
from lockbox.identity.keyring import ApprovalKeys, CodeKeys, KeyPurpose, Keyring, Keys

OLD, NEW = b"o" * 32, b"n" * 32
ABOUT = UUID(int=7)
PART = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.uuids() | st.lists(st.text())


def test_keyring_keys_of_different_purposes_differ() -> None:
    derived = {keyring.derived(OLD, purpose) for purpose in KeyPurpose}

    assert len(derived) == len(KeyPurpose)
    assert OLD not in derived


def test_a_mac_is_valid_for_exactly_its_own_content() -> None:
    keys = Keys([NEW])
    mark = keys.mark("session", ABOUT, None)

    assert keys.is_mark(mark, "session", ABOUT, None)
    assert not keys.is_mark(mark, "session", ABOUT)
    assert not keys.is_mark(mark, "session", ABOUT, "None")
    assert not keys.is_mark(mark[:-1], "session", ABOUT, None)
    assert not keys.is_mark(None, "session", ABOUT, None)
    assert not keys.is_mark(b"", "session", ABOUT, None)


@given(st.lists(PART, max_size=4), st.lists(PART, max_size=4))
def test_different_contents_have_different_macs(one: list[object], other: list[object]) -> None:
    keys = Keys([NEW])

    same = [(type(part), part) for part in one] == [(type(part), part) for part in other]
    assert same == (keys.mark(*one) == keys.mark(*other)) or _alike(one, other)


def _alike(one: list[object], other: list[object]) -> bool:
    """An id equals its text: no column holds sometimes the one and sometimes the other."""
    return [str(part) if isinstance(part, UUID) else part for part in one] == [
        str(part) if isinstance(part, UUID) else part for part in other
    ]


def test_a_mac_ignores_the_time_zone_of_times() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    assert Keys([NEW]).mark(at) == Keys([NEW]).mark(at.astimezone(timezone(timedelta(hours=5))))
    assert Keys([NEW]).mark(at) != Keys([NEW]).mark(at + timedelta(microseconds=1))


def test_an_older_keyring_key_verifies_macs_and_makes_no_new_mac() -> None:
    before, during, after = Keys([OLD]), Keys([NEW, OLD]), Keys([NEW])
    mark = before.mark("token")

    assert during.is_mark(mark, "token")
    assert not during.is_newest(mark)
    assert mark in during.marks("token")
    assert during.mark("token") == after.mark("token")
    assert not after.is_mark(mark, "token")


def test_a_resent_mail_has_the_same_code_after_a_key_rotation() -> None:
    before, during, after = CodeKeys([OLD]), CodeKeys([NEW, OLD]), CodeKeys([NEW])
    nonce = before.nonce()

    assert before.long(nonce, ABOUT) == before.long(nonce, ABOUT) == during.long(nonce, ABOUT)
    assert before.short(nonce, ABOUT) == during.short(nonce, ABOUT)
    assert after.long(nonce, ABOUT) is None
    assert after.short(nonce, ABOUT) is None


def test_a_derived_code_belongs_to_one_row_and_one_address() -> None:
    codes = CodeKeys([NEW])
    nonce, other = codes.nonce(), codes.nonce()

    said = {
        codes.long(nonce, ABOUT, "a@x.example"),
        codes.long(nonce, ABOUT, "b@x.example"),
        codes.long(nonce, UUID(int=8), "a@x.example"),
        codes.long(other, ABOUT, "a@x.example"),
    }

    assert len(said) == 4
    assert all(len(one or "") == 39 for one in said)
    assert len(codes.short(nonce, ABOUT) or "") == 8


def test_the_derived_code_key_makes_the_same_codes_as_the_root_key_but_nothing_else(tmp_path: Path) -> None:
    root, codes = tmp_path / "root", tmp_path / "codes"
    keyring.make(root)
    keyring.make_codes(root, codes)

    ring, of_the_worker = keyring.read([root]), keyring.read_codes([codes])

    nonce = ring.codes.nonce()
    assert of_the_worker.short(nonce, ABOUT) == ring.codes.short(nonce, ABOUT)
    assert root.stat().st_mode & 0o777 == codes.stat().st_mode & 0o777 == 0o600
    with pytest.raises(BadKey, match="holds no lockbox-credential-key-1"):
        keyring.read([codes])
    with pytest.raises(BadKey, match="holds no lockbox-code-key-1"):
        keyring.read_codes([root])


def test_the_derived_row_mac_key_checks_macs_of_the_root_key_but_nothing_else(tmp_path: Path) -> None:
    root, marks = tmp_path / "root", tmp_path / "marks"
    keyring.make(root)
    keyring.make_marks(root, marks)

    ring, of_the_worker = keyring.read([root]), keyring.read_marks([marks])

    assert of_the_worker.can_check
    assert of_the_worker.powers.is_mark(ring.powers.mark("token"), "token")
    assert of_the_worker.secrets.marks("token") == []
    assert of_the_worker.codes.long(ring.codes.nonce(), ABOUT) is None
    for read, file in ((keyring.read, marks), (keyring.read_codes, marks), (keyring.read_marks, root)):
        with pytest.raises(BadKey, match="holds no lockbox-"):
            read([file])


@pytest.mark.parametrize("content", ["", "lockbox-credential-key-1:", "lockbox-credential-key-1:AAAA", "\u00e4"])
def test_an_invalid_keyring_key_is_refused_with_advice(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content, encoding="utf-8")

    with pytest.raises(BadKey, match="new-credential-key"):
        keyring.read([tmp_path / "key"])


def test_a_keyring_key_is_never_overwritten_and_a_missing_key_is_named(tmp_path: Path) -> None:
    keyring.make(tmp_path / "key")

    with pytest.raises(BadKey, match="never written over"):
        keyring.make(tmp_path / "key")
    with pytest.raises(BadKey, match="cannot be read"):
        keyring.read([tmp_path / "none"])


def test_the_development_keyring_is_equal_in_every_process() -> None:
    nonce = keyring.development().codes.nonce()

    assert keyring.development_codes().long(nonce, ABOUT) == keyring.development().codes.long(nonce, ABOUT)
    assert isinstance(keyring.development(), Keyring)


def test_a_remembered_signature_check_covers_the_same_bytes_only() -> None:
    keys, others = (ApprovalKeys([Ed25519PrivateKey.generate()]) for _ in "ab")
    signed = keys.sign(b"opened")

    assert [keys.has_signed(b"opened", signed) for _ in "ab"] == [True, True]
    assert not keys.has_signed(b"opened ", signed)
    assert not keys.has_signed(b"opened", replace(signed, signature=keys.sign(b"other").signature))
    assert not others.has_signed(b"opened", signed)
    assert keys.has_signed(b"opened", signed)
