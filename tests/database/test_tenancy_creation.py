"""Adding a tenant: by operators alone, with a first admin whose code only the mail ever holds."""

from hashlib import sha256

import pytest

from config.service_catalogue import Plan
from harness.people import World
from lockbox.admin import tenants
from lockbox.admin.tenants import TenantInput, TenantOverview
from lockbox.database import Database
from lockbox.errors import LicenceRequired, OtherSide, SlugTaken, UnknownPlan
from lockbox.facts.enumerations import Mode
from lockbox.identity.roles import Role
from lockbox.requests.policy_rules import Policy, stored
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.postbag import address
from tests.database.scenes import read
from tests.database.tenancy import accepts, does, manages
from tests.mailbox import code_of

PLANS = {"standard": Plan(), "basic": Plan(lockbox=False)}
FOUNDING = TenantInput("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")


def add(world: World, who: str = "olga", founding: TenantInput = FOUNDING) -> TenantOverview:
    """Add a tenant."""
    return manages(world, who, tenants.add, founding, PLANS)


def test_a_new_tenant_is_in_enforce_with_the_default_policy_and_no_member(world: World) -> None:
    added = add(world).tenant

    assert (added.slug, added.mode, added.policy_version) == ("fabrikam", Mode.ENFORCE, 1)
    (policy,) = read(world.db, "SELECT body, author_id FROM policies WHERE tenant_id = :id", id=added.id)
    assert (policy.body, policy.author_id) == (stored(Policy()), None)
    assert read(world.db, "SELECT FROM memberships WHERE tenant_id = :id", id=added.id) == []


def test_the_first_admin_is_invited_and_only_the_mail_ever_holds_the_code(
    world: World, worker: Database, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    added = add(world)
    (row,) = read(world.db, "SELECT * FROM invitations WHERE tenant_id = :id", id=added.tenant.id)

    code = code_of(worker, row.id)

    assert (row.email, row.roles, row.is_recovery) == ("fay@fabrikam.example", ["tenant_admin"], False)
    assert row.secret_hash
    assert row.secret_hash not in {sha256(said.encode()).digest() for said in (code, code.replace("-", ""))}
    (stored,) = read(
        world.db,
        """
        SELECT (SELECT string_agg(i::text, ' ') FROM invitations i)
            || (SELECT string_agg(n::text, ' ') FROM notifications n)
            || (SELECT string_agg(d::text, ' ') FROM event_details d) AS text
        """,
    )
    printed = capsys.readouterr()
    everything = f"{added} {row} {stored.text} {caplog.text} {printed.out} {printed.err}"
    assert code not in everything
    assert code.replace("-", "") not in everything


def test_whoever_accepts_is_the_admin_and_the_tenant_is_its_own_from_then_on(world: World, worker: Database) -> None:
    added = add(world)
    (row,) = read(world.db, "SELECT id FROM invitations WHERE tenant_id = :id", id=added.tenant.id)

    fay = accepts(world, "fay", row.id, code_of(worker, row.id))
    renamed = does(world, "fay", tenants.rename, "Fabrikam AG", slug="fabrikam")

    assert fay.holds(Role.TENANT_ADMIN, tenant_id=added.tenant.id)
    assert (renamed.tenant.name, renamed.members) == ("Fabrikam AG", 1)


def test_adding_is_one_event_with_what_the_tenant_begins_with(world: World) -> None:
    add(world)

    told = last_change(world.db)

    assert (told.action, told.actor, told.role) == ("tenant_added", "Olga", "operator")
    assert told.changes == {"mode": "none → enforce", "plan": "none → standard", "roles": "none → tenant_admin"}
    assert told.details["member"] == "Fay <fay@fabrikam.example>"
    assert "fay@" not in str(told.facts)


def test_a_slug_that_is_taken_is_refused_and_nothing_is_written(world: World) -> None:
    add(world)
    before = len(recorded_changes(world.db))

    with pytest.raises(SlugTaken):
        add(world, founding=TenantInput("fabrikam", "Another", "standard", "Fred", "fred@fabrikam.example"))

    assert len(recorded_changes(world.db)) == before
    assert read(world.db, "SELECT count(*) AS number FROM invitations")[0].number == 1


def test_an_unknown_plan_is_refused(world: World) -> None:
    with pytest.raises(UnknownPlan, match="basic, standard"):
        add(world, founding=TenantInput("fabrikam", "Fabrikam", "golden", "Fay", "fay@fabrikam.example"))


def test_a_plan_without_the_lockbox_is_refused_for_a_tenant_that_would_begin_in_enforce(world: World) -> None:
    with pytest.raises(LicenceRequired, match="basic does not include"):
        add(world, founding=TenantInput("fabrikam", "Fabrikam", "basic", "Fay", "fay@fabrikam.example"))

    assert read(world.db, "SELECT FROM tenants WHERE slug = 'fabrikam'") == []


def test_nobody_of_the_vendor_is_invited_as_the_first_admin(world: World) -> None:
    theirs = address(world.db, world, "erin").upper()

    with pytest.raises(OtherSide):
        add(world, founding=TenantInput("fabrikam", "Fabrikam", "standard", "Erin", theirs))
