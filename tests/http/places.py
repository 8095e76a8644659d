"""How to call each route of tenants and people, with rows of its own for every call."""

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from connectors.scram import verifier_of
from gate import enforcement, identity_map
from gate.enforcement import ENFORCE, REPORT
from gate.identity_map import MappingInput
from gate.memory_reader import GATE
from harness.people import HERE, SETTINGS, WITHOUT_REVIEW
from lockbox.admin import (
    delegates,
    delivery_log,
    emergency_stop,
    exclusions,
    legal_holds,
    members,
    observers,
    policies,
    pre_approvals,
    recovery,
    tenant_data,
    vendor_staff,
    webhooks,
)
from lockbox.admin.delegates import DelegationInput
from lockbox.admin.pre_approvals import PreApprovalInput
from lockbox.admin.webhooks import WebhookUrlPolicy
from lockbox.errors import NotFound
from lockbox.identity import authentication
from lockbox.identity.models import Invitation
from lockbox.identity.roles import Role
from lockbox.identity.sessions import ClientInfo as Spot
from lockbox.notifications import addresses
from lockbox.notifications.endpoints import SecretVault
from lockbox.requests import questions
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.tenancy import does, id_of, manages
from tests.http.door import Door

NUMBERS = itertools.count(1)
PROBE = {"service": "exchange-online", "gateway": "https://support.example", "refused": 74, "let_through": 0}
SAYS = {"text": "Which mails?"}
OVER = (
    "UPDATE invitations SET withdrawn_at = clock_timestamp() "
    "WHERE is_recovery AND tenant_id = :t AND withdrawn_at IS NULL AND accepted_at IS NULL"
)
NO_PRE_APPROVALS = """
UPDATE pre_approvals SET revoked_at = now(), revoked_by = proposed_by WHERE tenant_id = :t AND revoked_at IS NULL
"""
NO_ENDPOINTS = (
    "UPDATE endpoints SET disabled_at = now(), removed_at = now() WHERE tenant_id = :t AND removed_at IS NULL"
)
NO_OBSERVERS = "UPDATE observers SET removed_at = now() WHERE tenant_id = :t AND removed_at IS NULL"
NO_ADDRESSES = """
UPDATE addresses SET removed_at = now(), created_at = created_at - interval '2 days'
WHERE person_id = :p AND removed_at IS NULL
"""
WHAT_IF = {
    "service": "exchange-online",
    "resources": ["mailbox:anna@contoso.example"],
    "reason_code": "support_case",
}
NO_HOLDS = """
UPDATE legal_holds SET released_at = clock_timestamp(), released_by = :p, mac = ''
WHERE tenant_id = :t AND released_at IS NULL
"""
SENT = "UPDATE notifications SET closed_at = now(), outcome = 'sent' WHERE id = :n"
TRIED = """
INSERT INTO deliveries (id, notification_id, endpoint_id, event_type, at, took_ms, status, answer)
SELECT :d, id, endpoint_id, 'endpoint.test', now(), 5, 204, '' FROM notifications WHERE id = :n
"""
BREAK_GLASS = WITHOUT_REVIEW.model_copy(
    update={"break_glass_services": ("exchange-online",), "break_glass_monthly": 20}
)
REACH = WebhookUrlPolicy(SecretVault([key.get_secret_value() for key in SETTINGS.secret_keys]))
SOMEBODY = {"name": "Nina", "address": "nina@contoso.example"}


@dataclass(frozen=True)
class RouteExample:
    """The ids in a path, and the body and headers of a call."""

    ids: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)


def done(**changes: Any) -> dict[str, Any]:
    """Return something that an engineer did a moment ago, with changes."""
    facts = {
        "at": datetime.now(UTC).isoformat(),
        "method": "GET",
        "resource": "mailbox:anna@contoso.example",
        "outcome": "served",
        "action": "read",
    }
    return facts | changes


def somebody() -> dict[str, Any]:
    """Return name and address of a person who was never invited."""
    return {"name": "Nina", "address": f"nina-{next(NUMBERS)}@contoso.example"}


