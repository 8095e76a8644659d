"""Identifiers, and the form of tokens and due times."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from lockbox.database import NO_KEYS, UnitOfWork, WarnedSession, postgres_clock
from lockbox.errors import NotSignedIn
from lockbox.identity import authentication
from lockbox.schedule import IndexEntry
from lockbox.sql import new_id
from tests.each import each

BODY = "lbx_test_0197f3a0a0a07a0a8a0a0a0a0a0a0a0a_" + "s" * 43
GOOD = BODY + "6c89ee55"


def test_ids_are_version_7_uuids_in_creation_order() -> None:
    ids = [new_id() for _ in range(1000)]

    assert {one.version for one in ids} == {7}
    assert {one.variant for one in ids} == {"specified in RFC 4122"}
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)


def test_an_id_begins_with_the_time_of_its_creation() -> None:
    before = time.time_ns() // 1_000_000

    made = new_id().int >> 80

    assert before <= made <= time.time_ns() // 1_000_000


@each(
    ("due", "score"),
    [
        (None, ""),
        (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), "1000"),
        (datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC), "1001"),
        (datetime(1970, 1, 1, 0, 0, 1, 999_001, tzinfo=UTC), "2000"),
        (timedelta(0), "+0"),
        (timedelta(milliseconds=250), "+250"),
        (timedelta(microseconds=1), "+1"),
        (timedelta(seconds=1, microseconds=1), "+1001"),
    ],
)
def test_a_due_time_in_the_index_is_rounded_up_to_the_millisecond(
    due: datetime | timedelta | None, score: str
) -> None:
    assert IndexEntry("id", "expire", due).score == score


def test_an_index_score_is_never_before_its_due_time() -> None:
    start = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)
    instants = [start + timedelta(microseconds=micros) for micros in range(0, 5000, 7)]

    for moment in instants:
        late_by = int(IndexEntry("id", "expire", moment).score) - moment.timestamp() * 1000
        assert -0.001 < late_by < 1.001


def test_the_text_of_a_token_shows_environment_and_id() -> None:
    parts = authentication.TOKEN_FORM.fullmatch(GOOD)

    assert parts is not None
    assert parts["env"] == "test"
    assert parts["id"] == "0197f3a0a0a07a0a8a0a0a0a0a0a0a0a"
    assert parts["secret"] == "s" * 43
    assert parts["checksum"] == "6c89ee55"


def test_the_checksum_of_a_token_is_the_crc_32_of_the_rest() -> None:
    assert authentication.token_checksum("123456789") == "cbf43926"
    assert authentication.token_checksum("lbx_116023") == "00000465"
    assert BODY + authentication.token_checksum(BODY) == GOOD


@each(
    "shown",
    [
        "",
        "x",
        "lbx_test",
        BODY,
        GOOD + "0",
        GOOD[:-1],
        GOOD + "\n",
        " " + GOOD,
        GOOD.replace("lbx", "LBX"),
        GOOD.replace("_test_", "_TEST_"),
        GOOD.replace("0197", "0Z97"),
        GOOD.replace("0197", "\u0660197"),
        GOOD.replace("sss", "s.s", 1),
        GOOD.replace("_test_", "_production_"),
        GOOD.replace("_test_", "_development_"),
        GOOD.upper(),
        BODY + "6C89EE55",
        BODY + "6c89ee5g",
        "lbx_test_" + "0" * 100_000,
    ],
)
def test_a_token_in_a_foreign_format_never_reaches_the_database(shown: str) -> None:
    unbound = UnitOfWork(WarnedSession(), postgres_clock, NO_KEYS)

    with pytest.raises(NotSignedIn, match="begin with lbx_test_"):
        authentication.authenticate_token(unbound, shown, environment="test")


@pytest.mark.parametrize(
    "mangled",
    [
        GOOD.replace("0197", "0179"),
        GOOD.replace("sss", "ssS", 1),
        GOOD.replace("sss", "ss-", 1),
        BODY + "6c89e5e5",
        BODY + "00000000",
    ],
)
def test_a_mistyped_token_is_recognised_by_the_tokens_checksum(mangled: str) -> None:
    unbound = UnitOfWork(WarnedSession(), postgres_clock, NO_KEYS)

    with pytest.raises(NotSignedIn, match="checksum is wrong"):
        authentication.authenticate_token(unbound, mangled, environment="test")
