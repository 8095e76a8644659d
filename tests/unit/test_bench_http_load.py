"""What comes of loads over HTTP: rates and times of what was accepted, and how much was turned away."""

import asyncio
import math
from itertools import cycle
from typing import Any

import pytest

from bench.http_load import rate, several
from harness.load import perform

CALL = {"method": "GET", "path": "/", "status": 200}


def played(seconds: float | None, *statuses: int, rate: float | None = None, pause: float = 0.0) -> dict[str, Any]:
    """Return what a client sees of a server that gives these answers over and over, each after a pause."""
    turns, ended = cycle(statuses), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(pause)
            writer.write(f"HTTP/1.1 {next(turns)} Said\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()
        await writer.wait_closed()
        ended.set()

    async def serve() -> dict[str, Any]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            try:
                return await perform(
                    {"port": port, "clients": 1, "stories": [[CALL]], "seconds": seconds, "rate": rate}
                )
            finally:
                await ended.wait()

    return asyncio.run(serve())


def test_what_is_turned_away_has_no_part_in_how_long_calls_took() -> None:
    found = played(0.2, 200, 503, 503)

    accepted = len(found["taken"][0])
    assert accepted > 1
    assert 2 * accepted - 2 <= found["busy"] <= 2 * accepted


def test_no_call_may_be_turned_away_where_each_story_is_played_once() -> None:
    with pytest.raises(ExceptionGroup, match="unhandled") as failed:
        played(None, 503)

    assert "GET /: 503" in str(failed.value.exceptions[0])


@pytest.mark.far
def test_calls_at_a_rate_begin_whether_those_before_were_answered_or_not() -> None:
    found = played(0.3, 200, rate=50, pause=0.2)

    assert len(found["taken"][0]) == 15
    assert found["seconds"] < 0.2 * 15


def test_a_call_at_a_rate_is_timed_from_the_instant_at_which_it_was_to_be_made() -> None:
    found = played(0.3, 200, rate=50, pause=0.1)

    assert min(found["taken"][0]) >= 0.1


def test_a_rate_is_of_accepted_calls() -> None:
    found = rate({"taken": [[0.010, 0.020, 0.030]], "busy": 7, "seconds": 2.0})

    assert found == {"a_second": 1.5, "busy": 7.0, "p50_ms": 20.0, "p99_ms": 30.0}


def test_where_all_is_turned_away_nothing_is_quick() -> None:
    found = rate({"taken": [[]], "busy": 7, "seconds": 2.0})

    assert found == {"a_second": 0.0, "busy": 7.0, "p50_ms": math.inf, "p99_ms": math.inf}


def test_of_several_runs_the_worst_says_how_much_was_turned_away() -> None:
    runs = [{"a_second": 3.0, "busy": 0.0}, {"a_second": 1.0, "busy": 9.0}, {"a_second": 2.0, "busy": 0.0}]

    assert several(runs) == {"a_second": 2.0, "busy": 9.0}
