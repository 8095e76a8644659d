"""The sealer: a thread that gives events their places in signed logs, a second behind, and ships what was signed."""

import time
from collections.abc import Iterator
from contextlib import suppress

import structlog

from lockbox.audit.log import sealer
from lockbox.audit.log.sealer import RollbackDetected
from lockbox.notifications import checkpoint_digest
from lockbox.pubsub import OPERATORS
from lockbox.schedule import CLOCK, MOST_A_CALL, RedisUnavailable
from worker.loop import WorkerLoop
from worker.runtime import Runtime, SealingSettings

log = structlog.get_logger(__name__)

SEAL_SECONDS = 1.0
SAY_AGAIN_SECONDS = 30.0
YIELD_SECONDS = 2.0
LOOK_SECONDS = 0.1


class Sealer(WorkerLoop):
    """Seals in small steps; one of all processes does at a time, and what that one leaves another goes on with."""

    def __init__(self, tools: Runtime, own: SealingSettings) -> None:
        super().__init__("sealer", tools)
        self._own = own
        self._silent_until = 0.0

    def round(self) -> None:
        """Seal and ship what is there, then rest for a second; what is wrong is said twice a minute."""
        self._let_the_clock_pass()
        try:
            self.stepwise(seal(self.tools, self._own))
        except RollbackDetected as behind:
            self._say("audit.rolled_back", str(behind), do="see Back-ups in docs/operating.md")
        except OSError as error:
            self._say("audit.not_shipped", str(error.strerror), error=type(error).__name__)
        self.stopping.wait(SEAL_SECONDS)

    def stop(self) -> None:
        """Ask the thread to end; it does within a second."""
        self.stopping.set()

    def _let_the_clock_pass(self) -> None:
        """Wait, for two seconds at most, while more falls due than one batch: deadlines come before their seals."""
        until = time.monotonic() + YIELD_SECONDS
        with suppress(RedisUnavailable):
            while self.tools.database.schedule.leased(CLOCK) > MOST_A_CALL and time.monotonic() < until:
                self.stopping.wait(LOOK_SECONDS)

    def _say(self, what: str, reason: str, **further: str) -> None:
        if time.monotonic() >= self._silent_until:
            log.critical(what, reason=reason, **further)
            self._silent_until = time.monotonic() + SAY_AGAIN_SECONDS


def seal(tools: Runtime, own: SealingSettings) -> Iterator[str]:
    """Seal what was written, ship what was signed, and promise who is to be told of it, in steps.

    Raises:
        RollbackDetected: of some logs the database does not hold what was shipped; the others are sealed and told of.
        OSError: nothing that was signed can be shipped.
    """
    held: RollbackDetected | None = None
    try:
        for noted in sealer.seal(tools.database, own.signer, own.folder):
            tools.database.schedule.tell([str(one.log_id) for one in noted[:1]], OPERATORS)
            yield f"sealed {len(noted)}"
    except RollbackDetected as behind:
        held = behind
    yield from checkpoint_digest.queue_due(tools.database, own.digest_every)
    if held:
        raise held
