"""Loosening a tenant's protection needs a sign-in as strong as for an approval; tightening it does not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalogue.service_catalogue import Plan
from harness.clocks import ShiftedClock
from harness.people import HERE, World
from harness.stage import unbound
from lockbox.admin import delegates, emergency_stop, members, policies, tenants
from lockbox.admin.delegates import DelegationInput
from lockbox.database import Database
from lockbox.errors import SignInAgain
from lockbox.facts.enumerations import AuthMethod, Mode
from lockbox.identity.roles import Caller, Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy import Consent
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import state_of, write
from tests.database.tenancy import does, id_of
from tests.each import each
from tests.policy_setup import lay_down, signed_in

DAY = timedelta(days=1)
PLANS = {"standard": Plan()}
NINA = {"name": "Nina", "address": "nina@contoso.example", "roles": frozenset({Role.APPROVER})}
LOOSENING: dict[str, Callable[[World, Caller], object]] = {
    "switch off": lambda w, c: _as(w, c, emergency_stop.switch_mode, Mode.OFF, plans=PLANS),
    "change the policy": lambda w, c: _as(w, c, policies.change, Policy(mail_suffices=True)),
    "invite": lambda w, c: _as(w, c, members.invite, **NINA),
    "rename": lambda w, c: _as(w, c, tenants.rename, "Vendor"),
    "give a role": lambda w, c: _as(
        w, c, members.set_roles, id_of(w, "aude"), roles=frozenset({Role.AUDITOR, Role.APPROVER})
    ),
    "take an admin's role": lambda w, c: _as(
        w, c, members.set_roles, id_of(w, "theo"), roles=frozenset({Role.AUDITOR})
    ),
    "remove an admin": lambda w, c: _as(w, c, members.remove, id_of(w, "theo")) or "gone",
    "allow a delegate": lambda w, c: _as(w, c, members.set_eligible, id_of(w, "aude"), eligible=True),
    "name a delegate": lambda w, c: _as(
        w,
        c,
        delegates.add_delegation,
        DelegationInput(id_of(w, "abe"), datetime.now(UTC) + timedelta(days=1), None, id_of(w, "ann")),
    ),
}
TIGHTENING: dict[str, Callable[[World, Caller], object]] = {
    "switch to enforce": lambda w, c: _as(w, c, emergency_stop.switch_mode, Mode.ENFORCE, plans=PLANS),
    "stop": lambda w, c: _as(w, c, emergency_stop.stop_all),
    "take a role": lambda w, c: _as(w, c, members.set_roles, id_of(w, "abe"), roles=frozenset({Role.AUDITOR})),
    "remove": lambda w, c: _as(w, c, members.remove, id_of(w, "abe")),
}


def _as(world: World, caller: Caller, call: Callable[..., object], *args: object, **named: Any) -> object:
    with world.db.transaction() as session:
        return call(session, caller, HERE, world.tenant.slug, *args, **named)


@pytest.fixture
def world(api: Database) -> World:
    """A world in which Abe may be named as a delegate."""
    made = World.make(api)
    made.add("theo", Role.TENANT_ADMIN, made.tenant.id)
    does(made, "tara", members.set_eligible, id_of(made, "abe"), eligible=True)
    return made


@each(("means", "minutes_ago"), [(AuthMethod.TOKEN, 0), (AuthMethod.MAIL, 0), (AuthMethod.PASSKEY, 16)])
@each("what", LOOSENING)
def test_loosening_a_tenants_protection_needs_a_fresh_strong_sign_in(
    world: World, what: str, means: AuthMethod, minutes_ago: float
) -> None:
    with pytest.raises(SignInAgain):
        LOOSENING[what](world, signed_in(world, "tara", means, minutes_ago=minutes_ago))


@pytest.mark.parametrize("what", LOOSENING)
@pytest.mark.parametrize(
    ("terms", "means", "minutes_ago"),
    [({"mail_suffices": False}, AuthMethod.MAIL, 0), ({"sign_in_age": 60}, AuthMethod.PASSKEY, 2)],
)
def test_loosening_a_tenants_protection_needs_the_sign_in_that_the_strictest_rule_requires(
    world: World, what: str, terms: dict[str, Any], means: AuthMethod, minutes_ago: float
) -> None:
    rule = {"name": "strict", "match": {"services": ["payroll"]}, "terms": terms}
    lay_down(world, mail_suffices=True, rules=[rule])

    with pytest.raises(SignInAgain):
        LOOSENING[what](world, signed_in(world, "tara", means, minutes_ago=minutes_ago))
    assert LOOSENING[what](world, signed_in(world, "tara", AuthMethod.PASSKEY)) is not None


@pytest.mark.parametrize("what", LOOSENING)
def test_a_mailed_code_loosens_protection_only_if_every_rule_accepts_mailed_codes(world: World, what: str) -> None:
    lay_down(world, mail_suffices=True)

    assert LOOSENING[what](world, signed_in(world, "tara", AuthMethod.MAIL)) is not None


@pytest.mark.parametrize("means", [AuthMethod.TOKEN, AuthMethod.MAIL])
def test_a_weak_sign_in_cannot_remove_the_last_approver(world: World, means: AuthMethod) -> None:
    weak = signed_in(world, "tara", means)
    for name in ("ann", "amir"):
        _as(world, weak, members.remove, id_of(world, name))

    with pytest.raises(SignInAgain):
        _as(world, weak, members.set_roles, id_of(world, "abe"), roles=frozenset({Role.AUDITOR}))
    with pytest.raises(SignInAgain):
        _as(world, weak, members.remove, id_of(world, "abe"))
    with pytest.raises(SignInAgain):
        _as(world, weak, members.invite, **NINA)


@pytest.mark.far
@pytest.mark.parametrize("means", [AuthMethod.TOKEN, AuthMethod.MAIL])
@pytest.mark.parametrize("switched", [True, False])
def test_consent_can_be_withdrawn_with_any_sign_in(world: World, means: AuthMethod, *, switched: bool) -> None:
    lay_down(world, consent={"mode": "off", "until": (datetime.now(UTC) + DAY).isoformat()})
    weak = signed_in(world, "tara", means)
    opened = world.submit()
    world.act("max", Action.ENDORSE, opened.id)

    if switched:
        _as(world, weak, emergency_stop.switch_mode, Mode.ENFORCE, plans=PLANS)
    else:
        _as(world, weak, policies.change, Policy(vendor_review=False))

    assert state_of(world.db, opened.id) == "revoked"
    assert world.submit().mode is Mode.ENFORCE


@pytest.mark.parametrize("means", [AuthMethod.PASSKEY, AuthMethod.OIDC])
@pytest.mark.parametrize("what", LOOSENING)
def test_an_admin_with_a_fresh_strong_sign_in_may_loosen_protection(
    world: World, what: str, means: AuthMethod
) -> None:
    assert LOOSENING[what](world, signed_in(world, "tara", means, minutes_ago=1)) is not None


@pytest.mark.parametrize("means", [AuthMethod.TOKEN, AuthMethod.MAIL])
@pytest.mark.parametrize("what", TIGHTENING)
def test_an_admin_with_any_sign_in_may_tighten_protection(world: World, what: str, means: AuthMethod) -> None:
    TIGHTENING[what](world, signed_in(world, "tara", means, minutes_ago=60))


def test_a_first_admin_may_invite_approvers_with_the_sign_in_made_by_accepting_an_invitation(
    world: World,
) -> None:
    write(unbound(world.db), "DELETE FROM memberships WHERE role = 'approver'")
    tara = signed_in(world, "tara", AuthMethod.MAIL)

    assert LOOSENING["invite"](world, tara)
    with pytest.raises(SignInAgain):
        LOOSENING["switch off"](world, tara)


@pytest.mark.parametrize("left", [None, timedelta(seconds=2)])
def test_withdrawn_or_shortened_consent_opens_no_window(
    world: World, later: ShiftedClock, left: timedelta | None
) -> None:
    at = datetime.now(UTC)
    given = Policy(consent=Consent(mode=Mode.OBSERVE, until=at + timedelta(hours=1)))
    does(world, "tara", policies.change, given)
    opened, reviewed = world.submit(), world.submit()
    world.act("max", Action.ENDORSE, opened.id)

    shorter = Policy(consent=Consent(mode=Mode.OBSERVE, until=at + left)) if left else Policy()
    does(world, "tara", policies.change, shorter)
    later.shift = timedelta(seconds=3)

    assert state_of(world.db, opened.id) == "revoked"
    endorsed = world.act("max", Action.ENDORSE, reviewed.id, Database(world.db.engine, world.db.schedule, later))
    assert (endorsed.state, endorsed.mode, endorsed.consent_until) == ("pending", Mode.ENFORCE, None)
