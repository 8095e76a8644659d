"""Operators need a fresh, strong sign-in to loosen protection on the vendor's side, but not to tighten it."""

from collections.abc import Callable

import pytest

from catalogue.service_catalogue import Plan
from harness.people import HERE, World
from harness.stage import unbound
from lockbox.admin import recovery, tenants, vendor_staff
from lockbox.admin.tenants import TenantInput
from lockbox.errors import SignInAgain
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.roles import Caller, Role
from tests.database.audit_logs import recorded_changes
from tests.database.scenes import write
from tests.database.tenancy import colleagues_of, id_of
from tests.each import each
from tests.policy_setup import signed_in

PLANS = {"standard": Plan(), "basic": Plan(lockbox=False)}
NILS = {"name": "Nils", "address": "nils@vendor.example"}
FOUNDING = TenantInput("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")
OPENING: dict[str, Callable[[World, Caller], object]] = {
    "invite": lambda w, c: _does(w, c, vendor_staff.invite, **NILS, roles=frozenset({Role.MANAGER})),
    "give a role": lambda w, c: _does(
        w, c, vendor_staff.set_roles, id_of(w, "eve"), frozenset({Role.ENGINEER, Role.MANAGER})
    ),
    "change a role": lambda w, c: _does(w, c, vendor_staff.set_roles, id_of(w, "eve"), frozenset({Role.OPERATOR})),
    "add a tenant": lambda w, c: _does(w, c, tenants.add, FOUNDING, PLANS),
    "resume": lambda w, c: _does(w, c, tenants.resume, w.tenant.slug),
    "set a plan": lambda w, c: _does(w, c, tenants.set_plan, w.tenant.slug, "basic", plans=PLANS),
    "propose an admin": lambda w, c: _does(w, c, recovery.propose, w.tenant.slug, **NILS),
}
CLOSING: dict[str, Callable[[World, Caller], object]] = {
    "take a role": lambda w, c: _does(w, c, vendor_staff.set_roles, id_of(w, "eve"), frozenset[Role]()),
    "remove": lambda w, c: _does(w, c, vendor_staff.remove, id_of(w, "eve")),
    "disable": lambda w, c: _does(w, c, vendor_staff.disable, id_of(w, "eve")),
    "suspend": lambda w, c: _does(w, c, tenants.suspend, w.tenant.slug),
}


def _does(world: World, caller: Caller, call: Callable[..., object], *args: object, **named: object) -> object:
    with world.db.transaction() as session:
        return call(session, caller, HERE, *args, **named)


@pytest.fixture
def suspended(world: World) -> World:
    write(unbound(world.db), "UPDATE tenants SET suspended = true WHERE id = :id", id=world.tenant.id)
    return world


@each(("means", "minutes_ago"), [(AuthMethod.TOKEN, 0), (AuthMethod.MAIL, 0), (AuthMethod.PASSKEY, 16)])
@each("what", OPENING)
def test_an_operator_cannot_loosen_protection_with_a_token_or_a_mailed_code(
    suspended: World, what: str, means: AuthMethod, minutes_ago: float
) -> None:
    before = (colleagues_of(suspended), len(recorded_changes(suspended.db)))

    with pytest.raises(SignInAgain):
        OPENING[what](suspended, signed_in(suspended, "olga", means, minutes_ago=minutes_ago))

    assert (colleagues_of(suspended), len(recorded_changes(suspended.db))) == before


@pytest.mark.parametrize("means", [AuthMethod.PASSKEY, AuthMethod.OIDC])
@pytest.mark.parametrize("what", OPENING)
def test_an_operator_with_a_fresh_strong_sign_in_may_loosen_protection(
    suspended: World, what: str, means: AuthMethod
) -> None:
    assert OPENING[what](suspended, signed_in(suspended, "olga", means, minutes_ago=1)) is not None


@pytest.mark.parametrize("means", [AuthMethod.TOKEN, AuthMethod.MAIL])
@pytest.mark.parametrize("what", CLOSING)
def test_an_operator_with_any_sign_in_may_tighten_protection(world: World, what: str, means: AuthMethod) -> None:
    before = len(recorded_changes(world.db))

    CLOSING[what](world, signed_in(world, "olga", means, minutes_ago=60))

    assert len(recorded_changes(world.db)) == before + 1