def period() -> tuple[datetime, datetime]:
    """Return a future half-hour that no other call uses."""
    start = datetime.now(UTC) + timedelta(hours=next(NUMBERS))
    return start, start + timedelta(minutes=30)


def invited(door: Door) -> Invitation:
    return does(door.world, "tara", members.invite, **somebody(), roles=frozenset({Role.AUDITOR}))


def proposed(door: Door) -> Invitation:
    """Propose an admin for the world's tenant, after withdrawing earlier proposals."""
    door.run_sql(OVER, t=door.world.tenant.id)
    return does(door.world, "olga", recovery.propose, **somebody())


def delegated(door: Door) -> UUID:
    starts_at, ends_at = period()
    wanted = DelegationInput(eligible(door), ends_at, starts_at)
    return does(door.world, "ann", delegates.add_delegation, wanted).delegation.id


def pre_approval() -> dict[str, Any]:
    ends_at = datetime.now(UTC) + timedelta(days=7)
    return {
        "service": "exchange-online",
        "resource": f"mailbox:{next(NUMBERS)}-*@contoso.example",
        "actions": ["read"],
        "reason_code": "support_case",
        "access_window": 1800,
        "max_uses": 5,
        "ends_at": ends_at.isoformat(),
    }


def pre_approval_proposed(door: Door) -> UUID:
    """Let Tara propose a pre-approval, the only one that is open."""
    door.run_sql(NO_PRE_APPROVALS, t=door.world.tenant.id)
    wanted = PreApprovalInput(**pre_approval() | {"ends_at": datetime.now(UTC) + timedelta(days=7)})
    services = SETTINGS.catalogue.services
    return does(door.world, "tara", pre_approvals.propose, wanted, services).row.id


def _pre_approval(door: Door) -> RouteExample:
    return RouteExample({"pre_approval_id": pre_approval_proposed(door)})


def eligible(door: Door) -> UUID:
    """Make Aude eligible as a delegate, and return her id."""
    aude = id_of(door.world, "aude")
    does(door.world, "tara", members.set_eligible, aude, eligible=True)
    return aude


def endpoint(door: Door) -> UUID:
    """Add a webhook to the world's tenant, the only one that it has."""
    door.run_sql(NO_ENDPOINTS, t=door.world.tenant.id)
    wanted = webhooks.WebhookInput(f"https://hooks.contoso.example/{next(NUMBERS)}")
    return does(door.world, "tara", webhooks.add, wanted, reach=REACH).endpoint.id


def delivery(door: Door) -> UUID:
    """Record a call of the tenant's webhook, and return the id of the attempt."""
    with door.db.transaction() as session:
        notification = delivery_log.try_out(session, door.world.people["tara"], HERE, endpoint(door))
    tried = new_id()
    door.run_sql(SENT, n=notification)
    door.run_sql(TRIED, n=notification, d=tried)
    return tried


def question(door: Door, request_id: UUID | str) -> UUID:
    with door.db.transaction() as session:
        return questions.ask(session, door.world.people["ann"], HERE, UUID(str(request_id)), "Which mails?").id


def opened_by_break_glass(door: Door) -> UUID:
    """Open a window by break-glass and revoke it, under a policy that allows many; return its request."""
    does(door.world, "tara", policies.change, BREAK_GLASS)
    with suppress(NotFound):  # Another form may have stopped the tenant.
        does(door.world, "tara", emergency_stop.end_stop)
    request = door.world.fresh(break_glass=True, access_window=600)
    door.world.act("max", Action.BREAK_GLASS, request.id, comment="Mail is down")
    return door.world.act("ann", Action.REVOKE, request.id).id


def observer(door: Door) -> UUID:
    """Add the only observer of the world's tenant."""
    door.run_sql(NO_OBSERVERS, t=door.world.tenant.id)
    wanted = observers.ObserverInput(**somebody())
    return does(door.world, "tara", observers.add, wanted, services=SETTINGS.catalogue.services).observer.id


def address(door: Door) -> UUID:
    """Add Ann's only further address; earlier ones are removed, and count as added days ago."""
    door.run_sql(NO_ADDRESSES, p=id_of(door.world, "ann"))
    with door.db.transaction() as session:
        authentication.enter(session, door.world.people["ann"])
        return addresses.add(session, door.world.people["ann"], Spot(None, None), somebody()["address"]).id


