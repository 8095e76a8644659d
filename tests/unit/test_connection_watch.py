"""The connection watch checks at once when a request has moved, and not after each mail that was sent."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lockbox.pubsub import GATES, OPERATORS, PAGES, SIDES
from worker.without_redis import ConnectionWatch


@pytest.mark.parametrize("side", [None, PAGES, OPERATORS, GATES, *SIDES])
def test_the_connection_watch_checks_connections_only_after_a_message_about_a_request(side: str | None) -> None:
    told: list[Any] = []
    schedule = SimpleNamespace(listener=lambda hear, _: told.append(hear))
    tools = SimpleNamespace(database=SimpleNamespace(schedule=schedule))
    watch = ConnectionWatch(cast("Any", tools), cast("Any", None))

    told[0](frozenset({"a request"}), side)

    assert watch._poked.is_set() is (side is None)  # noqa: SLF001 - nothing else says so at once
