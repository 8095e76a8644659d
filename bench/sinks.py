"""Where mails and webhook calls go: `python -m bench.sinks TALLY HOLE HTTP… SMTP` serves at these ports.

It serves until it is ended. At HOLE nobody answers, and the relay never answers about mails to one domain. Nothing is
remembered but the numbers of mails and calls that were taken; TALLY tells these to every caller.
"""

import asyncio
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop

from devstack.stack import Processes
from harness.mail_relay import MailRelay
from harness.network import HOST
from harness.ports import own_port, wait_until_listening
from harness.sinks import Hole, Sink
from harness.webhook_receiver import WebhookReceiver

HANGING_DOMAIN = "hangs.example"
LOOK_SECONDS = 0.1
PATIENCE = 180.0


@dataclass(frozen=True)
class SinkPorts:
    """The ports of a process's sinks: the tally, a port at which nobody answers, webhook calls, and mail."""

    tally: int
    hole: int
    calls: Sequence[int]
    mail: int

    def url(self, port: int) -> str:
        """Return the address of a webhook."""
        return f"http://{HOST}:{port}/"

    def taken(self) -> tuple[int, int]:
        """Return how many mails and webhook calls were taken so far."""
        with socket.create_connection((HOST, self.tally), timeout=10) as connection:
            mails, calls = connection.makefile().readline().split()
        return int(mails), int(calls)

    @property
    def mails(self) -> int:
        """How many mails were taken so far."""
        return self.taken()[0]

    def wait_for(self, mails: int, patience: float = PATIENCE, look: float = LOOK_SECONDS) -> None:
        """Wait until this many mails were taken since the sinks began.

        Raises:
            RuntimeError: too few or too many mails came.
        """
        until = time.monotonic() + patience
        while (taken := self.mails) < mails and time.monotonic() < until:
            time.sleep(look)
        if taken != mails:
            raise RuntimeError(f"{taken} mails came where {mails} were to come within {patience} s")


def start_sinks(processes: Processes, mail: int | None = None, *, calls: int = 0) -> SinkPorts:
    """Start sinks that remember nothing (a relay and this many receivers), and wait until they are ready."""
    found = SinkPorts(own_port(), own_port(), [own_port() for _ in range(calls)], mail or own_port())
    ports = [found.tally, found.hole, *found.calls, found.mail]
    processes.launch("sinks", [sys.executable, "-m", "bench.sinks", *map(str, ports)])
    wait_until_listening(found.mail)
    return found


class Tally(Sink):
    """Tells how much the other sinks have taken."""

    def __init__(self, relay: MailRelay, receivers: Sequence[WebhookReceiver]) -> None:
        super().__init__()
        self._relay = relay
        self._receivers = receivers

    async def talk(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell the numbers, and end."""
        await self.say(
            writer, f"{self._relay.count} {sum(receiver.callers for receiver in self._receivers)}\n".encode()
        )


async def main() -> None:
    """Serve until the process is ended."""
    tally, hole, *calls, mail = map(int, sys.argv[1:])
    relay = MailRelay(hangs_for=HANGING_DOMAIN, keeps=False)
    receivers = [WebhookReceiver(keeps=False) for _ in calls]
    # The relay opens last: once it listens, all sinks do.
    sinks = [(Tally(relay, receivers), tally), (Hole(), hole), *zip(receivers, calls, strict=True), (relay, mail)]
    for sink, port in sinks:
        await sink.open(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
