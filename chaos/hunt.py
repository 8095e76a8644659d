"""The hunt for a bug that was planted: the same stories and faults as ever, until somebody sees it."""

import threading
import time
from itertools import chain

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chaos import questions, run
from chaos.crowd import Crowd
from chaos.invariants import late_and_counted
from chaos.journal import Journal
from chaos.run import Tell
from chaos.stage import ChaosStack
from chaos.striker import Striker

LOOK_SECONDS = 0.5


class InvariantWatch(threading.Thread):
    """Looks at what an invariant of the run would look at in the end. `found` is the first thing that is wrong."""

    def __init__(self, stage: ChaosStack, journal: Journal) -> None:
        super().__init__(name="chaos-watch", daemon=True)
        self.found = ""
        self._stage = stage
        self._journal = journal
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look until something is found, or it is told to stop."""
        while not self.found and not self._stopping.wait(LOOK_SECONDS):
            self.found = next(chain(late_and_counted(self._journal), self._late()), "")

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self.join()

    def _late(self) -> list[str]:
        try:
            with self._stage.superuser.connect() as connection:
                rows = connection.execute(text(questions.LATE)).all()
        except SQLAlchemyError:
            return []
        return [f"{row.id} was decided too late" for row in rows]


def play(stage: ChaosStack, tell: Tell) -> tuple[str, float]:
    """Play the plan of a stage; return what was found first, nothing if nothing was, and after how many seconds."""
    crowd = Crowd(stage.faults.seed, stage.plan.public_url, stage.cast)
    striker, watch = Striker(stage), InvariantWatch(stage, crowd.journal)
    began = time.monotonic()
    crowd.begin()
    watch.start()
    try:
        run.strike(stage, striker, tell, lambda: bool(watch.found))
        seconds = time.monotonic() - began
    finally:
        striker.wait()
        stage.calm()
        watch.stop()
        crowd.abandon()
    return watch.found, seconds
