"""Hunt a planted bug: play the usual stories and faults until a check notices it."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chaos import questions, run
from chaos.clock_reader import ClockReader
from chaos.crowd import Crowd
from chaos.gate_history import TrueWindow
from chaos.gate_judge import HistoryJudge
from chaos.invariants import late_and_counted
from chaos.run import Tell
from chaos.stage import ChaosStack
from chaos.striker import Striker

LOOK_SECONDS = 0.5


class InvariantWatch(threading.Thread):
    """Checks during the run what the invariants check at its end. `found` is the first thing that is wrong."""

    def __init__(self, stage: ChaosStack, crowd: Crowd) -> None:
        super().__init__(name="chaos-watch", daemon=True)
        self.found = ""
        self._stage = stage
        self._crowd = crowd
        self._stopping = threading.Event()

    def run(self) -> None:
        """Check until something is found, or until told to stop."""
        while not self.found and not self._stopping.wait(LOOK_SECONDS):
            self.found = next(chain(late_and_counted(self._crowd.journal), self._late(), self._gates()), "")

    def stop(self) -> None:
        """Stop checking."""
        self._stopping.set()
        self.join()

    def _late(self) -> list[str]:
        late = [f"{row.id} was decided too late" for row in self._asked(questions.LATE)]
        return late + [f"{row.id} was approved before its step" for row in self._asked(questions.OUT_OF_STEP)]

    def _gates(self) -> Iterator[str]:
        # Copy the answers first, then ask Postgres: a window opens before anyone is admitted by it.
        history = replace(self._crowd.history, answers=list(self._crowd.history.answers))
        rows = self._asked(questions.GATE_WINDOWS)
        judge = HistoryJudge(history, map(TrueWindow.of, rows))
        return chain(judge.wrong_yeses(), judge.not_told(), judge.not_remembered()) if rows else iter(())

    def _asked(self, question: str) -> Sequence[Any]:
        try:
            with self._stage.superuser.connect() as connection:
                return connection.execute(text(question)).all()
        except SQLAlchemyError:
            return ()


def play(stage: ChaosStack, tell: Tell) -> tuple[str, float]:
    """Play the plan of a stage; return what was found first (empty if nothing was), and after how many seconds."""
    crowd = Crowd(stage.faults.seed, stage.gates, stage.cast)
    striker, watch = Striker(stage), InvariantWatch(stage, crowd)
    clock = ClockReader(stage.superuser, crowd.history)
    clock.start()
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
        clock.stop()
        crowd.abandon()
    return watch.found, seconds
