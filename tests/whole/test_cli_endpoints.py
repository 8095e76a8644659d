"""`lockbox endpoint`: webhooks are added, changed and tried out; a secret is printed once and by itself."""

import pytest

from tests.commands import CommandResult
from tests.whole.conftest import RunningStack
from tests.whole.shell import Shell

PROCESSES = ("api",)

URL = "https://hooks.contoso.example/lockbox"


@pytest.fixture
def shell(stage: RunningStack) -> Shell:
    """A terminal of a world of the test's own."""
    return Shell(stage, stage.world(approval_window=600))


def printed(ended: CommandResult) -> tuple[str, str]:
    """Return the secret that was printed, by itself and with a warning beside it, and the webhook's id."""
    assert ended.code == 0, ended
    assert ended.err.startswith("This is the only time that the secret is shown")
    assert ended.out.startswith("whsec_")
    return ended.out.removesuffix("\n"), ended.err.split()[-1].rstrip(".")


@pytest.mark.far
@pytest.mark.parametrize("who", ["tara", "olga"])
def test_a_webhook_is_added_changed_rotated_and_removed(shell: Shell, who: str) -> None:
    whose = ("--tenant", shell.world.tenant.slug) if who == "tara" else ()
    secret, known = printed(shell.run(who, "endpoint", "add", URL, *whose, "--event", "request.approved"))
    newer, same = printed(shell.run(who, "endpoint", "rotate", known, "--overlap", "1h"))

    changed = shell.does(who, "endpoint", "change", known, "--all-events", "--disable", "--description", "Ours")
    listed = shell.does(who, "endpoint", "list", *whose)
    shown = shell.reads(who, "endpoint", "show", known)

    assert known == same
    assert secret != newer
    assert "disabled (by hand)" in changed
    assert known in listed
    assert (shown["event_types"], shown["description"], shown["why_disabled"]) == ([], "Ours", "by_hand")
    for text in (changed, listed, str(shown), shell.log()):
        assert secret not in text
        assert newer not in text
    shell.is_refused(who, "endpoint-disabled: ", "endpoint", "test", known)
    assert shell.does(who, "endpoint", "remove", known) == "Removed.\n"
    shell.is_refused(who, "not-found: ", "endpoint", "show", known)


@pytest.mark.far
def test_a_test_is_called_and_the_log_is_empty_until_a_worker_has_been_there(shell: Shell) -> None:
    _, known = printed(shell.run("tara", "endpoint", "add", URL, "--tenant", shell.world.tenant.slug))

    called = shell.does("tara", "endpoint", "test", known)

    assert called.startswith("Test queued with webhook-id ")
    assert shell.does("tara", "endpoint", "deliveries", known) == "None.\n"
    assert shell.reads("tara", "endpoint", "deliveries", known) == {"items": [], "next_cursor": None}
    shell.is_refused("tara", "not-found: ", "endpoint", "redeliver", known)


@pytest.mark.far
def test_what_leads_inside_and_whoever_has_no_say_is_refused(shell: Shell) -> None:
    slug = shell.world.tenant.slug
    _, known = printed(shell.run("tara", "endpoint", "add", URL, "--tenant", slug))

    shell.is_refused("tara", "invalid-request: ", "endpoint", "add", "https://10.0.0.1/", "--tenant", slug)
    shell.is_refused("ann", "wrong-role: ", "endpoint", "add", URL, "--tenant", slug)
    shell.is_refused("ann", "wrong-role: ", "endpoint", "show", known)
    shell.is_refused("olga", "not-found: ", "endpoint", "show", known)
    shell.is_refused("max", "wrong-role: ", "endpoint", "list")
    assert shell.run("tara", "endpoint", "change", known).err.startswith("name what to change")
