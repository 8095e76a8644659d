"""A call whose connection is cut is retried alone if nothing can have been committed; otherwise it gets a 503."""

from typing import Any

import pytest

from lockbox.call_groups import pipelines
from lockbox.call_groups.pipelines import MemberFailed, SharedTransaction
from tests.http.door import Door, facts

CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = 'lockbox-loop' AND datname = current_database()
"""
IDLE_CONNECTIONS = 8
"""At least as many as the loop keeps."""


def test_an_approval_whose_connection_is_cut_at_the_commit_answers_503_and_counts_once(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = door.pending()
    _cut_at_commit(door, monkeypatch)

    answer = door.act("ann", "approve", request)

    assert facts(answer, 503, "unavailable")
    assert door.get("ann", f"/v1/requests/{request}").json()["state"] == "active"
    assert door.get("ann", f"/v1/requests/{request}").json()["version"] == 2


@pytest.mark.far
def test_a_call_whose_connection_is_cut_at_the_commit_is_answered_and_not_retried(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.file()
    _cut_at_commit(door, monkeypatch)
    before = door.rows()["requests"]
    answer = door.file()

    assert facts(answer, 503, "unavailable")
    assert door.rows()["requests"] == before + 1
    assert door.file().status_code == 201
    assert door.rows()["requests"] == before + 2


def test_a_call_whose_connection_is_cut_before_the_commit_is_retried_separately(door: Door) -> None:
    door.file()
    before = door.rows()["requests"]
    door.run_sql(CUT)

    assert door.file().status_code == 201
    assert door.rows()["requests"] == before + 1


@pytest.mark.parametrize("action", ["approve", "deny"])
def test_a_call_whose_connection_is_lost_before_the_rollback_is_retried_separately(
    door: Door, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    request = door.pending()
    send = SharedTransaction.send

    async def failing(shared: SharedTransaction, statements: Any) -> Any:
        await send(shared, statements)
        door.run_sql("SELECT pg_terminate_backend(:pid, 5000)", pid=shared._connection.info.backend_pid)  # noqa: SLF001
        raise MemberFailed(None)

    monkeypatch.setattr(SharedTransaction, "send", failing)

    assert door.act("ann", action, request).status_code == 200


def test_a_call_whose_connection_is_lost_after_a_failed_commit_is_not_retried(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = door.pending()
    _replace_cut(door, request)
    send = SharedTransaction.send

    async def failing(shared: SharedTransaction, statements: Any) -> Any:
        found = await send(shared, statements)
        if shared._is_committing:  # noqa: SLF001
            door.run_sql("SELECT pg_terminate_backend(:pid, 5000)", pid=shared._connection.info.backend_pid)  # noqa: SLF001
            raise MemberFailed(None)
        return found

    monkeypatch.setattr(SharedTransaction, "send", failing)
    answer = door.act("ann", "approve", request)

    assert facts(answer, 503, "unavailable")
    assert door.get("ann", f"/v1/requests/{request}").json()["version"] == 2


def _replace_cut(door: Door, request: str) -> None:
    """Find and replace the connections that an earlier test has cut: a call that gets one retries by itself."""
    for _ in range(IDLE_CONNECTIONS):
        assert door.act("erin", "approve", request).status_code == 403


def _cut_at_commit(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the connection of the next transaction once it has committed, before the answer arrives."""
    _replace_cut(door, door.pending())
    sent = pipelines.SharedTransaction.send
    cut: list[object] = []

    async def cutting(shared: pipelines.SharedTransaction, statements: Any) -> Any:
        if statements[-1].statement == pipelines.COMMIT and not cut:
            cut.append(await sent(shared, statements))
            door.run_sql("SELECT pg_terminate_backend(:pid, 5000)", pid=shared._connection.info.backend_pid)  # noqa: SLF001
            return await sent(shared, statements)
        return await sent(shared, statements)

    monkeypatch.setattr(pipelines.SharedTransaction, "send", cutting)
