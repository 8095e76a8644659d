"""Write the counts of the gate to Postgres once a second, each batch once, and log refusals at most once a second."""

import json
import threading
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from gate.call_counts import CallCounts, CountBatch
from gate.window_memory import BOOT_CLOCK
from lockbox.database import CLOCK_TIME, Database
from lockbox.pubsub import PAGES
from lockbox.sql import new_id

log = structlog.get_logger(__name__)

WRITE_SECONDS = 1.0
STOP_SECONDS = 5.0
LAST_TRIES = 2
MOST_TOLD = 100
"""Of so many windows a batch is news for pages that show them; those of more show it when they are loaded again."""
CLOSE_SECONDS, MOST_READS = 0.1, 3
"""The database's clock is read again where its answer took longer: by so much a use may seem earlier than it was."""
NOBODY = UUID(int=0)
ADD = text("""
SELECT add_gate_counts(CAST(:process AS uuid), CAST(:batch AS bigint), CAST(:answers AS jsonb), CAST(:uses AS jsonb),
    CAST(:refused AS jsonb), CAST(:reported AS jsonb), CAST(:lost AS bigint))
""")


@dataclass(frozen=True)
class NumberedBatch:
    """A batch as it is written, again and again until Postgres has said that it has it: it counts once."""

    batch: int
    answers: str
    uses: str
    refused: str
    reported: str
    lost: int
    total: int
    told: tuple[str, ...]


class CountWriter(threading.Thread):
    """Writes until stopped, and once more then; without Postgres it keeps what is counted and tries again.

    Postgres remembers the number of each process's last batch: one whose commit nobody heard of does not count twice.
    What a process has not written dies with it, which is about a second of counts.
    """

    def __init__(self, database: Database, counts: CallCounts, *, every: float = WRITE_SECONDS) -> None:
        super().__init__(name="gate-counts", daemon=True)
        self._database = database
        self._counts = counts
        self._every = every
        self._process = new_id()
        self._stopping = threading.Event()
        self._batch: NumberedBatch | None = None
        self._number = 0

    @property
    def unwritten(self) -> int:
        """How many answers this process has counted and not written yet."""
        batch = self._batch
        return self._counts.total + (batch.total if batch else 0)

    def run(self) -> None:
        """Write each second, and at the end."""
        while not self._stopping.wait(self._every):
            self.round()
        failed = 0
        while failed < LAST_TRIES:
            if not self.round():
                failed += 1
            elif self._counts.is_empty:
                break

    def stop(self) -> None:
        """Have what is left written, and wait for it for some seconds."""
        self._stopping.set()
        if self.is_alive():
            self.join(STOP_SECONDS)

    def round(self) -> bool:
        """Log what was refused and write what was counted; return whether that is done."""
        for (gateway, reason), number in self._counts.take_refused().items():
            log.info("gate.refused", gateway=str(gateway) if gateway else "unknown", reason=reason, calls=number)
        try:
            self._write()
        except (DataError, IntegrityError) as error:
            # Postgres would refuse it again, and all that comes after it.
            log.critical("gate.counts_dropped", error=type(error).__name__, answers=self._batch and self._batch.total)
            self._batch = None
            return False
        except SQLAlchemyError as error:
            log.warning("gate.counts_not_written", error=type(error).__name__, answers=self.unwritten)
            return False
        except Exception:
            log.exception("gate.counts_failed", answers=self.unwritten)
            return False
        return True

    def _write(self) -> None:
        if self._batch is None and self._counts.is_empty:
            return
        with self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            clock = _clock_of(connection)
            if self._batch is not None:
                self._send(connection, self._batch)
            has_more = not self._counts.is_empty
            while has_more:
                self._batch = self._taken(*clock)
                self._send(connection, self._batch)
                has_more = self._counts.has_many

    def _send(self, connection: Connection, batch: NumberedBatch) -> None:
        connection.execute(ADD, {"process": self._process, **vars(batch)})
        self._batch = None
        if batch.told:
            self._database.schedule.tell(batch.told, PAGES)

    def _taken(self, at: datetime, ours: float) -> NumberedBatch:
        """Take what was counted, with its times on the database's clock, which said `at` when ours said that."""
        taken = self._counts.take()
        self._number += 1
        uses = [
            {
                "request_id": str(request_id),
                "count": one.count,
                "first_at": _time(at, one.first_at - ours),
                "first_gateway": str(one.first[0]),
                "first_action": one.first[1],
                "first_resource": one.first[2],
                "last_at": _time(at, one.last_at - ours),
                "last_gateway": str(one.last[0]),
                "last_action": one.last[1],
                "last_resource": one.last[2],
            }
            for request_id, one in taken.uses.items()
        ]
        total = sum(taken.answers.values())
        return NumberedBatch(
            self._number,
            _answers(taken),
            json.dumps(uses),
            _refused(taken),
            _reported(taken),
            taken.lost,
            total,
            tuple(str(one) for one in islice(taken.uses, MOST_TOLD)),
        )


def _clock_of(connection: Connection) -> tuple[datetime, float]:
    """Return the time on the database's clock, and ours of when it had been read: no use seems later than it was."""
    reads: list[tuple[float, datetime, float]] = []
    while len(reads) < MOST_READS and not (reads and min(reads)[0] <= CLOSE_SECONDS):
        began = BOOT_CLOCK()
        at = connection.execute(CLOCK_TIME).scalar_one()
        ended = BOOT_CLOCK()
        reads.append((ended - began, at, ended))
    return min(reads)[1:]


def _time(at: datetime, seconds: float) -> str:
    return (at + timedelta(seconds=seconds)).isoformat()


def _answers(taken: CountBatch) -> str:
    names = ("gateway_id", "service", "decision", "reason")
    return json.dumps(
        [
            dict(zip(names, (str(gateway or NOBODY), *rest), strict=True), count=count)
            for (gateway, *rest), count in taken.answers.items()
        ]
    )


def _refused(taken: CountBatch) -> str:
    return json.dumps(
        [
            {"tenant": tenant, "service": service, "engineer": str(engineer), "count": count}
            for (tenant, service, engineer), count in taken.refused.items()
        ]
    )


def _reported(taken: CountBatch) -> str:
    return json.dumps(
        [
            {"service": service, "reason": reason, **asdict(kind), "count": count}
            for (service, reason, kind), count in taken.reported.items()
        ]
    )
