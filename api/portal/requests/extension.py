"""Request more time from the page of an open window."""

from typing import Annotated

from fastapi import Form, Response

from api.call_routes import CallRouter
from api.portal import phrases
from api.portal.account.profile import AccountContextDep
from api.portal.pages import TAG, go, origin
from api.portal.requests.decision_form import DecisionForm
from api.portal.requests.request import request_id_of, show_request
from api.portal.tenant.tenant_admin import read
from api.schemas.submissions import ExtensionRequest
from lockbox.errors import Conflict, Invalid, NotYours, TooMany
from lockbox.requests import extend
from lockbox.requests.extend import AlreadyExtended, ExtensionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.submit import SubmissionLimits

router = CallRouter(prefix="/requests", tags=[TAG], include_in_schema=False)

EXTEND = "extend"


@router.post("/{request_id}/extend")
def request_more_time(
    work: AccountContextDep,
    request_id: str,
    more: Annotated[str, Form(max_length=9)] = "",
    why: Annotated[str, Form()] = "",
) -> Response:
    """Submit the extension and go to it, or to the one that is open already; a refusal is shown with the window."""
    request, chosen = work.request, work.chosen
    one, said = request_id_of(request_id), DecisionForm(EXTEND, comment=why, window=more)
    try:
        wanted = _read(said)
        with work.open() as (session, visitor):
            limits = SubmissionLimits(chosen.submissions_per_person, chosen.submissions_per_tenant)
            by = visitor.caller, origin(request)
            submitted = extend.extend(session, *by, one, wanted, chosen.catalogue.services, limits=limits)
    except AlreadyExtended as done:
        return go(request, f"/requests/{done.facts['request_id']}")
    except (Conflict, NotYours, Invalid, TooMany) as refused:
        with work.open() as (session, visitor):
            return show_request(request, session, chosen, visitor, one, refused=refused, said=said)
    return go(request, f"/requests/{submitted.request.id}", done=Action.SUBMIT.value)


def _read(said: DecisionForm) -> ExtensionInput:
    if not (said.window.isascii() and said.window.isdecimal() and int(said.window)):
        raise Invalid(phrases.NO_DURATION, field="more")
    body = read(ExtensionRequest, access_window=int(said.window), justification=said.comment.strip() or None)
    return ExtensionInput(**dict(body))