def unmapped(door: Door) -> dict[str, Any]:
    """Return an engineer, and an identity at a gateway that is mapped to no one."""
    issuer, subject = f"header:{id_of(door.world, 'gate')}", f"engineer {next(NUMBERS)}"
    return {"issuer": issuer, "subject": subject, "person_id": str(colleague(door))}


def mapped(door: Door) -> UUID:
    new = unmapped(door)
    wanted = MappingInput(new["issuer"], new["subject"], UUID(new["person_id"]))
    return manages(door.world, "olga", identity_map.add, wanted, known=()).row.id


def asked_back(door: Door) -> RouteExample:
    """Switch a gate from enforcing to report mode, and return a call that consents to it."""
    service = f"gate-{next(NUMBERS)}"
    for says in (ENFORCE, REPORT):
        with door.db.transaction() as session:
            authentication.enter(session, GATE)
            enforcement.record(session, {service: says})
    return RouteExample({"service": service}, {"revision": 2})


def allowed_back(door: Door) -> RouteExample:
    asked = asked_back(door)
    does(door.world, "tara", enforcement.allow_report, asked.ids["service"], revision=2)
    return RouteExample(asked.ids)


def around(door: Door) -> dict[str, Any]:
    return {
        "engineers": [str(id_of(door.world, "erin"))],
        "service": "exchange-online",
        "resources": ["mailbox:anna@contoso.example"],
        "began_at": (datetime.now(UTC) - timedelta(hours=1)).isoformat(),
        "seconds": 600,
        "reason": "Lockbox could not be reached.",
    }


def free(door: Door, body: dict[str, Any] | None = None) -> RouteExample:
    """Release all legal holds of the world's tenant, and end its off-boarding."""
    door.run_sql(NO_HOLDS, t=door.world.tenant.id, p=id_of(door.world, "tara"))
    door.run_sql("DELETE FROM offboardings WHERE tenant_id = :t", t=door.world.tenant.id)
    return RouteExample(body=body)


def held(door: Door) -> RouteExample:
    free(door)
    for who in ("tara", "olga"):
        does(door.world, who, legal_holds.hold, "A dispute")
    return RouteExample()


def stopped(door: Door) -> RouteExample:
    """Start an emergency stop of the world's tenant."""
    does(door.world, "tara", emergency_stop.stop_all)
    return RouteExample()


def leaving(door: Door) -> RouteExample:
    free(door)
    does(door.world, "tara", tenant_data.ask_to_leave)
    return RouteExample()


def stated(door: Door) -> int:
    """Publish a new version of the exclusions, and return its number."""
    said = f"Text {next(NUMBERS)}: what an incident shows by chance is not covered."
    return manages(door.world, "olga", exclusions.state, said).version


def colleague(door: Door) -> UUID:
    return door.world.add(f"colleague-{next(NUMBERS)}", Role.ENGINEER).person_id


def _delegate(door: Door) -> RouteExample:
    starts_at, ends_at = period()
    body = {
        "delegate": eligible(door),
        "principal": id_of(door.world, "ann"),
        "starts_at": starts_at,
        "ends_at": ends_at,
    }
    return RouteExample(
        body={name: value.isoformat() if isinstance(value, datetime) else str(value) for name, value in body.items()}
    )


def _recovery(door: Door) -> RouteExample:
    door.run_sql(OVER, t=door.world.tenant.id)
    return RouteExample(body=somebody())


def _member(door: Door) -> RouteExample:
    name = f"member-{next(NUMBERS)}"
    return RouteExample({"person_id": door.world.add(name, Role.AUDITOR, door.world.tenant.id).person_id})


def _colleague_invited(door: Door) -> RouteExample:
    roles = frozenset({Role.ENGINEER})
    return RouteExample(
        {"invitation_id": manages(door.world, "olga", vendor_staff.invite, **somebody(), roles=roles).id}
    )


