"""The command `lockbox`, run as a person would, against a real API."""

import json
import re
import subprocess
import sys

from cli.stack import CHECKOUT
from config.children import environment
from tests.builders import World
from tests.whole.conftest import Stage


def lockbox(stage: Stage, token: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command with somebody's token."""
    known = {"LOCKBOX_URL": stage.plan.public_url} | ({"LOCKBOX_TOKEN": token} if token else {})
    return subprocess.run(
        [sys.executable, "-m", "cli", *words],
        env=environment(known | {"COLUMNS": "160"}),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def submit(stage: Stage, world: World, *more: str) -> subprocess.CompletedProcess[str]:
    """Ask for access as erin."""
    asked = ["--tenant", world.tenant.slug, "--service", "exchange-online", "--seconds", "600"]
    why = ["--resource", "mailbox:anna@contoso.example", "--justification", "It does not open [bold]now[/]"]
    return lockbox(stage, world.tokens["erin"], "request", "submit", *asked, *why, *more)


def test_a_request_is_filed_approved_and_revoked_from_a_terminal(stage: Stage) -> None:
    world = stage.world(approval_window=600)
    filed = json.loads(submit(stage, world, "--json").stdout)

    approved = lockbox(
        stage, world.tokens["ann"], "request", "approve", filed["id"], "--comment", "Go", "--seconds", "60"
    )
    engineer = str(world.people["erin"].person_id)
    door = ["access", "--tenant", world.tenant.slug, "--service", "exchange-online", "--engineer", engineer]
    served = lockbox(stage, world.tokens["gate"], *door, "--resource", "mailbox:anna@contoso.example")
    revoked = lockbox(stage, world.tokens["ann"], "request", "revoke", filed["id"], "--version", "2")
    refused = lockbox(stage, world.tokens["gate"], *door, "--resource", "mailbox:anna@contoso.example")
    timeline = lockbox(stage, world.tokens["erin"], "request", "events", filed["id"])

    assert "Open until" in approved.stdout
    assert (served.returncode, "Open until" in served.stdout) == (0, True)
    assert "Closed by you" in revoked.stdout
    assert (refused.returncode, "no-open-window" in refused.stderr) == (1, True)
    assert re.findall(r"submit|approve |revoke ", timeline.stdout) == ["submit", "approve ", "revoke "]


def test_what_people_wrote_is_shown_as_they_wrote_it(stage: Stage) -> None:
    world = stage.world(approval_window=600)

    shown = submit(stage, world)

    assert "It does not open [bold]now[/]" in shown.stdout
    assert "3 people are asked" in shown.stdout
    listed = lockbox(stage, world.tokens["erin"], "request", "list", "--state", "pending")
    assert "Waiting for your answer" in listed.stdout


def test_a_refusal_is_one_line_that_says_what_to_do(stage: Stage) -> None:
    world = stage.world(approval_window=600)
    request = world.submit()

    stale = lockbox(stage, world.tokens["ann"], "request", "deny", str(request.id), "--version", "7")
    strange = lockbox(stage, world.tokens["erin"], "request", "revoke", str(request.id))
    unset = lockbox(stage, None, "request", "list")

    assert stale.returncode == strange.returncode == unset.returncode == 1
    assert stale.stderr.startswith("stale-version: ")
    assert strange.stderr.startswith("wrong-role: ")
    assert "LOCKBOX_TOKEN" in unset.stderr
    assert stale.stderr.count("\n") == strange.stderr.count("\n") == unset.stderr.count("\n") == 1


def test_an_api_that_is_away_is_said_so(stage: Stage) -> None:
    known = {"LOCKBOX_URL": "http://127.0.0.1:9", "LOCKBOX_TOKEN": "lbx_test_0_0"}
    ended = subprocess.run(
        [sys.executable, "-m", "cli", "request", "list"],
        env=environment(known),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert "does not answer" in ended.stderr
    assert stage.plan.public_url not in ended.stderr
