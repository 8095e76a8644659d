"""Guards and the real API while windows are open: nothing closes early, and an approved extension continues calls."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from lockbox_guard import Allowed, Guard, Refused, database_clock, stream_reader, watches
from lockbox_guard.windows import KnownWindow

from harness.gateway_world import ANNA, ENGINEER, GUARD, SERVICE
from harness.people import HERE, SETTINGS, World
from harness.wait import wait_for
from lockbox.database import Database
from lockbox.requests import extend, timers
from lockbox.requests.extend import ExtensionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.guarded_apps import PIECE, GuardedService, get, served, served_wsgi
from tests.http.door import OpenDoor
from tests.http.gate_door import GateDoor, gate_before
from tests.http.guard_streams import GuardReader

PATIENCE = 20.0
WARNING = Policy(vendor_review=False, closing_warning=7)
MAILBOX = f"mailbox:{ANNA}"
TIME_TO_EXTEND = 15
"""How long a window lasts that is to be extended: on a busy machine, asking and approving takes seconds."""


class GuardScene:
    """A gate with a world of its own, and a guard of it."""

    def __init__(self, gate: GateDoor, guard: Guard) -> None:
        self.gate, self.guard, self.world = gate, guard, gate.world
        self.use = {"tenant": gate.world.tenant.slug, "resource": MAILBOX, "action": "read"}

    def opened(self, seconds: int) -> AccessRequest:
        """Open a window, and wait until the guard knows it."""
        request = self.world.submit(resources=[MAILBOX], access_window=seconds)
        request = self.world.act("ann", Action.APPROVE, request.id)
        wait_for("the guard knows it", lambda: self.knows(request.id), PATIENCE)
        return request

    def knows(self, request_id: UUID) -> bool:
        return self.window(request_id) is not None

    def is_extended(self, request_id: UUID) -> bool:
        window = self.window(request_id)
        return window is not None and window.extended

    def window(self, request_id: UUID) -> KnownWindow | None:
        return self.guard.start().knowledge.windows.of(request_id)

    def check(self) -> Allowed:
        return self.guard.check(**self.use, engineer=self.world.people["erin"].person_id)


@pytest.fixture
def scene(open_door: OpenDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GuardScene]:
    """A scene whose closing warnings come seven seconds before the end, and whose guard stands pauses."""
    monkeypatch.setattr(database_clock, "QUIET_SECONDS", PATIENCE)
    monkeypatch.setattr(stream_reader, "SILENCE_SECONDS", PATIENCE)
    door = open_door(WARNING)
    file = tmp_path / "token"
    with gate_before(door.world, door.db) as gate:
        file.write_text(gate.world.tokens[GUARD])
        guard = Guard(f"http://127.0.0.1:{gate.port}", service=SERVICE, token_file=file, engineer_header=ENGINEER)
        yield GuardScene(gate, guard)
        guard.stop()


def sleep_until(at: datetime, seconds: float = 0.0) -> None:
    """Sleep until so many seconds after a time."""
    time.sleep(max(0.0, at.timestamp() + seconds - time.time()))


@contextmanager
def told(gate: GateDoor) -> Iterator[list[tuple[float, str, dict[str, Any]]]]:
    """Yield a list, which in the end has all that a stream says about windows meanwhile, each with its time."""
    reader, found = GuardReader(gate), list[tuple[float, str, dict[str, Any]]]()
    try:
        yield found
    finally:
        reader.close()
        offset = time.time() - time.monotonic()
        while (one := reader.next()) is not None:
            if one.kind in {"open", "close"}:
                found.append((one.came + offset, one.kind, one.said))


@pytest.mark.far
def test_after_a_closing_reminder_the_guard_does_not_end_access_before_the_deadline(
    scene: GuardScene, worker: Database
) -> None:
    with (
        told(scene.gate) as events,
        served_wsgi(scene.guard, "erin", tenant=scene.world.tenant.slug, seconds=0.7) as port,
    ):
        request = scene.opened(10)
        ended = request.deadline_at
        call = get(port, "/mailboxes/anna/live", "Connection: close")
        call.wait_for(PIECE)
        sleep_until(ended, -6.9)
        assert timers.run(worker, [request.id])["reminded"] == 1
        refused, checks = 0, 0
        while not checks or time.time() < ended.timestamp() - 4:
            checks += 1
            try:
                scene.check()
            except Refused:
                refused += 1
        assert call.ended_at is None
        assert refused == 0
        over = call.wait_for_end() - time.monotonic() + time.time()

    assert [(kind, said["request"]) for at, kind, said in events if at < ended.timestamp()] == [
        ("open", str(request.id))
    ]
    assert -0.3 < over - ended.timestamp() < PATIENCE


def extended(world: World, request: AccessRequest, seconds: int) -> AccessRequest:
    with world.db.transaction() as session:
        wanted = ExtensionInput(seconds, None)
        asked = extend.extend(
            session, world.people["erin"], HERE, request.id, wanted, SETTINGS.catalogue.services
        ).request
    return world.act("ann", Action.APPROVE, asked.id)


@pytest.mark.far
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_running_calls_of_the_guard_continue_under_an_approved_extension(
    scene: GuardScene, worker: Database, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "SEAM_SECONDS", PATIENCE)
    tenant = scene.world.tenant.slug
    services: dict[str, Callable[[], Any]] = {
        "asgi": lambda: served(GuardedService(scene.guard, tenant, subject="erin")),
        "wsgi": lambda: served_wsgi(scene.guard, "erin", tenant=tenant),
    }
    with services[kind]() as port:
        first = scene.opened(TIME_TO_EXTEND)
        call = get(port, "/mailboxes/anna/live", "Connection: close")
        call.wait_for(PIECE)
        second = extended(scene.world, first, 10)
        assert second.opens_at == first.deadline_at
        wait_for("the guard knows that the window is extended", lambda: scene.is_extended(first.id), PATIENCE)

        sleep_until(first.deadline_at)
        timers.run(worker, [first.id])
        sleep_until(second.deadline_at, -7)
        assert call.ended_at is None
        read = len(call.read)
        assert scene.check().request == second.id

        over = call.wait_for_end() - time.monotonic() + time.time()

    assert len(call.read) >= read
    assert -0.3 < over - second.deadline_at.timestamp() < PATIENCE


@pytest.mark.far
def test_a_call_is_cut_at_the_end_of_its_window_if_the_extension_was_revoked(scene: GuardScene) -> None:
    with served(GuardedService(scene.guard, scene.world.tenant.slug, subject="erin")) as port:
        first = scene.opened(TIME_TO_EXTEND)
        call = get(port, "/mailboxes/anna/live")
        call.wait_for(PIECE)
        second = extended(scene.world, first, 60)
        scene.world.act("ann", Action.REVOKE, second.id)

        over = call.wait_for_end(TIME_TO_EXTEND + PATIENCE) - time.monotonic() + time.time()

    assert over - first.deadline_at.timestamp() < PATIENCE
