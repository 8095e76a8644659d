"""A window with a limit of uses loses none to a question that was already answered."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from gate import window_checks
from gate.answers import GateReason, GrantedAccess
from gate.memory_reader import MemoryReader
from gate.window_checks import WindowChecks
from gate.window_memory import WindowMemory
from lockbox.database import UnitOfWork
from lockbox.requests.access_check import AccessCheck, UsingCaller

QUESTION = AccessCheck("contoso", "files", "box:1", "read", UUID(int=1))
COUNTED = GrantedAccess(UUID(int=2), datetime(2030, 1, 1, tzinfo=UTC), uses_left=1)


class LateCalls:
    """Finds a counted window at once, and begins to use it when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.use: Callable[[UnitOfWork], Any] | None = None

    async def run(self, use_case: Callable[[UnitOfWork], Any], *, key: str | None = None) -> Any:
        assert key is None
        self.asked += 1
        if self.asked == 1:
            return COUNTED
        self.use = use_case
        return await asyncio.Event().wait()


def test_a_window_use_that_starts_after_the_gate_answered_its_call_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window_checks, "ASK_SECONDS", 0.05)
    calls = LateCalls()
    checks = WindowChecks(WindowMemory(), cast("MemoryReader", None), calls, compare_every=1_000_000)

    answer = asyncio.run(checks.check(QUESTION, UsingCaller(UUID(int=3), "call")))

    assert answer is GateReason.BEHIND
    assert calls.use is not None
    assert calls.use(cast("UnitOfWork", None)) is GateReason.BUSY, "it does nothing in the database"
