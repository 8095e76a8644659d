"""A client generated from the OpenAPI document without a warning takes requests through their life over HTTP."""

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from devstack.embedded import ServerAddresses
from devstack.stack import CHECKOUT
from harness.people import MAILBOX, SERVICE, World
from tests.whole.conftest import RunningStack, stage_of

PACKAGE = "lockbox_client"
MAKE = shutil.which("make") or "/usr/bin/make"
PAGE = CHECKOUT / "docs" / "how-to" / "client.md"
SHOWN = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which `make client` has written."""
    made_into = tmp_path_factory.mktemp("generated") / "client"
    made = subprocess.run(
        [MAKE, "--no-print-directory", "client", f"CLIENT={made_into}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "warning" not in (made.stdout + made.stderr).lower()
    return made_into


@pytest.fixture(scope="module")
def package(folder: Path) -> Iterator[str]:
    """The generated package, which can be imported by this name."""
    sys.path.insert(0, str(folder))
    yield PACKAGE
    sys.path.remove(str(folder))


@dataclass(frozen=True)
class GeneratedClient:
    """The generated client of one person."""

    package: str
    client: Any

    def call(self, tag: str, operation: str, *args: Any, **facts: Any) -> Any:
        """Call an operation with a body and parameters of the generated package's types."""
        module = importlib.import_module(f"{self.package}.api.{tag}.{operation}")
        return module.sync_detailed(*args, client=self.client, **facts)

    def done(self, tag: str, operation: str, *args: Any, **facts: Any) -> Any:
        answer = self.call(tag, operation, *args, **facts)
        assert answer.status_code < 300, answer.content
        return answer.parsed


@pytest.fixture(scope="module")
def stage(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The API alone."""
    with stage_of(template, tmp_path_factory.mktemp("logs"), names=("api",)) as found:
        yield found


@pytest.fixture
def world(stage: RunningStack) -> World:
    """A tenant, whose requests the vendor reviews first, with time for each step."""
    return stage.world(vendor_review=True, approval_window=600, review_window=600, access_ceiling=600)


@pytest.fixture
def client_of(package: str, stage: RunningStack, world: World) -> Callable[[str], GeneratedClient]:
    made = importlib.import_module(package)

    def of(name: str) -> GeneratedClient:
        client = made.AuthenticatedClient(base_url=stage.plan.public_url, token=world.tokens[name])
        return GeneratedClient(package, client)

    return of


def new_request(models: Any, world: World) -> Any:
    return models.NewRequest(
        tenant=world.tenant.slug,
        service=SERVICE,
        resources=[MAILBOX],
        reason_code=models.Reason.SUPPORT_CASE,
        justification="The mailbox does not open",
        case_ref="CASE-1",
        access_window=300,
    )


def test_a_generated_api_client_takes_a_request_from_start_to_end(
    package: str, world: World, client_of: Callable[[str], GeneratedClient]
) -> None:
    models = importlib.import_module(f"{package}.models")
    erin, manager, ann, gate, aude = (client_of(name) for name in ("erin", "max", "ann", "gate", "aude"))
    asked = new_request(models, world)
    submitted = erin.done("requests", "submit_request", body=asked, idempotency_key="life-1")
    again = erin.done("requests", "submit_request", body=asked, idempotency_key="life-1")
    assert isinstance(submitted, models.NewRequestView)
    assert again.id == submitted.id
    assert submitted.state == models.State.REVIEWING

    endorsed = manager.done("requests", "endorse_request", submitted.id, body=models.CommentInput(comment="Fine"))
    assert endorsed.state == models.State.PENDING

    stale = ann.call("requests", "approve_request", submitted.id, body=models.ApprovalInput(), if_match='"1"')
    assert (stale.status_code, stale.parsed.code) == (412, "stale-version")
    seen = ann.done("requests", "get_request", submitted.id)
    assert [move.action for move in seen.available_moves if move.allowed] == ["approve", "deny"]
    approved = ann.done(
        "requests",
        "approve_request",
        submitted.id,
        body=models.ApprovalInput(access_window=60),
        if_match=f'"{seen.version}"',
    )
    assert approved.state == models.State.ACTIVE
    assert approved.open_
    assert approved.deadline_at - approved.opened_at == timedelta(seconds=60)

    question = {
        "tenant": world.tenant.slug,
        "service": SERVICE,
        "resource": MAILBOX,
        "action": "read",
        "engineer": world.people["erin"].person_id,
    }
    opened = gate.done("access", "check_access", **question)
    assert (opened.open_, opened.request_id) == (True, submitted.id)

    ended = erin.done("requests", "complete_request", submitted.id, body=models.CommentInput())
    assert ended.state == models.State.COMPLETED
    closed = gate.call("access", "check_access", **question)
    assert (closed.status_code, closed.parsed.code) == (403, "no-open-window")

    timeline = aude.done("requests", "list_request_events", submitted.id)
    moves = [event.action for event in timeline.items if event.seq]
    assert moves == ["submit", "endorse", "approve", "complete"]
    page = aude.done("requests", "list_requests", state=models.State.COMPLETED)
    assert submitted.id in [one.id for one in page.items]


def test_a_generated_api_client_denies_a_request(
    package: str, world: World, client_of: Callable[[str], GeneratedClient]
) -> None:
    models = importlib.import_module(f"{package}.models")
    erin, manager, ann = (client_of(name) for name in ("erin", "max", "ann"))
    submitted = erin.done("requests", "submit_request", body=new_request(models, world))
    manager.done("requests", "endorse_request", submitted.id, body=models.CommentInput())

    denied = ann.done("requests", "deny_request", submitted.id, body=models.CommentInput(comment="Not today"))

    assert denied.state == models.State.DENIED
    late = ann.call("requests", "approve_request", submitted.id, body=models.ApprovalInput())
    assert (late.status_code, type(late.parsed)) == (409, models.Problem)


def test_a_generated_api_client_reports_problems(
    package: str, stage: RunningStack, world: World, client_of: Callable[[str], GeneratedClient]
) -> None:
    models = importlib.import_module(f"{package}.models")

    missing = client_of("ann").call("requests", "get_request", world.people["erin"].person_id)
    foreign = client_of("erin").call("tenants", "get_policy", world.tenant.slug)
    stranger = importlib.import_module(package).AuthenticatedClient(base_url=stage.plan.public_url, token="lbx_no")
    unknown = GeneratedClient(package, stranger).call("account", "get_me")

    assert [one.parsed.code for one in (missing, foreign, unknown)] == ["not-found", "wrong-role", "invalid-token"]
    assert {type(one.parsed) for one in (missing, foreign, unknown)} == {models.Problem}


def test_the_example_on_the_api_client_page_runs(folder: Path, stage: RunningStack, world: World) -> None:
    (shown,) = SHOWN.findall(PAGE.read_text())
    variables = {
        "LOCKBOX_URL": stage.plan.public_url,
        "LOCKBOX_TOKEN": world.tokens["erin"],
        "PYTHONPATH": str(folder),
    }

    ran = subprocess.run(
        [sys.executable, "-c", shown.replace('"contoso"', repr(world.tenant.slug))],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stdout) == (0, "reviewing\n"), ran.stderr