def _endpoint(door: Door, body: dict[str, Any] | None = None) -> RouteExample:
    return RouteExample({"endpoint_id": endpoint(door)}, body)


def _stated(door: Door) -> RouteExample:
    stated(door)
    return RouteExample()


PLACES: dict[str, Callable[[Door], RouteExample]] = {
    "POST /v1/requests/{request_id}/finding": lambda _: RouteExample(body={"finding": "justified", "comment": "OK"}),
    "POST /v1/requests/{request_id}/questions": lambda _: RouteExample(body=SAYS),
    "POST /v1/requests/{request_id}/questions/{question_id}/answer": lambda _: RouteExample(body=SAYS),
    "POST /v1/cases/{case_system}/{case_ref}/closed": lambda _: RouteExample(
        ids={"case_system": "helpdesk", "case_ref": "CASE-1"}
    ),
    "POST /v1/requests/{request_id}/activity": lambda _: RouteExample(body={"entries": [done()]}),
    "POST /v1/requests/{request_id}/credential": lambda _: RouteExample(body={"verifier": verifier_of("secret")}),
    "POST /v1/tenants": lambda _: RouteExample(
        body={"slug": f"new-{next(NUMBERS)}", "name": "New", "admin": somebody()}
    ),
    "PUT /v1/tenants/{slug}/plan": lambda _: RouteExample(body={"plan": "standard"}),
    "PUT /v1/tenants/{slug}/mode": lambda _: RouteExample(body={"mode": "enforce"}),
    "PUT /v1/tenants/{slug}/name": lambda _: RouteExample(body={"name": "Contoso"}),
    "PUT /v1/tenants/{slug}/policy": lambda _: RouteExample(
        body=WITHOUT_REVIEW.model_dump(mode="json"), headers={"if-match": "*"}
    ),
    "POST /v1/tenants/{slug}/members": lambda _: RouteExample(body=somebody() | {"roles": ["auditor"]}),
    "PUT /v1/tenants/{slug}/members/{person_id}": lambda door: RouteExample(
        {"person_id": id_of(door.world, "abe")}, {"roles": ["approver"]}, {"if-match": "*"}
    ),
    "GET /v1/tenants/{slug}/members/{person_id}": lambda door: RouteExample({"person_id": id_of(door.world, "abe")}),
    "DELETE /v1/tenants/{slug}/members/{person_id}": _member,
    "DELETE /v1/tenants/{slug}/invitations/{invitation_id}": lambda door: RouteExample(
        {"invitation_id": invited(door).id}
    ),
    "POST /v1/tenants/{slug}/delegations": _delegate,
    "DELETE /v1/tenants/{slug}/delegations/{delegation_id}": lambda door: RouteExample(
        {"delegation_id": delegated(door)}
    ),
    "POST /v1/tenants/{slug}/pre-approvals": lambda _: RouteExample(body=pre_approval()),
    "GET /v1/tenants/{slug}/pre-approvals/{pre_approval_id}": _pre_approval,
    "POST /v1/tenants/{slug}/pre-approvals/{pre_approval_id}/approve": _pre_approval,
    "POST /v1/tenants/{slug}/pre-approvals/{pre_approval_id}/revoke": _pre_approval,
    "POST /v1/tenants/{slug}/recovery": _recovery,
    "DELETE /v1/tenants/{slug}/recovery/{invitation_id}": lambda door: RouteExample(
        {"invitation_id": proposed(door).id}
    ),
    "POST /v1/tenants/{slug}/recovery/{invitation_id}/object": lambda door: RouteExample(
        {"invitation_id": proposed(door).id}
    ),
    "POST /v1/tenants/{slug}/endpoints": lambda door: RouteExample(
        {"endpoint_id": endpoint(door)}, {"url": "https://hooks.contoso.example/"}
    ),
    "POST /v1/tenants/{slug}/observers": lambda _: RouteExample(body=somebody()),
    "DELETE /v1/tenants/{slug}/observers/{observer_id}": lambda door: RouteExample({"observer_id": observer(door)}),
    "POST /v1/tenants/{slug}/preview": lambda _: RouteExample(body=WHAT_IF),
    "POST /v1/me/addresses": lambda _: RouteExample(body={"email": somebody()["address"]}),
    "POST /v1/me/addresses/{address_id}/confirm": lambda door: RouteExample(
        {"address_id": address(door)}, {"code": "x"}
    ),
    "PATCH /v1/me/addresses/{address_id}": lambda door: RouteExample(
        {"address_id": address(door)}, {"prompts": False}
    ),
    "DELETE /v1/me/addresses/{address_id}": lambda door: RouteExample({"address_id": address(door)}),
    "POST /v1/vendor/endpoints": lambda _: RouteExample(body={"url": "https://hooks.vendor.example/"}),
    "GET /v1/endpoints/{endpoint_id}": _endpoint,
    "PATCH /v1/endpoints/{endpoint_id}": lambda door: _endpoint(door, {"event_types": ["request.approved"]}),
    "DELETE /v1/endpoints/{endpoint_id}": _endpoint,
    "POST /v1/endpoints/{endpoint_id}/rotate": _endpoint,
    "POST /v1/endpoints/{endpoint_id}/test": _endpoint,
    "GET /v1/endpoints/{endpoint_id}/deliveries": _endpoint,
    "POST /v1/deliveries/{delivery_id}/redeliver": lambda door: RouteExample({"delivery_id": delivery(door)}),
    "POST /v1/vendor/members": lambda _: RouteExample(body=somebody() | {"roles": ["engineer"]}),
    "PUT /v1/vendor/members/{person_id}": lambda door: RouteExample(
        {"person_id": colleague(door)}, {"roles": ["manager"]}, {"if-match": "*"}
    ),
    "GET /v1/vendor/members/{person_id}": lambda door: RouteExample({"person_id": colleague(door)}),
    "GET /v1/vendor/members/{person_id}/directory": lambda door: RouteExample({"person_id": colleague(door)}),
    "PUT /v1/vendor/members/{person_id}/directory": lambda door: RouteExample(
        {"person_id": colleague(door)}, {"office_country": "DE"}
    ),
    "DELETE /v1/vendor/members/{person_id}": lambda door: RouteExample({"person_id": colleague(door)}),
    "POST /v1/vendor/members/{person_id}/disable": lambda door: RouteExample({"person_id": colleague(door)}),
    "DELETE /v1/vendor/invitations/{invitation_id}": _colleague_invited,
    "GET /v1/exclusions": _stated,
    "PUT /v1/exclusions": lambda _: RouteExample(
        body={"text": f"Text {next(NUMBERS)}: demands by law are not covered."}, headers={"if-match": "*"}
    ),
    "PUT /v1/tenants/{slug}/exclusions": lambda door: RouteExample(body={"version": stated(door)}),
    "PUT /v1/tenants/{slug}/retention": lambda _: RouteExample(body={"days": 30 + next(NUMBERS)}),
    "PUT /v1/tenants/{slug}/hold": lambda door: free(door, {"reason": "A dispute"}),
    "DELETE /v1/tenants/{slug}/hold": held,
    "DELETE /v1/tenants/{slug}/emergency-stop": stopped,
    "PUT /v1/tenants/{slug}/off-boarding": free,
    "DELETE /v1/tenants/{slug}/off-boarding": leaving,
    "POST /v1/tenants/{slug}/gate-probes": lambda _: RouteExample(body=PROBE),
    "POST /v1/tenants/{slug}/outside-access": lambda door: RouteExample(body=around(door)),
    "GET /v1/gate/enforcement/{service}/report": lambda door: RouteExample(asked_back(door).ids),
    "PUT /v1/tenants/{slug}/gates/{service}/report": asked_back,
    "DELETE /v1/tenants/{slug}/gates/{service}/report": allowed_back,
    "POST /v1/gate/identities": lambda door: RouteExample(body=unmapped(door)),
    "DELETE /v1/gate/identities/{identity_id}": lambda door: RouteExample({"identity_id": mapped(door)}),
}


def place_of(door: Door, route: str) -> RouteExample:
    """Return where to call a route, and with what."""
    return PLACES[route](door) if route in PLACES else RouteExample()
