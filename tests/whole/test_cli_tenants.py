"""`lockbox tenant`: operators add, suspend and recover customers, whose admins switch, rename and shut them."""

import re

import pytest

from cli import values
from lockbox.requests.lifecycle import Action
from tests.whole.conftest import RunningStack, short
from tests.whole.shell import Shell

PROCESSES = ("api",)


@pytest.fixture
def shell(stage: RunningStack) -> Shell:
    """A terminal of a world of the test's own."""
    return Shell(stage, stage.world(approval_window=600))


ADMIN = ("--name", "Fabrikam", "--admin-name", "Nina Noor", "--admin-email", "nina@fabrikam.example")


def test_an_operator_adds_a_tenant_and_sees_no_code(shell: Shell) -> None:
    slug = f"{shell.world.tenant.slug}-b"

    added = shell.does("olga", "tenant", "add", slug, *ADMIN)

    assert "nina@fabrikam.example is invited by mail" in added
    assert shell.reads("olga", "tenant", "show", slug) == {
        "slug": slug,
        "name": "Fabrikam",
        "mode": "enforce",
        "effective_mode": "enforce",
        "consent_until": None,
        "plan": "standard",
        "suspended": False,
        "policy_version": None,
        "members": None,
        "open_windows": 0,
        "in_review": None,
        "longest_window": None,
        "stopped_since": None,
    }
    shell.is_refused("olga", "slug-taken: ", "tenant", "add", slug, *ADMIN)
    shell.is_refused("olga", "unknown-plan: ", "tenant", "add", f"{slug}c", *ADMIN, "--plan", "gold")
    shell.is_refused("max", "wrong-role: ", "tenant", "add", f"{slug}c", *ADMIN)
    shell.is_refused("tara", "wrong-role: ", "tenant", "add", f"{slug}c", *ADMIN)


@pytest.mark.far
def test_the_list_goes_on_from_where_it_ended(shell: Shell) -> None:
    shell.does("olga", "tenant", "add", f"{shell.world.tenant.slug}-z", *ADMIN)

    first = shell.does("olga", "tenant", "list", "--limit", "1")
    page = shell.reads("olga", "tenant", "list", "--limit", "1")
    rest = shell.reads("olga", "tenant", "list", "--cursor", page["next_cursor"])

    assert f"There are more: --cursor {page['next_cursor']}" in first
    assert page["items"][0]["slug"] in first
    assert page["items"][0] not in rest["items"]
    assert rest["next_cursor"] is None
    assert "There are more" not in shell.does("olga", "tenant", "list", "--limit", "200")


def test_a_customer_lists_and_sees_its_own_side_alone(shell: Shell) -> None:
    slug = shell.world.tenant.slug

    listed = shell.reads("ann", "tenant", "list")["items"]
    shown = shell.does("tara", "tenant", "show", slug)

    assert [one["slug"] for one in listed] == [slug]
    assert [line.split()[-1] for line in shown.splitlines()[-4:]] == ["1", "5", "0", "0"]
    shell.is_refused("ann", "not-found: ", "tenant", "show", shell.stage.world().tenant.slug)


@pytest.mark.far
def test_an_operator_suspends_resumes_and_sets_the_plan(shell: Shell) -> None:
    slug = shell.world.tenant.slug

    assert shell.reads("olga", "tenant", "suspend", slug)["suspended"] is True
    assert "Suspended yes" in " ".join(shell.does("olga", "tenant", "show", slug).split())
    assert shell.reads("olga", "tenant", "resume", slug)["suspended"] is False
    assert "standard" in shell.does("olga", "tenant", "plan", slug, "standard")
    shell.is_refused("tara", "wrong-role: ", "tenant", "suspend", slug)
    shell.is_refused("tara", "wrong-role: ", "tenant", "resume", slug)
    shell.is_refused("olga", "unknown-plan: ", "tenant", "plan", slug, "gold")


def test_an_operator_is_told_how_many_windows_a_suspension_ends_and_is_asked_first(shell: Shell) -> None:
    slug = shell.world.tenant.slug
    shell.world.act("ann", Action.APPROVE, shell.world.submit().id)

    asked = shell.run("olga", "tenant", "suspend", slug, stdin="n\n")
    kept = shell.reads("olga", "tenant", "show", slug)
    done = shell.reads("olga", "tenant", "suspend", slug, "--yes")

    assert "1 open windows of" in asked.out
    assert (asked.code, kept["suspended"], kept["open_windows"]) == (1, False, 1)
    assert (done["suspended"], done["open_windows"]) == (True, 0)


