"""A decision without a reason that the policy requires is refused, whoever decides and however."""

import pytest

from catalogue.service_catalogue import Plan
from harness.people import World
from lockbox.admin import emergency_stop, vendor_staff
from lockbox.database import Database
from lockbox.errors import CommentRequired
from lockbox.facts.enumerations import Mode
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import read, state_of
from tests.database.tenancy import does, id_of, manages
from tests.policy_setup import lay_down


@pytest.mark.parametrize("comment", [None, "", "  "])
@pytest.mark.parametrize("who", ["ann", "tara"])
def test_a_denial_needs_a_reason_by_default(world: World, who: str, comment: str | None) -> None:
    request = world.submit()

    with pytest.raises(CommentRequired, match="Say in a comment why you deny") as refused:
        world.act(who, Action.DENY, request.id, comment=comment)

    assert (refused.value.code, refused.value.facts["field"]) == ("comment-required", "comment")
    assert state_of(world.db, request.id) == "pending"
    assert read(world.db, "SELECT FROM decisions WHERE request_id = :id", id=request.id) == []
    assert world.act(who, Action.DENY, request.id, comment="Not today").state == "denied"


def test_a_policy_can_require_a_reason_for_approving_and_for_revoking(world: World) -> None:
    lay_down(world, comment_required=["approve", "revoke"])
    request = world.submit()

    with pytest.raises(CommentRequired, match="why you approve"):
        world.act("ann", Action.APPROVE, request.id)
    opened = world.act("ann", Action.APPROVE, request.id, comment="Case 7")
    for who in ("ann", "tara", "max"):
        with pytest.raises(CommentRequired, match="why you revoke"):
            world.act(who, Action.REVOKE, opened.id)
    closed = world.act("max", Action.REVOKE, opened.id, comment="Done")

    assert (opened.state, closed.state) == ("active", "revoked")


def test_a_policy_can_waive_reasons_of_the_customer_but_not_of_a_manager(api: Database) -> None:
    world = World.make(api, Policy(comment_required=frozenset()))
    reviewed, denied = world.submit(), world.submit()
    world.act("max", Action.ENDORSE, denied.id)

    with pytest.raises(CommentRequired):
        world.act("max", Action.DENY, reviewed.id, comment=None)
    world.act("ann", Action.DENY, denied.id, comment=None)

    assert [state_of(api, one.id) for one in (reviewed, denied)] == ["reviewing", "denied"]


def test_a_policy_rule_adds_to_the_actions_that_need_a_reason(world: World) -> None:
    rule = {"name": "mail", "match": {"services": ["exchange-online"]}, "terms": {"comment_required": ["approve"]}}
    lay_down(world, rules=[rule])
    request = world.submit()

    for action in (Action.APPROVE, Action.DENY):
        with pytest.raises(CommentRequired):
            world.act("ann", action, request.id, comment=None)

    assert state_of(world.db, request.id) == "pending"


def test_neither_an_emergency_stop_nor_disabling_a_person_ever_needs_a_reason(api: Database) -> None:
    everything = Policy.model_validate({"comment_required": ["approve", "deny", "revoke"], "vendor_review": False})
    world = World.make(api, everything)
    waiting, opened = world.submit(), world.submit()
    world.act("ann", Action.APPROVE, opened.id, comment="Yes")

    does(world, "tara", emergency_stop.stop_all)
    theirs = world.fresh("eve")
    world.act("ann", Action.APPROVE, theirs.id, comment="Yes")
    manages(world, "olga", vendor_staff.disable, id_of(world, "eve"))

    assert [state_of(api, one.id) for one in (waiting, opened, theirs)] == ["denied", "revoked", "revoked"]


def test_a_switch_to_mode_enforce_never_needs_a_reason(api: Database) -> None:
    world = World.make(api, Policy.model_validate({"comment_required": ["revoke"]}), Mode.OBSERVE)
    opened = world.act("max", Action.ENDORSE, world.submit().id)

    does(world, "tara", emergency_stop.switch_mode, Mode.ENFORCE, plans={"standard": Plan()})

    assert state_of(api, opened.id) == "revoked"
