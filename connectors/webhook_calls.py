"""Have the vendor's own system open and close access, by signed and repeatable calls to one address."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from connectors.protocol import ConnectedWindow, ConnectorFailed, NotWanted
from connectors.targets import TargetFolder
from lockbox.audit.canonical import instant
from lockbox.notifications.senders.protocol import Reply, SendFailed, WebhookCall
from lockbox.notifications.webhook import HttpWebhooks

SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,}={0,2}")


class WebhookCalls:
    """Calls the address in the first line of a target's file, signed with the secrets in the other lines."""

    def __init__(self, targets: TargetFolder, sender: HttpWebhooks) -> None:
        self._targets = targets
        self._sender = sender

    def open(self, window: ConnectedWindow, is_wanted: Callable[[], bool]) -> None:
        """Send what the window covers. The other system must refuse to open an id that it has closed."""
        if not window.target:
            raise ConnectorFailed("nothing_to_open")
        told = {
            "request_id": str(window.request_id),
            "tenant": window.tenant,
            "service": window.service,
            "engineer": str(window.engineer),
            "resources": list(window.resources),
            "actions": list(window.actions),
            "until": instant(window.until),
        }
        if not is_wanted():
            raise NotWanted
        self._call("open", window.id, window.target, told)

    def close(self, connection_id: UUID, target: str) -> None:
        self._call("close", connection_id, target)

    def is_closed(self, connection_id: UUID, target: str) -> bool:
        """Return whether the answer is the JSON object {"closed": true}."""
        try:
            said = json.loads(self._call("is_closed", connection_id, target).text)
        except ValueError:
            raise ConnectorFailed("no_answer") from None
        return isinstance(said, dict) and said.get("closed") is True

    def _call(self, action: str, connection_id: UUID, target: str, told: Mapping[str, Any] | None = None) -> Reply:
        url, *secrets = self._targets.lines(target) or [""]
        if not 1 <= len(secrets) <= 2 or not all(SECRET.fullmatch(secret) for secret in secrets):  # noqa: PLR2004
            raise ConnectorFailed("no_target_file")
        body = {"type": f"connection.{action}", "connection": str(connection_id), "data": dict(told or {})}
        hook = WebhookCall(
            hook_id=f"{connection_id}.{action}",
            url=url,
            body=json.dumps(body, separators=(",", ":")).encode(),
            secrets=tuple(secrets),
            is_vendors=True,
        )
        try:
            return asyncio.run(self._sender.send(hook))
        except SendFailed as failed:
            raise ConnectorFailed("refused" if failed.reply.status else "unreachable") from None
