"""`lockbox observer` and `lockbox tenant preview`: who is copied, and whom a request would reach and where."""

import pytest

from tests.whole.conftest import RunningStack
from tests.whole.shell import Shell

PROCESSES = ("api",)

WHAT_IF = ("--service", "exchange-online", "--resource", "mailbox:anna@contoso.example")


@pytest.fixture
def shell(stage: RunningStack) -> Shell:
    """A terminal of a world of the test's own."""
    return Shell(stage, stage.world(approval_window=600))


@pytest.mark.far
def test_a_observer_is_added_listed_foreseen_and_removed(shell: Shell) -> None:
    slug = shell.world.tenant.slug
    desk = ("--name", "Service desk", "--email", "desk@contoso.example", "--service", "exchange-online")
    added = shell.does("tara", "observer", "add", slug, *desk)
    (one,) = shell.reads("ann", "observer", "list", slug)["items"]

    listed = shell.does("ann", "observer", "list", slug)
    foreseen = shell.does("ann", "tenant", "preview", slug, *WHAT_IF)
    removed = shell.does("tara", "observer", "remove", slug, one["id"])

    assert "Service desk" in added
    assert one["id"] in listed
    assert "Service desk (desk@contoso.example)" in foreseen
    assert "Ann (" in foreseen
    assert removed == "Removed. This observer gets no more copies.\n"
    assert shell.does("ann", "observer", "list", slug) == "None.\n"


@pytest.mark.far
def test_whoever_has_no_say_is_refused(shell: Shell) -> None:
    slug = shell.world.tenant.slug

    shell.is_refused("ann", "wrong-role: ", "observer", "add", slug, "--name", "X", "--email", "x@contoso.example")
    shell.is_refused("erin", "wrong-role: ", "observer", "list", slug)
    shell.is_refused("erin", "wrong-role: ", "tenant", "preview", slug, *WHAT_IF)


@pytest.mark.far
def test_an_engineer_sees_at_how_many_mailboxes_it_would_arrive(shell: Shell) -> None:
    asked = ("--tenant", shell.world.tenant.slug, *WHAT_IF, "--justification", "It is broken", "--window", "10m")

    shown = shell.does("erin", "request", "preview", *asked)

    assert "Notified first" in shown
    assert "@example.test" not in shown