def test_an_admin_renames_the_tenant_and_what_it_is_called_is_shown_as_written(shell: Shell) -> None:
    name = "Contoso [bold]& Söhne[/]"

    renamed = shell.does("tara", "tenant", "rename", shell.world.tenant.slug, name)

    assert name in renamed
    assert name in shell.does("tara", "tenant", "list")
    shell.is_refused("olga", "wrong-role: ", "tenant", "rename", shell.world.tenant.slug, "Ours")


def test_an_admin_switches_the_mode_and_sees_what_that_closes(shell: Shell) -> None:
    slug = shell.world.tenant.slug
    assert f"{slug} is in observe now." in shell.does("tara", "tenant", "mode", slug, "observe")
    opened_alone = shell.world.submit()
    shell.world.act("max", Action.ENDORSE, opened_alone.id)

    switched = shell.does("tara", "tenant", "mode", slug, "enforce")

    assert f"{slug} is in enforce now." in switched
    assert "opened them alone" in switched
    assert str(opened_alone.id) in switched
    assert shell.reads("tara", "tenant", "mode", slug, "enforce") == {
        "mode": "enforce",
        "closed": [],
        "in_review": 0,
    }
    shell.is_refused("olga", "wrong-role: ", "tenant", "mode", slug, "off")
    shell.is_refused("tara", "invalid-request: ", "tenant", "mode", slug, "lax")


def test_an_admin_shuts_everything_in_one_call(shell: Shell) -> None:
    slug = shell.world.tenant.slug
    waiting, opened_ = shell.world.submit(), shell.world.submit()
    shell.world.act("ann", Action.APPROVE, opened_.id)
    shell.is_refused("ann", "wrong-role: ", "tenant", "emergency-stop", slug)

    done = shell.does("tara", "tenant", "emergency-stop", slug, "--comment", "Go home")

    assert "1 open windows revoked, 1 pending requests denied, 0 denied in the vendor's review." in done
    assert done.index("Revoked:") < done.index(str(opened_.id)) < done.index("Denied:") < done.index(str(waiting.id))
    assert shell.reads("tara", "tenant", "emergency-stop", slug) == {
        "revoked": [],
        "denied": [],
        "denied_in_review": 0,
    }


@pytest.mark.far
def test_an_operator_proposes_an_admin_and_the_tenant_objects(shell: Shell) -> None:
    slug = shell.world.tenant.slug
    who = ("--name", "Nina Noor", "--email", "nina@contoso.example")

    proposed = shell.does("olga", "tenant", "recover", slug, *who)
    (open_,) = shell.reads("ann", "invitation", "list", slug)["items"]
    listed = shell.does("ann", "invitation", "list", slug)

    effect = values.moment(open_["takes_effect_at"])
    assert proposed.startswith(f"Proposed as {open_['id']}; takes effect at {effect} unless they object.\n")
    assert "proposed by the vendor" in " ".join(listed.split())
    shell.is_refused("olga", "recovery-open: ", "tenant", "recover", slug, *who)
    shell.is_refused("max", "wrong-role: ", "tenant", "recover", slug, *who)
    shell.is_refused("aude", "wrong-role: ", "tenant", "object", slug, open_["id"])
    assert "Objected" in shell.does("ann", "tenant", "object", slug, open_["id"])
    assert shell.reads("ann", "invitation", "list", slug)["items"] == []
    again = shell.reads("olga", "tenant", "recover", slug, *who)
    assert "Withdrawn" in shell.does("olga", "tenant", "withdraw", slug, again["id"])
    again = shell.reads("olga", "tenant", "recover", slug, *who)
    assert set(again) == {"id", "takes_effect_at"}


@pytest.mark.parametrize("slug", ["../requests", "no-such", "a/b", "x?y=z", "%2e%2e"])
def test_whatever_a_tenant_is_called_it_stays_one_part_of_the_path(shell: Shell, slug: str) -> None:
    for command in ("show", "suspend", "emergency-stop"):
        ended = shell.run("olga", "tenant", command, slug)

        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith(("not-found: ", "invalid-request: "))


def test_windows_are_told_as_durations(stage: RunningStack) -> None:
    shell = Shell(stage, stage.world(**short(approval_window=5400, access_ceiling=7200).model_dump()))
    submitted = shell.world.submit(access_window=7200)

    shown = shell.does("ann", "request", "show", submitted.id)

    assert re.search(r"Window +2 h ", shown)
