"""What the benchmark loads with: calls as they are sent, due times ahead of loading, peers beside the product."""

import re
from pathlib import Path

import pytest

from bench.rows import LEAST_SECONDS, Pace
from bench.sizes import FULL, PARTS, QUICK, SIZES, USUAL
from harness.load import UnexpectedAnswer, length, written

ROOT = Path(__file__).parents[2]
PINNED = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def test_a_call_is_written_with_its_token_its_body_and_the_id_that_was_found() -> None:
    call = {"method": "POST", "path": "/v1/requests/{id}/approve", "token": "lbx_x", "body": {"a": 1}, "status": 200}

    head, _, body = written(call, "42").partition(b"\r\n\r\n")

    assert head.split(b"\r\n") == [
        b"POST /v1/requests/42/approve HTTP/1.1",
        b"host: 127.0.0.1",
        b"content-length: 8",
        b"content-type: application/json",
        b"authorization: Bearer lbx_x",
    ]
    assert body == b'{"a": 1}'


def test_the_length_of_a_body_is_found_in_any_letters_and_missed_if_it_is_not_there() -> None:
    assert length(b"HTTP/1.1 201 Created\r\nContent-Length: 17\r\n\r\n") == 17
    with pytest.raises(UnexpectedAnswer):
        length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


def test_many_are_due_further_ahead_than_loading_them_took() -> None:
    pace = Pace(seconds_each=0.001)

    assert pace.ahead(10_000).total_seconds() > 10
    assert pace.ahead(1).total_seconds() == pytest.approx(LEAST_SECONDS, abs=0.01)


def test_a_load_that_took_long_is_feared_less_with_each_that_did_not() -> None:
    pace = Pace(seconds_each=0.001)

    pace.learn(10_000, 50)
    worst = pace.ahead(10_000).total_seconds()
    for _ in range(5):
        pace.learn(10_000, 3)

    assert worst > 50
    assert 3 < pace.ahead(10_000).total_seconds() < worst / 3


def test_a_few_rows_that_took_long_say_little_of_many() -> None:
    pace = Pace(seconds_each=0.0001)

    pace.learn(1, 0.5)

    assert pace.seconds_each < 0.001


def test_sizes_grow_and_only_the_quick_one_does_without_peers() -> None:
    assert SIZES == {"quick": QUICK, "bench": USUAL, "full": FULL}
    assert QUICK.pending < USUAL.pending < FULL.pending == 1_000_000
    assert (QUICK.peers, set(USUAL.peers) < set(FULL.peers)) == ((), True)
    assert set(QUICK.parts) < set(PARTS) == set(USUAL.parts) == set(FULL.parts)
    assert all((10_000 in dict(size.storms)) for size in SIZES.values())


def test_the_product_depends_on_no_peer_and_peers_run_on_its_versions() -> None:
    ours, theirs = (
        dict(PINNED.findall((ROOT / name).read_text())) for name in ("requirements.lock", "requirements-bench.lock")
    )

    assert not {"dramatiq", "dbos", "celery-redbeat", "matplotlib"} & ours.keys()
    assert {"dramatiq", "dbos", "celery-redbeat", "matplotlib"} <= theirs.keys()
    shared = {"celery", "kombu", "psycopg", "psycopg-binary", "redis"}
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
