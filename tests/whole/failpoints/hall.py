"""The hall of one scene: a separate tenant on the running stage, and everything submitted and acknowledged there."""

import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from harness.outbox import fan_out_all
from harness.people import World, add_endpoint
from harness.stage import as_sender, setting
from harness.webhook_receiver import WebhookReceiver
from lockbox.notifications.outbox import KIND
from lockbox.requests.lifecycle import Action
from lockbox.schedule import NOTIFICATIONS, IndexEntry
from lockbox.sql import new_id
from tests.database.test_extensions import extended
from tests.database.test_pre_approvals import in_force
from tests.whole.conftest import RunningStack

CHECKPOINTS = "checkpoints"
LAPSE = (
    "UPDATE notifications SET run_at = clock_timestamp() WHERE closed_at IS NULL AND tenant_id = :tenant RETURNING id"
)
OVERDUE = "UPDATE unsettled SET settle_by = clock_timestamp() WHERE tenant_id = :tenant RETURNING id"
MESSAGE_ID = re.compile(r"^Message-ID: <([0-9a-f-]{36})@", re.IGNORECASE | re.MULTILINE)


@dataclass
class FailpointStage:
    """What a scene acts on; `expected` is the state in which each of its requests must end."""

    stage: RunningStack
    receiver: WebhookReceiver
    world: World
    key: str = field(default_factory=lambda: str(new_id()))
    asked: list[UUID] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=list)
    expected: str = "timed_out"
    pre_approval: UUID | None = None

    @classmethod
    def of(cls, stage: RunningStack, receiver: WebhookReceiver, **policy: Any) -> "FailpointStage":
        """Return a hall with a tenant whose windows last seconds."""
        return cls(stage, receiver, stage.world(**policy))

    @property
    def tenant(self) -> str:
        return str(self.world.tenant.id)

    @property
    def checkpoints(self) -> Path:
        return self.stage.processes.logs / CHECKPOINTS

    def submit(self, **changes: Any) -> UUID:
        """Submit a request without the API."""
        request = self.world.fresh(**changes)
        self.asked.append(request.id)
        return request.id

    def approve(self, request_id: UUID) -> None:
        """Approve a request without the API."""
        self.world.act("ann", Action.APPROVE, request_id)

    def extend(self, request_id: UUID) -> None:
        """Submit an extension without the API."""
        self.asked.append(extended(self.world, request_id).id)

    def pre_approve(self, **rule: Any) -> None:
        """Make a pre-approval without the API."""
        self.pre_approval = in_force(self.world, resource=f"mailbox:{self.key}*", **rule)

    def post(self, who: str, path: str, body: dict[str, Any], **headers: str) -> httpx.Response | None:
        """Call the API; return None if the API ended before it answered."""
        with self.stage.as_(self.world, who) as client, suppress(httpx.TransportError):
            answer = client.post(path, json=body, headers=headers)
            self.answers.append(answer)
            return answer
        return None

    def hook(self) -> None:
        """Add a webhook by which the receiver gets every event of the tenant."""
        with setting(self.stage.db).transaction() as session:
            add_endpoint(session, self.receiver.url, self.world.tenant.id)

    def lapse(self) -> None:
        """Let the claims of an ended process expire now instead of in a minute."""
        rows = self.stage.rows(LAPSE, tenant=self.tenant)
        promises = [IndexEntry(str(row.id), KIND, self.world.tenant.created_at) for row in rows]
        self.stage.db.schedule.arm(NOTIFICATIONS, promises)

    def settle_now(self) -> None:
        """Fan out the outbox, and make the events on mail outcomes due at once, while the mails are still open."""
        fan_out_all(as_sender(self.stage.db))
        rows = self.stage.rows(OVERDUE, tenant=self.tenant)
        promises = [IndexEntry(str(row.id), KIND, self.world.tenant.created_at) for row in rows]
        self.stage.db.schedule.arm(NOTIFICATIONS, promises)

    def is_let_in(self, request_id: UUID) -> bool:
        """Return whether the guarded system would admit the engineer by this request's window."""
        (row,) = self.stage.rows("SELECT resources[1] AS resource FROM requests WHERE id = :id", id=str(request_id))
        with self.stage.as_(self.world, "gate") as gate:
            answer = gate.get("/v1/access", params=self.world.question(resource=row.resource))
            return answer.is_success and answer.json()["request_id"] == str(request_id)

    def mailed(self) -> set[str]:
        """Return the ids of all notifications that arrived as a mail."""
        return {found[1] for mail in self.stage.caught.texts() if (found := MESSAGE_ID.search(mail))}

    def called(self) -> set[str]:
        """Return the ids of all notifications that arrived as a webhook."""
        return {call.headers["webhook-id"] for call in self.receiver.calls}


def kill(stage: RunningStack, name: str) -> None:
    """Kill a process and all its children at once, even if it has already ended by itself."""
    child = stage.processes.running.pop(name)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
