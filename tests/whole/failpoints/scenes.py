"""The scenes: in which play, at which failpoint and at which pass of it a process ends; and how a scene is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.embedded import ServerAddresses
from harness.wait import within
from harness.webhook_receiver import WebhookReceiver, receiving
from lockbox.failpoints import mark
from tests.case_adapter import SECRET, case_adapter, catalogue_at
from tests.whole.conftest import RunningStack, stage_of
from tests.whole.failpoints import checks, departure, retention
from tests.whole.failpoints.hall import CHECKPOINTS, FailpointStage, kill
from tests.whole.failpoints.plays import (
    APPROVE_EXTENSION,
    AWAIT,
    BEGIN,
    BREAK_GLASS,
    CHECK,
    CLOSE,
    DECIDE,
    END_EXTENSION,
    EXPIRE,
    EXTEND,
    FILE,
    FIND,
    HOOK,
    LEAVE,
    MAIL,
    REBUILD,
    REMIND,
    RETAIN,
    REVOKE_PRE_APPROVAL,
    SEAL,
    SETTLE,
    TIME_OUT,
    USE,
    USE_PRE_APPROVAL,
    FailpointPlay,
)

PROCESSES = ("api", "worker", "notifications")
DIES_WITHIN = 30.0
ONCE_MORE = 6.0

PLAYED = {
    FILE: (
        "intake.after_evaluation",
        "intake.after_insert",
        "pipeline.before_commit",
        "pipeline.after_commit",
        "pipeline.before_arm",
        "pipeline.after_arm",
    ),
    DECIDE: (
        "decide.after_lock",
        "decide.after_evaluation",
        "decide.after_update",
        "pipeline.before_commit",
        "pipeline.after_commit",
        "pipeline.before_arm",
        "pipeline.after_arm",
    ),
    USE: ("window.after_use",),
    EXTEND: ("intake.after_insert", "transaction.before_arm"),
    APPROVE_EXTENSION: ("decide.after_update", "pipeline.after_commit"),
    END_EXTENSION: ("extension.after_end",),
    BEGIN: ("clock.after_reminder",),
    USE_PRE_APPROVAL: ("pre_approval.after_use", "pipeline.after_commit"),
    REVOKE_PRE_APPROVAL: ("pre_approval.after_end", "pre_approval.after_end:2"),
    CHECK: ("case_check.before_call", "case_check.after_answer", "case_check.after_record"),
    BREAK_GLASS: ("decide.after_update", "pipeline.after_commit"),
    FIND: ("after_review.after_finding",),
    AWAIT: ("after_review.after_reminder",),
    CLOSE: ("case.after_lock", "case.after_end", "case.after_end:2"),
    TIME_OUT: (
        "schedule.after_claim",
        "poller.before_send",
        "poller.mid_batch",
        "poller.after_send",
        "broker.after_pop",
        "broker.after_receive",
        "broker.before_ack",
        "broker.after_ack",
        "clock.after_lock",
        "clock.after_move",
        "reconcile.after_overdue",
    ),
    EXPIRE: (
        "clock.before_commit",
        "clock.after_commit",
        "transaction.before_arm",
        "transaction.after_arm",
        "schedule.after_part",
    ),
    REMIND: ("clock.after_reminder",),
    REBUILD: (
        "reconcile.epoch_changed",
        "reconcile.mid_rebuild",
        "reconcile.before_whole",
        "reconcile.after_whole",
    ),
    MAIL: (
        "schedule.after_claim",
        "broker.after_pop",
        "broker.before_ack",
        "notify.before_claim",
        "fan_out.after_take",
        "fan_out.after_write",
        "transaction.before_arm",
        "notify.after_claim",
        "notify.before_send",
        "smtp.after_connect",
        "smtp.after_data",
        "smtp.after_data:3",
        "notify.before_record",
        "settle.before_event",
        "settle.after_event",
        "notify.after_write",
        "notify.after_record",
    ),
    SETTLE: ("settle.before_event", "settle.after_event"),
    HOOK: ("notify.after_number", "webhook.before_call", "webhook.after_response"),
    SEAL: (
        "sealer.after_take",
        "sealer.after_tree",
        "sealer.after_sign",
        "sealer.before_ship",
        "shipping.before_replace",
        "sealer.after_ship",
        "sealer.after_heartbeat",
        "sealer.after_promise",
    ),
    RETAIN: (
        "retention.before_record",
        "retention.after_record",
        "retention.mid_step:2",
        "retention.mid_step:9",
        "retention.after_step",
        "retention.after_step:2",
    ),
    LEAVE: (
        "departure.before_close",
        "departure.before_export",
        "departure.before_exported",
        "departure.after_texts",
        "departure.after_person:2",
        "departure.before_erased",
    ),
}


@dataclass(frozen=True)
class FailpointScene:
    """One process that ends in one play at one point: `name`, or `name:N` for the Nth time."""

    play: FailpointPlay
    point: str

    @property
    def name(self) -> str:
        return self.point.partition(":")[0]

    @property
    def title(self) -> str:
        return f"{self.play.process} {self.point}"


SCENES = tuple(FailpointScene(play, point) for play, points in PLAYED.items() for point in points)


@dataclass(frozen=True)
class Theatre:
    """A running stage whose processes end, and a webhook receiver."""

    stage: RunningStack
    receiver: WebhookReceiver

    def play(self, scene: FailpointScene) -> list[str]:
        """Let the process end at the point, start it again, and return everything that is wrong."""
        play, process = scene.play, scene.play.process
        hall = FailpointStage.of(self.stage, self.receiver, **play.policy)
        hall.expected = play.expected
        if play is RETAIN:
            return retention.play(hall, scene.point)
        if play is LEAVE:
            return departure.play(hall, scene.point)
        down = ("worker", "notifications") if play.alone else (process,)
        for name in down:
            kill(self.stage, name)
        play.before(hall)
        died = self._die(scene, hall)
        if process == "notifications":
            hall.lapse()
        wrong = checks.open_past_the_end(hall) if process != "api" else []
        for name in down:
            self._start(name)
        if not died:
            return [f"{scene.title} was never reached", *wrong]
        play.meanwhile(hall)
        wrong += self._after(hall, play)
        return [*wrong, *checks.found(hall, play)]

    def _after(self, hall: FailpointStage, play: FailpointPlay) -> list[str]:
        """End what would otherwise take long, after all its notifications so far were sent."""
        told = within(checks.PATIENCE, lambda: not self.stage.open_notifications(hall.world))
        play.after(hall)
        return [] if told else ["notifications were left open"]

    def _die(self, scene: FailpointScene, hall: FailpointStage) -> bool:
        """Start the process with the failpoint, play until the process ends there, and kill what is left of it."""
        process, log = scene.play.process, self.stage.processes.logs / f"{scene.play.process}.log"
        before = log.stat().st_size
        self.stage.processes.extra["LOCKBOX_FAILPOINT"] = scene.point
        try:
            self._start(process)
        finally:
            del self.stage.processes.extra["LOCKBOX_FAILPOINT"]

        def died() -> bool:
            with log.open("rb") as lines:
                lines.seek(before)
                return mark(scene.name).encode() in lines.read()

        scene.play.meanwhile(hall)
        ended = within(ONCE_MORE, died)
        if not ended and process != "api":
            # On a slow machine the time came before the process was up; what is asked now comes while it is.
            scene.play.before(hall)
        ended = ended or within(DIES_WITHIN, died)
        kill(self.stage, process)
        return ended

    def _start(self, process: str) -> None:
        self.stage.processes.start(process)
        if process == "api":
            self.stage.processes.wait_until_ready()


@contextmanager
def theatre(servers: ServerAddresses, logs: Path) -> Iterator[Theatre]:
    """Open a theatre on running servers: a stage with its own database, and a folder for checkpoints."""
    (logs / CHECKPOINTS).mkdir(parents=True)
    with case_adapter() as adapter, receiving() as receiver:
        settings = {
            "LOCKBOX_CATALOGUE": str(catalogue_at(adapter.url, logs)),
            "LOCKBOX_CASE_ADAPTER_SECRET": SECRET,
        }
        with stage_of(servers, logs, names=(), settings=settings) as stage:
            yield _begun(stage, logs, receiver)


def _begun(stage: RunningStack, logs: Path, receiver: WebhookReceiver) -> Theatre:
    stage.processes.extra["LOCKBOX_CHECKPOINT_FOLDER"] = str(logs / CHECKPOINTS)
    for process in PROCESSES:
        stage.processes.start(process)
    stage.processes.wait_until_ready()
    return Theatre(stage, receiver)
