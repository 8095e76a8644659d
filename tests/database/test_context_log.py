"""The context of a request in the log and in signed approvals, as two verifiers read it."""

import pytest
from sqlalchemy import Engine

from catalogue.context_schema import ContextParameter, ContextSchema
from catalogue.service_catalogue import Service
from harness.people import HERE, World
from lockbox.database import Database
from lockbox.requests import resubmission, submit, timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from tests.database.scenes import read, set_back
from tests.database.verified_log import check_log_of_one_window
from tests.policy_setup import lay_down

CONTEXT = {"environment": "production", "rows": 10, "dry_run": True}
PROPERTIES = {
    "environment": ContextParameter(type="string"),
    "rows": ContextParameter(type="integer"),
    "dry_run": ContextParameter(type="boolean"),
}
SERVICES = {"exchange-online": Service(title="Exchange Online", context=ContextSchema(properties=PROPERTIES))}


def submitted(world: World) -> AccessRequest:
    with world.db.transaction() as session:
        submission = world.submission(context=CONTEXT)
        return submit.submit(session, world.people["erin"], HERE, submission, SERVICES).request


@pytest.mark.parametrize("reviewed", [False, True])
def test_both_audit_log_verifiers_accept_an_approval_of_a_request_with_context(
    world: World, worker: Database, *, reviewed: bool
) -> None:
    lay_down(world, vendor_review=reviewed)
    request = submitted(world)
    if reviewed:
        world.act("max", Action.ENDORSE, request.id)
    world.act("ann", Action.APPROVE, request.id)
    world.act("erin", Action.COMPLETE, request.id)

    check_log_of_one_window(world, worker)


def test_a_resubmitted_request_keeps_the_context_of_the_first_request(
    world: World, superuser: Engine, worker: Database
) -> None:
    request = submitted(world)
    set_back(superuser, [request.id], 1)
    timers.run(worker, [request.id])

    with world.db.transaction() as session:
        again = resubmission.resubmit(session, world.people["erin"], HERE, request.id, SERVICES).request

    (row,) = read(world.db, "SELECT context, level FROM requests WHERE id = :id", id=again.id)
    assert (row.context, row.level) == (CONTEXT, "read")
