"""The `lockbox` commands about requests, run as people would, against a real API."""

import csv
import io
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import UUID

import pytest

from harness.outbox import fan_out_all
from harness.stage import as_sender, setting, unbound
from lockbox.identity.roles import Role
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from tests.database.scenes import set_back, write
from tests.database.tenancy import id_of
from tests.policy_setup import stand_in
from tests.whole.conftest import RunningStack
from tests.whole.shell import Shell, lockbox

PROCESSES = ("api",)

UNREACHED = "UPDATE notifications SET outcome = 'dead', closed_at = now() WHERE request_id = :id"


@pytest.fixture
def shell(stage: RunningStack) -> Shell:
    return Shell(stage, stage.world(approval_window=600))


def submission(shell: Shell) -> list[str]:
    asked = ["--tenant", shell.world.tenant.slug, "--service", "exchange-online", "--window", "10m"]
    return [*asked, "--resource", "mailbox:anna@contoso.example", "--justification", "It does not open [bold]now[/]"]


def door(shell: Shell) -> list[str]:
    asked = ["access", "--tenant", shell.world.tenant.slug, "--service", "exchange-online"]
    return [*asked, "--resource", "mailbox:anna@contoso.example", "--engineer", str(id_of(shell.world, "erin"))]


def test_a_request_is_submitted_approved_and_revoked_from_a_terminal(shell: Shell) -> None:
    submitted = shell.reads("erin", "request", "submit", *submission(shell))

    approved = shell.does("ann", "request", "approve", submitted["id"], "--comment", "Go", "--window", "1m")
    served = shell.does("gate", *door(shell))
    revoked = shell.does("ann", "request", "revoke", submitted["id"], "--version", "2")
    shell.is_refused("gate", "no-open-window: ", *door(shell))
    timeline = shell.does("erin", "request", "events", submitted["id"])
    fan_out_all(as_sender(shell.world.db))
    told = shell.does("ann", "request", "notifications", submitted["id"])

    assert "Amir" in told
    assert "The other side: " in told
    assert "Erin" not in told
    assert "Open until" in approved
    assert "Open until" in served
    assert "Revoked" in revoked
    assert re.findall(r"submit|approve |revoke ", timeline) == ["submit", "approve ", "revoke "]


def test_the_cli_prints_unreached_people_and_resubmits_a_timed_out_request(shell: Shell) -> None:
    submitted = shell.reads("erin", "request", "submit", *submission(shell))
    shell.is_refused("erin", "not-timed-out: ", "request", "again", submitted["id"])
    root = unbound(shell.world.db).execution_options(isolation_level="AUTOCOMMIT")
    fan_out_all(as_sender(shell.world.db))
    write(root, UNREACHED, id=submitted["id"])
    set_back(root, [UUID(submitted["id"])], 1)
    timers.run(setting(shell.world.db), [UUID(submitted["id"])])

    shown = shell.does("erin", "request", "show", submitted["id"])
    timeline = shell.does("erin", "request", "events", submitted["id"])
    listed = shell.does("olga", "vendor", "undelivered")
    asked = shell.reads("erin", "request", "again", submitted["id"])

    assert "None of three approvers could be reached." in shown
    assert "none of 3 was reached" in " ".join(timeline.split())
    assert submitted["id"] in listed
    assert shell.world.tenant.slug in listed
    assert "Ann" not in listed
    assert asked["follows"] == submitted["id"]


def test_a_vendor_auditor_reads_a_request_in_the_cli_without_hidden_values(shell: Shell) -> None:
    request = shell.world.submit()

    shown = shell.does("vera", "request", "show", request.id)

    assert "support case" in shown
    assert request.justification not in shown


def test_the_cli_prints_delegates_and_their_sign_ins(shell: Shell) -> None:
    shell.world.add("dora", Role.AUDITOR, shell.world.tenant.id)
    stand_in(shell.world, "dora", "ann")
    request = shell.world.submit()
    shell.world.act("dora", Action.APPROVE, request.id)

    shown = shell.does("erin", "request", "show", request.id)
    events = shell.does("erin", "request", "events", request.id)

    assert re.search(r"^Decisions +approve by sample: Dora \(approver\) for Ann$", shown, re.MULTILINE)
    assert re.search(r"Dora \(approver\) for Ann +approve by sample", events)


def test_an_id_prefix_is_enough_for_the_cli_and_a_watch_ends_with_the_request(shell: Shell) -> None:
    whole = str(shell.world.submit().id)
    beginning = whole[:18]

    shown = shell.reads("ann", "request", "show", beginning)
    shell.does("ann", "request", "deny", beginning.replace("-", ""), "--comment", "No case")
    watched = shell.does("erin", "request", "watch", beginning)
    without = shell.run("erin", "request", "watch", whole, "--until", "active")
    shell.is_refused("tara", "nothing that you may see", "request", "show", "ffffffff")

    assert shown["id"] == whole
    assert [line.split(": ")[1] for line in watched.splitlines()[1:]] == [
        f"submit → pending until {watched.splitlines()[1][-19:]}",
        "deny by sample → denied  No case",
    ]
    assert without.code == 1


def test_the_cli_prints_a_list_as_csv_with_whole_ids_and_utc(shell: Shell) -> None:
    request = shell.world.submit()

    (row,) = csv.DictReader(io.StringIO(shell.does("erin", "request", "list", "--output", "csv")))
    (item,) = shell.reads("erin", "request", "list")["items"]

    assert row == {
        "Request": str(request.id),
        "State": "pending",
        "Customer": shell.world.tenant.slug,
        "Service": "exchange-online",
        "Requester": "Erin",
        "Severity": "",
        "Level": "read",
        "Deadline": item["deadline_at"],
    }


def test_the_cli_preview_of_a_request_that_would_be_rejected_exits_1(shell: Shell) -> None:
    too_long = ["24h" if word == "10m" else word for word in submission(shell)]

    ended = shell.run("erin", "request", "preview", *too_long)

    assert ended.code == 1
    assert "at most 4 h" in ended.out
    assert '"can_be_submitted": false' in shell.run("erin", "request", "preview", *too_long, "--output", "json").out


def test_without_a_sign_in_the_cli_says_how_to_sign_in(shell: Shell) -> None:
    assert "LOCKBOX_URL" in shell.is_refused(None, "run `lockbox sign-in`", "request", "list")


def test_the_cli_reports_an_unreachable_api(shell: Shell) -> None:
    ended = lockbox(shell.token("erin") | {"LOCKBOX_URL": "http://127.0.0.1:9"}, "request", "list")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "does not answer" in ended.stderr
    assert shell.world.tokens["erin"] not in ended.stderr


def test_the_cli_reports_a_server_that_is_not_lockbox(shell: Shell) -> None:
    class Greeter(BaseHTTPRequestHandler):
        """Some other server."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "5")
            self.end_headers()
            self.wfile.write(b"Hello")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Greeter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        ended = lockbox(shell.token("erin") | {"LOCKBOX_URL": url}, "request", "list")
        server.shutdown()

    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"the server at {url} is not a Lockbox API" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_no_token_used_by_the_cli_is_in_the_apis_log(shell: Shell) -> None:
    for who in ("erin", "ann", "olga"):
        shell.run(who, "me")
        shell.run(f"{shell.world.tokens[who]}x", "me")
        shell.run(who, "token", "revoke", id_of(shell.world, who))

    assert '"route": "/v1/me"' in shell.log()
    assert not [token for token in shell.world.tokens.values() if token in shell.log() or token[:-8] in shell.log()]
