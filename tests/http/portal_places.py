"""Valid fields for each form of the portal, with rows of its own for every time it is sent."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.people import WITHOUT_REVIEW
from lockbox.identity.roles import Role
from lockbox.sql import new_id
from tests.database.tenancy import id_of
from tests.http import places
from tests.http.door import Door
from tests.http.places import RouteExample
from tests.http.portal import Browser, Filled, Portal
from tests.http.test_delivery_reach import run_out
from tests.http.tokens import made

NUMBERS = itertools.count(1)
SAID = {"version": "1", "comment": "Because of the audit"}
WHY = "Which mails?"


@dataclass
class Stage:
    """A world with its pages and its API: a form needs rows that it is about."""

    portal: Portal
    door: Door
    admin: Browser

    @classmethod
    def of(cls, portal: Portal) -> "Stage":
        """Return the stage of a world; its admin opens the pages from which forms are taken."""
        admin = portal.by_passkey("tara")
        return cls(portal, Door(portal.world, portal.db, portal.root, portal.runner), admin)

    @property
    def slug(self) -> str:
        return self.portal.world.tenant.slug

    def form(self, page: str, action: str) -> Filled:
        """Return what a form holds on a page of the tenant, as its admin sees it."""
        return self.admin.get(f"/tenants/{self.slug}{page}").form(action).filled


@dataclass(frozen=True)
class Errand:
    """The ids in the path to which a form is sent, and its fields."""

    ids: Mapping[str, object] = field(default_factory=dict)
    fields: Filled = field(default_factory=dict)


Placed = Callable[[Stage, str], Errand]
"""A function that makes an errand for a person of the stage."""


def _resource() -> str:
    """Return a resource that was never denied, so that no manager has to review it first."""
    return f"mailbox:{new_id()}@contoso.example"


def _pending(stage: Stage, _: str) -> Errand:
    return Errand({"request_id": stage.door.pending()}, SAID)


def _approving(stage: Stage, _: str) -> Errand:
    return Errand({"request_id": stage.door.pending()}, {"version": "1"})


def _active(stage: Stage, _: str) -> Errand:
    return Errand({"request_id": stage.door.active(resources=[_resource()])}, SAID | {"version": "2"})


def _timed_out(stage: Stage, _: str) -> Errand:
    request_id = stage.door.pending()
    run_out(stage.portal.worker, request_id)
    return Errand({"request_id": request_id})


def _extending(stage: Stage, _: str) -> Errand:
    request_id = stage.door.active(resources=[_resource()], access_window=600)
    return Errand({"request_id": request_id}, {"more": "600", "why": "It takes longer"})


def _by_break_glass(stage: Stage, _: str) -> Errand:
    return Errand(
        {"request_id": places.opened_by_break_glass(stage.door)}, {"finding": "justified", "comment": "As agreed"}
    )


def _looked_at(stage: Stage, _: str) -> Errand:
    return Errand({"request_id": stage.door.pending()}, {"looking": "on"})


def _asked(stage: Stage, _: str) -> Errand:
    return Errand({"request_id": stage.door.pending()}, {"text": WHY})


def _answered(stage: Stage, _: str) -> Errand:
    request_id = stage.door.pending()
    ids = {"request_id": request_id, "question_id": places.question(stage.door, request_id)}
    return Errand(ids, {"text": WHY})


def _own_session(stage: Stage, who: str) -> Errand:
    stage.portal.browser().enter(who)
    (row,) = stage.portal.sql(
        "SELECT id FROM sessions WHERE person_id = :p ORDER BY id DESC LIMIT 1", p=id_of(stage.portal.world, who)
    )
    return Errand(fields={"id": str(row.id)})


def _own_token(stage: Stage, who: str) -> Errand:
    return Errand(fields={"id": made(stage.door, who)["id"]})


def _terminal(**fields: str) -> Placed:
    def placed(stage: Stage, _: str) -> Errand:
        answer = stage.portal.browser().call("POST", "/v1/device-logins")
        return Errand(fields={"code": answer.json()["user_code"]} | fields)

    return placed


def _proposed(stage: Stage, _: str) -> Errand:
    return Errand(fields={"slug": stage.slug, "id": str(places.proposed(stage.door).id)})


def _roles(stage: Stage, _: str) -> Errand:
    page = stage.admin.get(f"/tenants/{stage.slug}/members")
    abe = str(id_of(stage.portal.world, "abe"))
    (form,) = (one for one in page.read.forms if one.action.endswith("/roles") and one.fields["id"] == abe)
    return Errand(fields={"id": abe, "version": form.fields["version"], "roles": ["approver"]})


def _member(stage: Stage, _: str) -> Errand:
    world = stage.portal.world
    return Errand(fields={"id": str(world.add(f"member-{next(NUMBERS)}", Role.AUDITOR, world.tenant.id).person_id)})


def _pre_approval(*_: object) -> Errand:
    fields = places.pre_approval()
    return Errand(fields=fields | {"ends": fields.pop("ends_at")[:16]})


def _pre_approved(stage: Stage, _: str) -> Errand:
    return Errand({"pre_approval_id": places.pre_approval_proposed(stage.door)})


def _delegate(stage: Stage, _: str) -> Errand:
    starts_at, ends_at = places.period()
    world = stage.portal.world
    return Errand(
        fields={
            "principal": str(id_of(world, "ann")),
            "delegate": str(places.eligible(stage.door)),
            "starts": f"{starts_at:%Y-%m-%dT%H:%M}",
            "ends": f"{ends_at:%Y-%m-%dT%H:%M}",
        }
    )


def _policy(stage: Stage, _: str) -> Errand:
    version = stage.form("/policy", "/policy")["version"]
    return Errand(fields={"text": WITHOUT_REVIEW.model_dump_json(), "version": version})


def _endpoint(**fields: str | list[str]) -> Placed:
    return lambda stage, _: Errand(fields={"id": str(places.endpoint(stage.door))} | fields)


def _delivery(stage: Stage, _: str) -> Errand:
    tried = places.delivery(stage.door)
    (row,) = stage.portal.sql("SELECT endpoint_id FROM deliveries WHERE id = :d", d=tried)
    return Errand(fields={"id": str(row.endpoint_id), "delivery": str(tried)})


def _asking(stage: Stage, _: str) -> Errand:
    body: dict[str, Any] = stage.portal.world.body(resources=[_resource()])
    said = {name: str(value) for name, value in body.items() if name not in {"resources", "actions"}}
    return Errand(fields=said | {"resources": body["resources"][0], "actions": body["actions"]})


def _asking_once(stage: Stage, who: str) -> Errand:
    return Errand(fields={**_asking(stage, who).fields, "key": new_id().hex[:22]})


def _consent(_: Stage, __: str) -> Errand:
    until = datetime.now(UTC) + timedelta(days=1)
    return Errand(fields={"mode": "observe", "until": f"{until:%Y-%m-%dT%H:%M}"})


def _address(**fields: str) -> Placed:
    return lambda stage, _: Errand(fields={"id": str(places.address(stage.door))} | fields)


def _holding(**fields: str | list[str]) -> Placed:
    return lambda *_: Errand(fields=fields)


def _somebody(_: Stage, __: str) -> Errand:
    return Errand(fields=places.somebody())


def _selected(stage: Stage, _: str) -> Errand:
    return Errand(fields={"chosen": [f"{stage.door.pending()}.1"], "comment": "Because of the audit"})


def _of_data(stage: Stage, prepare: Callable[[Door], object], **fields: str) -> Errand:
    prepare(stage.door)
    return Errand(fields=dict(fields))


def _data(prepare: Callable[[Door], object], **fields: str) -> Placed:
    return lambda stage, _: _of_data(stage, prepare, **fields)


PLACES: dict[str, Placed] = {
    "POST /requests/{request_id}/ask-again": _timed_out,
    "POST /requests/{request_id}/extend": _extending,
    "POST /requests/{request_id}/finding": _by_break_glass,
    "POST /requests/{request_id}/look": _looked_at,
    "POST /requests/{request_id}/approve": _approving,
    "POST /requests/{request_id}/deny": _pending,
    "POST /requests/{request_id}/revoke": _active,
    "GET /requests/{request_id}": _pending,
    "GET /requests/{request_id}/questions": _asked,
    "POST /requests/{request_id}/questions": _asked,
    "POST /requests/{request_id}/questions/{question_id}/answer": _answered,
    "POST /account/sessions/end": _own_session,
    "POST /account/passkeys/remove": _holding(id=str(new_id())),
    "POST /account/tokens/new": _holding(name="laptop"),
    "POST /account/tokens/revoke": _own_token,
    "POST /account/identities/new": _holding(number="0"),
    "POST /account/identities/remove": _holding(issuer="x", subject="x"),
    "POST /account/preferences": _holding(time_zone="Europe/Berlin"),
    "POST /account/preferences/prompts": _holding(prompts="yes"),
    "POST /account/addresses": lambda *_: Errand(fields={"email": places.somebody()["address"]}),
    "POST /account/addresses/confirm": _address(code="x"),
    "POST /account/addresses/prompts": _address(prompts="no"),
    "POST /account/addresses/remove": _address(),
    "POST /proposals/object": _proposed,
    "POST /device": _terminal(),
    "POST /device/answer": _terminal(said="allow"),
    "POST /tenants/{slug}/name": _holding(name="Contoso"),
    "POST /tenants/{slug}/emergency-stop": _holding(comment="Because of the audit"),
    "POST /tenants/{slug}/emergency-stop/end": _data(places.stopped),
    "POST /tenants/{slug}/mode": _holding(mode="enforce"),
    "POST /tenants/{slug}/mode/save": _holding(mode="enforce"),
    "POST /tenants/{slug}/mode/consent": _consent,
    "POST /tenants/{slug}/policy": _policy,
    "POST /tenants/{slug}/policy/terms": lambda stage, _: Errand(fields=stage.form("/policy", "/policy/terms")),
    "POST /tenants/{slug}/policy/save": _policy,
    "POST /ask/preview": _asking,
    "POST /ask": _asking_once,
    "POST /mine/{request_id}/cancel": _pending,
    "POST /mine/{request_id}/complete": _active,
    "POST /mine/cancel": _selected,
    "POST /review/deny": _selected,
    "POST /waiting/deny": _selected,
    "POST /review/{request_id}/endorse": _pending,
    "POST /review/{request_id}/deny": _pending,
    "POST /tenants/{slug}/members": lambda *_: Errand(fields=places.somebody() | {"roles": ["auditor"]}),
    "GET /tenants/{slug}/members/{person_id}": lambda stage, _: Errand(
        {"person_id": id_of(stage.portal.world, "abe")}
    ),
    "POST /tenants/{slug}/members/roles": _roles,
    "POST /tenants/{slug}/members/eligible": lambda stage, _: Errand(
        fields={"id": str(id_of(stage.portal.world, "aude")), "eligible": "yes"}
    ),
    "POST /tenants/{slug}/members/remove": _member,
    "POST /tenants/{slug}/members/withdraw": lambda stage, _: Errand(
        fields={"id": str(places.invited(stage.door).id)}
    ),
    "POST /tenants/{slug}/tiers": lambda stage, _: Errand(fields=stage.form("/tiers", "/tiers")),
    "POST /tenants/{slug}/pre-approvals": _pre_approval,
    "POST /tenants/{slug}/pre-approvals/{pre_approval_id}/approve": _pre_approved,
    "POST /tenants/{slug}/pre-approvals/{pre_approval_id}/revoke": _pre_approved,
    "POST /tenants/{slug}/delegates": _delegate,
    "POST /tenants/{slug}/delegates/end": lambda stage, _: Errand(fields={"id": str(places.delegated(stage.door))}),
    "GET /tenants/{slug}/endpoints/{endpoint_id}": lambda stage, _: Errand(
        {"endpoint_id": places.endpoint(stage.door)}
    ),
    "POST /tenants/{slug}/endpoints": lambda stage, _: Errand(
        {"endpoint_id": places.endpoint(stage.door)},
        {"url": "https://hooks.contoso.example/more", "form": "json"},
    ),
    "POST /tenants/{slug}/endpoints/change": _endpoint(
        url="https://hooks.contoso.example/", form="json", events=["request.approved"]
    ),
    "POST /tenants/{slug}/endpoints/turn": _endpoint(enabled="no"),
    "POST /tenants/{slug}/endpoints/rotate": _endpoint(hours="24"),
    "POST /tenants/{slug}/endpoints/test": _endpoint(),
    "POST /tenants/{slug}/endpoints/redeliver": _delivery,
    "POST /tenants/{slug}/endpoints/remove": _endpoint(),
    "POST /tenants/{slug}/observers": _somebody,
    "POST /tenants/{slug}/observers/remove": lambda stage, _: Errand(fields={"id": str(places.observer(stage.door))}),
    "POST /exclusions": lambda stage, _: Errand(
        fields={"text": "Demands by law are not covered.", "version": str(places.stated(stage.door))}
    ),
    "POST /tenants/{slug}/exclusions": lambda stage, _: Errand(fields={"version": str(places.stated(stage.door))}),
    "POST /tenants/{slug}/data/retention": lambda *_: Errand(fields={"days": str(30 + next(NUMBERS))}),
    "POST /tenants/{slug}/data/hold": _data(places.free, reason="A dispute"),
    "POST /tenants/{slug}/data/release": _data(places.held),
    "POST /data/{slug}/hold": _data(places.free, reason="A dispute"),
    "POST /data/{slug}/release": _data(places.held),
    "POST /tenants/{slug}/data/off-board": lambda stage, _: _of_data(stage, places.free, typed=stage.slug),
    "POST /tenants/{slug}/data/stay": _data(places.leaving),
    "POST /tenants/{slug}/gates/allow": lambda stage, _: _gate(places.asked_back(stage.door), revision="2"),
    "POST /tenants/{slug}/gates/end": lambda stage, _: _gate(places.allowed_back(stage.door)),
}


def _gate(about: RouteExample, **fields: str) -> Errand:
    return Errand(fields={"service": str(about.ids["service"]), **fields})


def errand(stage: Stage, route: str, who: str) -> Errand:
    """Return where a person sends the form of a route, and its fields."""
    return PLACES[route](stage, who) if route in PLACES else Errand()
