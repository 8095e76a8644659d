"""The stage: every server and process of the demo, started together and stopped in the right order."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from config.settings import Settings
from demo import gateway
from demo.arrivals import DemoReceiver
from demo.cast import DemoCast
from demo.doors import AccessProber
from demo.story import ENDPOINTS, STORIES
from devstack import stack
from devstack.flower import Flower
from devstack.signals import ignore_signals, unbroken
from devstack.stack import Processes, StackPlan
from harness.mail_relay import CaughtMails
from harness.network import serving
from harness.ports import own_port
from harness.stage import own_folder

LOGS = stack.LOGS / "demo"
READY_SECONDS = 120
NO_WINDOW = "no_window"
WORKERS = (f"demo-{os.getpid()}-core", f"demo-{os.getpid()}-notifications")
"""The names are unique, because another stack on the same Redis also has a core and a notifications worker."""

Say = Callable[[str], object]


class DemoFailure(Exception):  # noqa: N818 - the name says what happened
    """The demo cannot go on; the message says why and where to look."""


@dataclass(frozen=True)
class DemoStack:
    """Everything that runs."""

    plan: StackPlan
    processes: Processes
    cast: DemoCast
    receivers: list[DemoReceiver]
    mailbox: CaughtMails
    doors: AccessProber
    flower: Flower
    guard: str

    def check(self) -> None:
        """Check that everything still runs.

        Raises:
            DemoFailure: a process has ended by itself.
        """
        for name, code in self.processes.ended().items():
            raise DemoFailure(f"the process {name} ended by itself ({code}); see {self.processes.logs / name}.log")


@contextmanager
def built(settings: Settings, folder: Path | None, say: Say) -> Iterator[DemoStack]:
    """Start everything and wait until it can be used; at the end, stop all of it and remove what was made.

    Without a `folder`, the servers get a temporary one. The mails are always caught, whatever relay is configured:
    the people of the demo have no mailboxes.

    Raises:
        EmbeddedRefused, DemoFailure: something does not start; the message says what.
    """
    if settings.environment == "production":
        raise DemoFailure("the demo is for a machine of your own, never for production")
    with ExitStack() as ends:
        try:
            with unbroken():
                stage = _built(settings, folder, say, ends)
            yield _ready(stage)
        finally:
            ignore_signals()
            say("Stopping everything")


def _built(settings: Settings, folder: Path | None, say: Say, ends: ExitStack) -> DemoStack:
    caught = settings.model_copy(update={"smtp_url": None})
    place = folder or ends.enter_context(own_folder("demo")) / "servers"
    plan = stack.prepare(caught, place, api_port=own_port(), flower_port=own_port(), say=say)
    if plan.servers is None:
        raise DemoFailure("there is no mail catcher")
    # No other process uses a folder of our own, which is removed next, so its servers are stopped.
    ends.callback(*((stack.release, plan) if folder else (plan.servers.stop,)))
    say("Adding the people of the demo")
    receivers = [ends.enter_context(serving(DemoReceiver(endpoint))) for endpoint in ENDPOINTS]
    cast = DemoCast.gather(plan, settings, receivers)
    ends.callback(cast.dismiss)

    say("Starting the API, two workers, Flower, a service, and Caddy, which asks the gate about each call to it")
    processes = Processes(plan, LOGS)
    ends.callback(processes.stop)
    guard = _start(processes, cast, ends)
    doors = AccessProber(guard, gateway.host_of(cast.tenant), _mailboxes(cast), cast.ahead)
    ends.callback(doors.stop)
    flower = Flower(plan)
    ends.callback(flower.close)
    mailbox = CaughtMails(plan.servers.maildir, from_now_on=True)
    return DemoStack(plan, processes, cast, receivers, mailbox, doors, flower, guard)


def _ready(stage: DemoStack) -> DemoStack:
    _wait(stage, "the API", lambda: stack.is_ready(stage.plan))
    people, tokens = stage.cast.people, stage.cast.tokens
    gateway.map_engineer(stage.plan.public_url, tokens["olga"], people["gate"], people[gateway.ENGINEER])
    _wait(stage, "the gateway", lambda: _refuses(stage.guard, stage.cast.tenant))
    _wait(stage, "Flower with both workers", lambda: stage.flower.sees(set(WORKERS)))
    return stage


def mailbox(number: int, tenant: str) -> str:
    """Return the address of the mailbox that a story is about."""
    return f"{STORIES[number - 1].mailbox}@{tenant}.example"


def _mailboxes(cast: DemoCast) -> dict[int, str]:
    return {story.number: mailbox(story.number, cast.tenant) for story in STORIES}


def _start(processes: Processes, cast: DemoCast, ends: ExitStack) -> str:
    """Start the processes, the slowest first, and return the gateway's address."""
    for old in LOGS.glob("*.log"):
        old.unlink()
    folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="lockbox-demo-")))
    processes.extra["LOCKBOX_CATALOGUE"] = str(gateway.write_catalogue(folder))
    processes.start("api")
    processes.start("worker", options=f"--name {WORKERS[0]}")
    processes.start("notifications", options=f"--name {WORKERS[1]}")
    processes.start("flower")
    return gateway.start_gateway(processes, folder, cast.gateway_token)


def _wait(stage: DemoStack, what: str, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + READY_SECONDS
    while not ready():
        stage.check()
        if time.monotonic() > until:
            raise DemoFailure(f"{what} did not come up within {READY_SECONDS} s; see {LOGS}")
        time.sleep(0.1)


def _refuses(url: str, tenant: str) -> bool:
    """Whether the gate itself refuses a call at the gateway."""
    host = {"host": gateway.host_of(tenant)}
    try:
        answer = httpx.get(f"{url}/mailboxes/nobody", headers=host, timeout=2, trust_env=False)
        return bool(answer.headers.get("lockbox-reason") == NO_WINDOW)
    except httpx.HTTPError:
        return False
