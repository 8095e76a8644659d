"""`lockbox member`, `vendor`, `invitation` and `delegation`: people, by those who may change them."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from lockbox.database import Database, make_engine
from lockbox.schedule import Schedule
from tests.database.tenancy import id_of
from tests.mailbox import code_of
from tests.whole.conftest import RunningStack
from tests.whole.shell import Shell

PROCESSES = ("api",)


@pytest.fixture
def shell(stage: RunningStack) -> Shell:
    """A terminal of a world of the test's own."""
    return Shell(stage, stage.world(approval_window=600))


@pytest.fixture(scope="module")
def worker(stage: RunningStack) -> Iterator[Database]:
    """Who sends the mails."""
    db = Database(make_engine(stage.urls.worker, role="test-worker"), Schedule(stage.urls.redis))
    yield db
    db.dispose()


NINA = ("--name", "Nina Noor", "--email", "nina@contoso.example")
ROLE = ("--role", "approver", "--role", "auditor")


@pytest.mark.far
def test_an_admin_invites_and_the_code_is_in_the_mail_alone(shell: Shell, worker: Database) -> None:
    slug = shell.world.tenant.slug

    told = shell.does("tara", "member", "invite", slug, *NINA, *ROLE)
    (invitation,) = shell.reads("tara", "invitation", "list", slug)["items"]
    code = code_of(worker, invitation["id"])
    after = [
        shell.does("tara", "invitation", "list", slug),
        shell.does("tara", "invitation", "list", slug, "--output", "json"),
        shell.is_refused("tara", "already-invited: ", "member", "invite", slug, *NINA, *ROLE),
        shell.is_refused("olga", "wrong-role: ", "invitation", "list", slug),
        shell.log(),
    ]

    assert invitation["id"] in told
    assert "approver, auditor" in told
    assert not [text for text in (told, *after) if code in text or code.replace("-", "") in text]


@pytest.mark.far
def test_an_admin_withdraws_an_invitation(shell: Shell) -> None:
    slug = shell.world.tenant.slug
    invited = shell.reads("tara", "member", "invite", slug, *NINA, "--role", "auditor")
    shell.is_refused("ann", "wrong-role: ", "invitation", "withdraw", slug, invited["id"])

    withdrawn = shell.does("tara", "invitation", "withdraw", slug, invited["id"])

    assert "Withdrawn" in withdrawn
    assert shell.reads("aude", "invitation", "list", slug)["items"] == []
    shell.is_refused("tara", "invitation-closed: ", "invitation", "withdraw", slug, invited["id"])
    shell.is_refused("tara", "not-found: ", "invitation", "withdraw", slug, uuid4())


@pytest.mark.far
def test_members_are_listed_to_their_own_side_page_by_page(shell: Shell) -> None:
    slug = shell.world.tenant.slug

    everybody = shell.reads("aude", "member", "list", slug)["items"]
    first = shell.reads("aude", "member", "list", slug, "--limit", "2")
    rest = shell.reads("aude", "member", "list", slug, "--cursor", first["next_cursor"])
    table = shell.does("aude", "member", "list", slug, "--limit", "2")

    assert [one["name"] for one in everybody] == ["Tara", "Ann", "Amir", "Abe", "Aude"]
    assert first["items"] + rest["items"] == everybody
    assert everybody[0]["id"] in table
    assert "tenant admin" in table
    assert f"--cursor {first['next_cursor']}" in table
    shell.is_refused("olga", "wrong-role: ", "member", "list", slug)


@pytest.mark.far
def test_an_admin_sets_roles_and_removes(shell: Shell) -> None:
    slug, abe = shell.world.tenant.slug, id_of(shell.world, "abe")

    (seen,) = (
        one["version"] for one in shell.reads("tara", "member", "list", slug)["items"] if one["id"] == str(abe)
    )
    set_ = shell.does("tara", "member", "roles", slug, abe, "--role", "auditor", "--version", seen)
    shell.is_refused("tara", "stale-version: ", "member", "roles", slug, abe, "--role", "approver", "--version", seen)
    removed = shell.does("tara", "member", "remove", slug, abe)

    assert "auditor" in set_
    assert removed == "Removed.\n"
    assert "Abe" not in shell.does("tara", "member", "list", slug)
    shell.is_refused("tara", "not-found: ", "member", "remove", slug, abe)
    shell.is_refused("tara", "last-admin: ", "member", "remove", slug, id_of(shell.world, "tara"))
    shell.is_refused("ann", "wrong-role: ", "member", "roles", slug, id_of(shell.world, "amir"), "--role", "auditor")
    shell.is_refused("olga", "wrong-role: ", "member", "remove", slug, id_of(shell.world, "amir"))
    assert shell.run("tara", "member", "remove", slug, "abe").code == 2


