"""The evidence: what Postgres, Redis, the sinks, the logs and Flower show at the end."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text

from chaos import exports, questions
from chaos.celery_messages import QUEUES
from chaos.crew import ProcessExit
from chaos.exports import VerifiedExport
from chaos.gate_history import GateHistory, TrueWindow
from chaos.gate_judge import HistoryJudge
from chaos.journal import Journal
from chaos.plan import AppliedFault
from chaos.stage import ChaosStack
from devstack.flower import Flower
from harness.mail_relay import TakenMail
from harness.wait import within

LOOK_SECONDS = 0.5
ORPHAN_SECONDS = 20.0
FLOWER_SECONDS = 60.0
FLOWER_PAGES = ("/api/tasks?limit=10000", "/api/workers", "/api/queues/length", "/metrics")
METRICS = "/metrics"


@dataclass(frozen=True)
class InfrastructureState:
    """The state of the infrastructure: keys of Redis, queued messages, memory, and what killed processes left."""

    keys: frozenset[str]
    waiting: int
    redis_bytes: int
    memory: Mapping[str, int]
    orphans: Sequence[str] = ()


@dataclass(frozen=True)
class Arrival:
    """A mail or call that arrived: its id, recipient and subject; `good` says that its form or signature is right."""

    id: str
    to: str
    subject: str
    good: bool


def _arrived(taken: TakenMail) -> Arrival:
    mail = taken.message
    good = mail["Auto-Submitted"] == "auto-generated" and taken.recipient in str(mail["To"])
    name = str(mail["Message-ID"]).strip("<>").partition("@")[0]
    return Arrival(name, taken.recipient, str(mail["Subject"]), good)


@dataclass(frozen=True)
class ChaosEvidence:
    """All evidence. `left` is what the drain left open; `drift` is where an index breaks its promise.

    `struck` are the faults that were carried out, `ended` the processes that ended without being killed.
    """

    stage: ChaosStack
    journal: Journal
    left: Mapping[str, int]
    drift: Sequence[str]
    base: InfrastructureState
    plant: InfrastructureState
    exports: Sequence[VerifiedExport]
    told: Mapping[str, bool]
    struck: Sequence[AppliedFault]
    ended: Sequence[ProcessExit]
    history: GateHistory = field(default_factory=GateHistory)

    def rows(self, question: str, **values: object) -> list[Any]:
        """Return the answer of Postgres, asked with every right."""
        with self.stage.superuser.connect() as connection:
            return list(connection.execute(text(question), values).all())

    @cached_property
    def gates(self) -> HistoryJudge:
        """The judge of what the gate and the guard answered."""
        return HistoryJudge(self.history, map(TrueWindow.of, self.rows(questions.GATE_WINDOWS)))

    @cached_property
    def arrivals(self) -> Sequence[Arrival]:
        """Everything that has arrived at a sink."""
        calls = [(hook.url, call) for hook in self.stage.cast.hooks for call in hook.calls]
        called = [Arrival(one.id, url, one.event.get("type", ""), one.is_signed) for url, one in calls]
        return [*map(_arrived, self.stage.mail.taken), *called]


def plant(stage: ChaosStack) -> InfrastructureState:
    """Read the state of the infrastructure."""
    orphans = [f"{orphan.pid} {orphan.name()}" for orphan in stage.crew.lasting_orphans(ORPHAN_SECONDS)]
    with stage.redis() as redis:
        keys = frozenset(key.decode() for key in redis.scan_iter(count=1000))
        waiting = sum(int(redis.llen(queue)) for queue in QUEUES)
        used = int(redis.info("memory")["used_memory"])
    return InfrastructureState(keys, waiting, used, stage.crew.memory(), orphans)


def gather(
    stage: ChaosStack,
    journal: Journal,
    history: GateHistory,
    base: InfrastructureState,
    *,
    struck: Sequence[AppliedFault],
    left: Mapping[str, int],
    drifted: Sequence[str],
) -> ChaosEvidence:
    """Collect all evidence once the drain is over."""
    verified = exports.verified(stage)
    told = _flower(stage)
    for path, holds in _places(stage):
        told[path] = holds
    if stage.messages.leaks:
        told["Redis"] = True
    by_now = plant(stage)
    return ChaosEvidence(
        stage, journal, left, drifted, base, by_now, verified, told, struck, tuple(stage.crew.ended), history
    )


def _places(stage: ChaosStack) -> Iterator[tuple[str, bool]]:
    """Yield each log, and whether it contains what it must not."""
    secrets = [*stage.cast.private(), stage.plan.flower_password, *_passwords(stage)]
    private = re.compile("|".join(map(re.escape, secrets)))
    for log in (*stage.crew.logs, *stage.servers.folder.glob("*.log")):
        yield log.name, bool(private.search(log.read_text(errors="replace")))


def _passwords(stage: ChaosStack) -> Iterator[str]:
    plan = stage.plan
    for url in (
        plan.database_url,
        plan.worker_database_url,
        plan.notifications_database_url,
        stage.servers.redis_url,
    ):
        yield url.partition("@")[0].rpartition(":")[2]


def _flower(stage: ChaosStack) -> dict[str, bool]:
    """Wait for Flower, try what it must refuse; return for its pages and the API's metrics whether they leak."""
    private = re.compile("|".join(map(re.escape, stage.cast.private())))
    told = {}
    with Flower(stage.plan) as flower:
        within(FLOWER_SECONDS, flower.is_up, LOOK_SECONDS)
        stage.controls.extend(flower.control().values())
        for page in FLOWER_PAGES:
            told[f"Flower {page}"] = bool(private.search(flower.page(page)))
    figures = httpx.get(f"{stage.plan.public_url}{METRICS}", timeout=10, trust_env=False).raise_for_status()
    told["the figures"] = bool(private.search(figures.text))
    return told


def by_id(rows: Sequence[Any]) -> dict[UUID, Any]:
    """Return rows by their id."""
    return {row.id: row for row in rows}
