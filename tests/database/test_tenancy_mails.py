"""The mails to all admins and approvers about a change at their tenant: who changed what, as a diff."""

import re
from datetime import UTC, datetime, timedelta

from catalogue.service_catalogue import Plan
from harness.people import World
from lockbox.admin import delegates, emergency_stop, invitations, members, policies, recovery, tenants
from lockbox.admin.delegates import DelegationInput
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.identity.roles import Role
from lockbox.notifications.models import Outcome
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, open_notifications
from tests.database.tenancy import does, id_of, invites
from tests.database.test_pre_approvals import approve, propose

PLANS = {"standard": Plan(), "gold": Plan()}


def everything(world: World) -> None:
    """Make every kind of change at the world's tenant."""
    aude, abe = id_of(world, "aude"), id_of(world, "abe")
    does(world, "olga", tenants.suspend)
    does(world, "olga", tenants.resume)
    does(world, "olga", tenants.set_plan, "gold", plans=PLANS)
    does(world, "tara", tenants.rename, "Contoso AG")
    does(world, "tara", emergency_stop.switch_mode, Mode.OBSERVE, plans=PLANS)
    does(world, "tara", policies.change, Policy(quorum=2))
    does(world, "tara", members.set_eligible, aude, eligible=True)
    ends_at = datetime.now(UTC) + timedelta(days=1)
    named = does(world, "ann", delegates.add_delegation, DelegationInput(aude, ends_at))
    does(world, "ann", delegates.end, named.delegation.id)
    does(world, "tara", invitations.withdraw, invites(world).id)
    does(world, "tara", members.set_roles, abe, roles=frozenset({Role.AUDITOR}))
    does(world, "tara", members.remove, abe)
    proposed = does(world, "olga", recovery.propose, name="Rita", address="rita@contoso.example")
    does(world, "tara", recovery.object_to, proposed.id)


def test_approvers_are_mailed_every_tenant_change_with_old_and_new_values(
    world: World, worker: Database, post: Postbag
) -> None:
    everything(world)

    tries = post.deliver(worker, open_notifications(worker))

    assert {one.outcome for one in tries} <= {Outcome.SENT, Outcome.MOOT}
    mails = [mail for mail in post.mail.sent if mail.to_name == "Ann"]
    said = {re.sub(r"(?<=^Object by ).*(?= UTC)", "…", mail.subject): mail.text for mail in mails}
    lines = {
        "Contoso AG was suspended by the vendor": ("Olga", "no → yes"),
        "Contoso AG is no longer suspended": ("Olga", "yes → no"),
        "The plan of Contoso AG was changed": ("Olga", "standard → gold"),
        "Contoso AG was renamed": ("Tara", "Contoso → Contoso AG"),
        "The lockbox of Contoso AG was switched": ("Tara", "enforce → observe"),
        "The policy of Contoso AG was changed": ("Tara", "1 → 2"),
        "The eligible delegates at Contoso AG were changed": ("Tara", "Aude"),
        "A delegate was named at Contoso AG": ("Ann", "Aude"),
        "A delegation at Contoso AG was ended": ("Ann", "Aude"),
        "A person was invited to Contoso AG": ("Tara", "Nina <nina@contoso.example>"),
        "An invitation to Contoso AG was withdrawn": ("Tara", "approver → none"),
        "The roles of a member of Contoso AG were changed": ("Tara", "approver → auditor"),
        "A member of Contoso AG was removed": ("Tara", "auditor → none"),
        "Object by … UTC if this is wrong: the vendor proposes a new admin for Contoso AG": ("Olga", "Rita"),
        "Someone objected to the proposed admin for Contoso AG": ("Tara", "tenant admin → none"),
    }
    assert said.keys() == lines.keys()
    for subject, words in lines.items():
        assert all(word in said[subject] for word in words), said[subject]


def test_mails_about_loosened_protection_have_a_link_to_the_unapproved_access_page(
    world: World, worker: Database, post: Postbag
) -> None:
    everything(world)
    approve(world, propose(world, ends_at=datetime.now(UTC) + timedelta(days=2)), "ann", "amir")

    post.deliver(worker, open_notifications(worker))

    place = f"/tenants/{world.tenant.slug}/unapproved-access"
    mails = [mail for mail in post.mail.sent if mail.to_name == "Amir"]
    assert {mail.subject for mail in mails if place in mail.text} == {
        "The lockbox of Contoso AG was switched",
        "The policy of Contoso AG was changed",
        "A delegate was named at Contoso AG",
        "A pre-approval of Contoso AG was approved",
    }
    assert all((place in mail.text) == (place in mail.html) for mail in mails)


def test_webhook_calls_about_tenant_changes_contain_no_name_or_address(
    world: World, worker: Database, post: Postbag
) -> None:
    post.endpoint(world, "https://hooks.contoso.example/", tenant_id=world.tenant.id)
    everything(world)

    post.deliver(worker, open_notifications(worker))

    bodies = [hook.body.decode() for hook in post.hooks.sent]
    assert len(bodies) == 15
    for name in ("Nina", "nina@", "Rita", "rita@", "Aude", "Abe", "Tara", "Olga", "@example.test"):
        assert not [body for body in bodies if name in body]