def test_a_delegate_is_marked_named_and_ended(shell: Shell) -> None:
    world, slug = shell.world, shell.world.tenant.slug
    aude, ann = id_of(world, "aude"), id_of(world, "ann")
    until = ("--until", "2030-01-01T00:00:00Z")
    shell.is_refused("ann", "invalid-request: ", "delegation", "name", slug, aude, "--until", "tomorrow")

    marked = shell.reads("tara", "member", "delegate-eligible", slug, aude)
    too_long = shell.is_refused("ann", "invalid-request: ", "delegation", "name", slug, aude, *until)

    assert (marked["eligible"], marked["roles"]) == (True, ["auditor"])
    assert "90 days" in too_long
    (now,) = shell.stage.rows("SELECT to_char(now() + interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SSOF:00') AS at")
    named = shell.does("ann", "delegation", "name", slug, aude, "--until", now.at)
    listed = shell.does("aude", "delegation", "list", slug)
    (one,) = shell.reads("aude", "delegation", "list", slug)["items"]
    assert one["id"] in named
    assert listed.splitlines()[-2].split()[:3] == [one["id"], "Ann", "Aude"]
    assert (one["principal"]["id"], one["delegate"]["id"], one["counts"]) == (str(ann), str(aude), True)
    shell.is_refused("amir", "wrong-role: ", "delegation", "end", slug, one["id"])
    assert shell.does("ann", "delegation", "end", slug, one["id"]) == "Ended.\n"
    assert shell.reads("aude", "delegation", "list", slug)["items"] == []


@pytest.mark.far
def test_an_admin_names_a_delegate_for_somebody_absent(shell: Shell) -> None:
    world, slug = shell.world, shell.world.tenant.slug
    aude, ann = id_of(world, "aude"), id_of(world, "ann")
    shell.does("tara", "member", "delegate-eligible", slug, aude)
    (now,) = shell.stage.rows(
        "SELECT to_char(now() + interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SSOF:00') AS at,"
        " to_char(now() + interval '2 days', 'YYYY-MM-DD\"T\"HH24:MI:SSOF:00') AS later"
    )
    period = ("--from", now.at, "--until", now.later)
    shell.is_refused("amir", "wrong-role: ", "delegation", "name", slug, aude, "--for", ann, *period)

    named = shell.reads("tara", "delegation", "name", slug, aude, "--for", ann, *period)

    assert (named["principal"]["name"], named["delegate"]["name"], named["counts"]) == ("Ann", "Aude", False)
    shell.does("tara", "member", "delegate-eligible", slug, aude, "--no")
    assert shell.reads("tara", "delegation", "list", slug)["items"] == []


def test_marking_somebody_who_is_no_member_is_refused(shell: Shell) -> None:
    shell.is_refused("tara", "not-found: ", "member", "delegate-eligible", shell.world.tenant.slug, uuid4())
    shell.is_refused(
        "ann", "wrong-role: ", "member", "delegate-eligible", shell.world.tenant.slug, id_of(shell.world, "aude")
    )


@pytest.mark.far
def test_an_operator_invites_colleagues_and_withdraws(shell: Shell, worker: Database) -> None:
    who = ("--name", "Nils Noor", "--email", f"nils-{uuid4().hex}@vendor.example")

    invited = shell.reads("olga", "vendor", "invite", *who, "--role", "engineer", "--role", "manager")
    code = code_of(worker, invited["id"])
    listed = shell.does("olga", "vendor", "invitations")

    assert invited["id"] in listed
    assert code not in listed + shell.log()
    shell.is_refused("olga", "already-invited: ", "vendor", "invite", *who, "--role", "engineer")
    shell.is_refused("max", "wrong-role: ", "vendor", "invite", *who, "--role", "engineer")
    shell.is_refused("vera", "wrong-role: ", "vendor", "invitations")
    shell.is_refused("olga", "invalid-request: ", "vendor", "invite", *who, "--role", "approver")
    assert "Withdrawn" in shell.does("olga", "vendor", "withdraw", invited["id"])
    open_ = [one["id"] for one in shell.reads("olga", "vendor", "invitations")["items"]]
    assert invited["id"] not in open_


@pytest.mark.far
def test_an_operator_sets_roles_removes_and_disables(shell: Shell) -> None:
    eve, olga = id_of(shell.world, "eve"), id_of(shell.world, "olga")

    set_ = shell.does("olga", "vendor", "roles", eve, "--role", "engineer", "--role", "manager", "--review-tier", "2")
    listed = shell.reads("vera", "vendor", "list", "--limit", "200")["items"]
    removed = shell.does("olga", "vendor", "remove", eve)
    disabled = shell.does("olga", "vendor", "disable", eve)

    assert "engineer, manager" in set_
    assert "Review tier  2" in set_
    assert {one["id"]: one["review_tier"] for one in listed}[str(eve)] == 2
    assert removed.startswith("Removed")
    assert "Disabled     yes" in disabled
    shell.is_refused("eve", "invalid-token: ", "request", "list")
    shell.is_refused("olga", "own-roles: ", "vendor", "remove", olga)
    shell.is_refused("vera", "wrong-role: ", "vendor", "roles", eve, "--role", "engineer")
    shell.is_refused("tara", "wrong-role: ", "vendor", "disable", eve)


def test_the_vendors_people_are_listed_to_operators_and_auditors(shell: Shell) -> None:
    page = shell.reads("vera", "vendor", "list", "--limit", "200")
    table = shell.does("olga", "vendor", "list", "--limit", "200")

    olga = next(one for one in page["items"] if one["id"] == str(id_of(shell.world, "olga")))
    assert (olga["roles"], olga["disabled"]) == (["operator"], False)
    assert olga["id"] in table
    shell.is_refused("erin", "wrong-role: ", "vendor", "list")
    shell.is_refused("tara", "wrong-role: ", "vendor", "list")
