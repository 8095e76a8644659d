"""How a storm is watched from outside, ours and the others' alike."""

import time
from datetime import datetime

from sqlalchemy import Engine, TextClause

from bench.load import clock

LOOK_SECONDS = 0.01


def ended_at(engine: Engine, left: TextClause, due: datetime, patience: float) -> tuple[bool, datetime]:
    """Look until all that was due at one instant has ended; return whether it has, and when that was seen.

    Rarely, and not before the time: each look takes the processor from what is measured.

    Args:
        engine: with every right.
        left: a query by `due` that says whether all has `ended`, and `at` what time by the database's clock.
        due: when it all falls due.
        patience: how many seconds later to give up.
    """
    time.sleep(max(0.0, (due - clock(engine)).total_seconds()))
    until = time.monotonic() + patience
    with engine.connect() as connection:
        while not (row := connection.execute(left, {"due": due}).one()).ended and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
    return row.ended, row.at
