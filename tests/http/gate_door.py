"""A gate as gateways reach it: raw questions over real connections."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any
from uuid import UUID

from catalogue.service_catalogue import Catalogue
from config.settings import Settings
from harness import gateway_world
from harness.gateway_world import CATALOGUE, PATIENCE, SERVICE, ServedGate
from harness.people import SETTINGS, World
from lockbox.database import Database


@dataclass(frozen=True)
class GateAnswer:
    """An answer of the gate; `headers` by lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str | None:
        return self.headers.get("lockbox-reason")


class GateDoor(ServedGate):
    """A world behind a gate, and how to ask it."""

    def ask(
        self,
        kind: str = "nginx",
        path: str | None = None,
        *more: tuple[str, str],
        method: str = "GET",
        who: str | None = "erin",
        service: str = SERVICE,
    ) -> GateAnswer:
        """Ask as a gateway of this kind asks about a call; `more` are further headers."""
        path = self.path() if path is None else path
        asked_by, target = (
            (method, f"/gate/v1/{service}{path}") if kind == "envoy" else ("GET", f"/gate/v1/{service}")
        )
        return self.send([*self.question(kind, path, method, who), *more], target, asked_by)

    def send(self, headers: Sequence[tuple[str, str]], target: str, method: str = "GET") -> GateAnswer:
        """Send a question unchanged, and check that gateways understand the answer and do not store it."""
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "Connection: close"]
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            response = HTTPResponse(connection, method=method)
            response.begin()
            found = {name.lower(): value for name, value in response.getheaders()}
            answer = GateAnswer(response.status, found, response.read())
        assert answer.status in {200, 401, 403}, answer
        assert found["cache-control"] == "no-store"
        assert (answer.status == 200) is (found["lockbox-decision"] in {"allow", "not-applicable", "would-deny"})
        return answer

    def until(self, status: int, **asked: Any) -> GateAnswer:
        """Ask until the answer has this status."""
        until = time.monotonic() + PATIENCE
        while (answer := self.ask(**asked)).status != status:
            assert time.monotonic() < until, answer
            time.sleep(0.02)
        return answer


@contextmanager
def gate_before(
    world: World, db: Database, settings: Settings = SETTINGS, catalogue: Catalogue = CATALOGUE
) -> Iterator[GateDoor]:
    with gateway_world.gate_before(world, db, settings, GateDoor, catalogue) as door:
        yield door


def request_of(answer: GateAnswer) -> UUID:
    """Return the request by which a call was let in."""
    assert answer.status == 200, answer
    return UUID(answer.headers["lockbox-request"])
