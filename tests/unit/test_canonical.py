"""The canonical bytes of an event, against a published implementation of RFC 8785."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.audit.canonical import LARGEST_INTEGER, canonical, commitment, decoded, instant, new_salt
from tests.examples import examples

NAMES = st.text(st.characters(max_codepoint=127), max_size=12)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    TEXTS,
    st.lists(TEXTS, max_size=4),
    st.dictionaries(NAMES, TEXTS, max_size=4),
)


@settings(max_examples=examples(100), deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_canonical_json_matches_rfc_8785(fields: dict[str, Any]) -> None:
    assert canonical(fields) == rfc8785.dumps(fields)


@settings(max_examples=examples(30), deadline=None)
@given(st.dictionaries(NAMES, VALUES, min_size=2, max_size=6))
def test_the_order_of_fields_does_not_matter_in_canonical_json(fields: dict[str, Any]) -> None:
    backwards = dict(reversed(fields.items()))

    assert canonical(backwards) == canonical(fields)


def test_canonical_json_keeps_non_ascii_text_and_escapes_control_characters() -> None:
    assert canonical({"b": "Zoë 🔐", "a": 'x"\n\x00\x7f\u2028'}) == (
        '{"a":"x\\"\\n\\u0000\x7f\u2028","b":"Zoë 🔐"}'.encode()
    )


@pytest.mark.parametrize("number", [LARGEST_INTEGER + 1, -LARGEST_INTEGER - 1, 10**30])
def test_canonical_json_refuses_a_number_beyond_the_safe_range(number: int) -> None:
    with pytest.raises(ValueError, match=r"^a number in an event is at most 2\^53 - 1$"):
        canonical({"n": number})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1.5, "float"),
        (0.0, "float"),
        (float("nan"), "float"),
        (b"bytes", "bytes"),
        ({1, 2}, "set"),
        (timedelta(1), "timedelta"),
    ],
)
def test_canonical_json_refuses_floats_and_other_types_and_names_the_refused_type(value: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"^an event holds no {name}$"):
        canonical({"v": value})


def test_canonical_json_refuses_a_non_ascii_member_name() -> None:
    with pytest.raises(ValueError, match=r"^names in an event are ASCII$"):
        canonical({"ä": 1})


def test_canonical_json_refuses_a_lone_surrogate() -> None:
    with pytest.raises(UnicodeEncodeError):
        canonical({"v": "\ud800"})


def test_times_in_canonical_json_are_utc_with_six_digits() -> None:
    summer = datetime(2026, 7, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))

    assert instant(summer) == "2026-06-30T22:30:00.000000Z"
    assert canonical({"at": summer, "id": UUID(int=7)}) == (
        b'{"at":"2026-06-30T22:30:00.000000Z","id":"00000000-0000-0000-0000-000000000007"}'
    )
    assert instant(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000000Z"


def test_a_commitment_is_the_hash_of_salt_and_value() -> None:
    salt = bytes(range(16))

    assert commitment(salt, "Änne") == hashlib.sha256(salt + "Änne".encode()).hexdigest()
    assert commitment(salt, "Änne") != commitment(bytes(16), "Änne")


def test_the_salts_of_commitments_are_128_random_bits() -> None:
    salts = {new_salt() for _ in range(100)}

    assert len(salts) == 100
    assert {len(salt) for salt in salts} == {16}


@settings(max_examples=examples(60), deadline=None)
@given(st.binary(max_size=70))
def test_every_byte_string_has_one_accepted_base64_text(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()

    assert decoded(text) == raw
    for place, mark in enumerate(text):
        for other in {"A", "B", "Q", "/", "="} - {mark}:
            changed = text[:place] + other + text[place + 1 :]
            try:
                assert decoded(changed) != raw, changed
            except ValueError:
                continue


@pytest.mark.parametrize("text", ["QQ", "QR==", "QUF=", "QQ==\n", "Q Q==", "QQ==QQ==", "é"])
def test_a_base64_text_that_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decoded(text)
