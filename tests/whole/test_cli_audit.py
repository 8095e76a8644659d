"""`lockbox audit` against a real API: search, export, verify offline, checkpoints and reports."""

import csv
import io
from pathlib import Path

import pytest

from devstack.stack import APPROVAL_KEY
from lockbox.audit.log import signing_keys
from lockbox.database import Database, make_engine
from lockbox.identity.keyring import ApprovalKeys
from lockbox.schedule import Schedule
from tests.logs import public, sealed
from tests.whole.conftest import RunningStack
from tests.whole.shell import Shell

PROCESSES = ("api",)


@pytest.fixture
def shell(stage: RunningStack) -> Shell:
    """A terminal of a new world, in which a request was approved, completed and sealed."""
    shell = Shell(stage, stage.world(approval_window=600))
    submission = ("--tenant", shell.world.tenant.slug, "--service", "exchange-online", "--window", "10m")
    what = ("--resource", "mailbox:anna@contoso.example", "--justification", "It is broken")
    shell.does("erin", "request", "submit", *submission, *what)
    request = the_request(shell)
    shell.does("ann", "request", "approve", request, "--comment", "Be quick")
    shell.does("erin", "request", "complete", request)
    worker = Database(make_engine(stage.plan.worker_database_url, role="test-sealer"), Schedule(stage.plan.redis_url))
    sealed(worker)
    worker.dispose()
    return shell


def believed(shell: Shell) -> tuple[str, ...]:
    """Return the options that name the vendor's keys: of the log, and of approvals."""
    approvals = ApprovalKeys(signing_keys.read([shell.stage.plan.keys / APPROVAL_KEY])).public
    return "--key", public().text, "--key", approvals.text


def the_request(shell: Shell) -> str:
    request: str = shell.reads("erin", "request", "list")["items"][0]["id"]
    return request


@pytest.mark.far
def test_the_cli_verifies_an_export_and_detects_an_altered_export(shell: Shell, tmp_path: Path) -> None:
    export, note = tmp_path / "export.ndjson", tmp_path / "checkpoint"
    written = shell.run("aude", "audit", "export", "-f", export)
    shell.run("aude", "audit", "checkpoint", "-f", note)
    memory = ("--memory", tmp_path / "verified")
    verifies = ("audit", "verify", export, "--checkpoint", note, *believed(shell), *memory)

    good = shell.does(None, *verifies)
    export.write_bytes(export.read_bytes().replace(b"Be quick", b"Be quiet"))
    bad = shell.run(None, *verifies)

    assert (written.code, written.out, written.err) == (0, "", f"Written to {export}.\n")
    assert good.startswith("Intact, continues your checkpoint of ")
    assert " 3 events, a whole export of " in good
    assert bad.code == 1
    assert "the value shown as comment is not the one that the event commits to" in bad.out


def test_the_cli_overwrites_no_export_file(shell: Shell, tmp_path: Path) -> None:
    export = tmp_path / "export.ndjson"
    export.write_text("mine")

    ended = shell.run("aude", "audit", "export", "-f", export)

    assert ended.code == 1
    assert "cannot be written" in ended.err
    assert export.read_text() == "mine"


def test_the_cli_prints_an_audit_log_as_csv(shell: Shell) -> None:
    rows = list(csv.DictReader(io.StringIO(shell.does("aude", "audit", "export", "--format", "csv"))))

    assert [row["Activity"] for row in rows] == ["submit", "approve", "complete"]


@pytest.mark.far
def test_the_cli_prints_a_report_and_writes_it_as_a_page(shell: Shell, tmp_path: Path) -> None:
    page = tmp_path / "report.html"

    shown = shell.does("aude", "audit", "report", the_request(shell))
    written = shell.run("aude", "audit", "report", the_request(shell), "--html", "-f", page)

    assert "No activity was recorded while it was open." in shown
    assert "Ann (approver)" in shown
    assert written.code == 0
    assert "No activity was recorded while it was open." in page.read_text(encoding="utf-8")
