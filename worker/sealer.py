"""The sealer: a thread that gives events their places in signed logs, a second behind, and ships what was signed."""

from collections.abc import Iterator

import structlog

from lockbox.audit import sealing
from lockbox.audit.sealing import Noted, RolledBack
from lockbox.failpoints import reach
from lockbox.notices import checkpoints
from worker.loop import Loop
from worker.runtime import Runtime, Sealing

log = structlog.get_logger(__name__)

SEAL_SECONDS = 1.0
ROLLED_BACK_SECONDS = 30.0


class Sealer(Loop):
    """Seals in small steps; one of all processes does at a time, and what that one leaves another goes on with."""

    def __init__(self, tools: Runtime, own: Sealing) -> None:
        super().__init__("sealer", tools)
        self._own = own
        self._is_shipped = False

    def round(self) -> None:
        """Seal and ship what is there, then rest for a second."""
        try:
            if not self._is_shipped:
                self.stepwise(self._shipped(sealing.newest(self.tools.database)))
                self._is_shipped = True
            self.stepwise(seal(self.tools, self._own))
        except RolledBack as behind:
            log.critical("audit.rolled_back", logs=str(behind), do="lockbox operate after-restore")
            self.stopping.wait(ROLLED_BACK_SECONDS)
        except OSError as error:
            self._is_shipped = False
            log.critical("audit.not_shipped", error=type(error).__name__, reason=error.strerror)
        self.stopping.wait(SEAL_SECONDS)

    def stop(self) -> None:
        """Ask the thread to end; it does within a second."""
        self.stopping.set()

    def _shipped(self, pages: Iterator[list[Noted]]) -> Iterator[str]:
        for noted in pages:
            if self._own.folder:
                self._own.folder.ship(noted)
            yield "shipped"


def seal(tools: Runtime, own: Sealing) -> Iterator[str]:
    """Seal what was written, ship what was signed, and promise who is to be told of it, in steps.

    Raises:
        RolledBack: the database holds less than was shipped.
        OSError: what was signed cannot be shipped.
    """
    is_ahead = own.folder.is_ahead if own.folder else _never
    for noted in sealing.seal(tools.database, own.signer, is_ahead):
        reach("sealer.before_ship")
        if own.folder:
            own.folder.ship(noted)
        reach("sealer.after_ship")
        yield f"sealed {len(noted)}"
    yield from checkpoints.tell(tools.database, own.digest_every)


def _never(*_: object) -> bool:
    return False
