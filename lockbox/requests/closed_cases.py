"""End the requests of a support case once its ticket system reports that the case is closed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import NotYours, TooLate
from lockbox.facts.enumerations import State
from lockbox.failpoints import failpoint
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.requests import decide
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action, Party
from lockbox.requests.models import AccessRequest
from lockbox.sql import columns

MOST_ENDED = 100
CASE_CLOSED = "case_closed"
WHY = "The support case was closed."
WAYS_TO_END = {State.REVIEWING: Action.CANCEL, State.PENDING: Action.CANCEL, State.ACTIVE: Action.REVOKE}
IS_OPEN_IN_CASE = """
requests.tenant_id = ANY ((SELECT closing_tenants())::uuid[]) AND requests.case_ref = :case_ref
AND (requests.case_system = :system OR :is_only AND requests.case_system IS NULL) AND requests.closed_at IS NULL
"""
# The statement waits for a row that an open transaction is moving, and reads its new version; only a closed request
# is left out. Overdue requests are skipped later, so they come last: a late clock must not delay the other requests.
OF_CASE = text(f"""
WITH portion AS (SELECT requests.id FROM requests WHERE {IS_OPEN_IN_CASE}
    ORDER BY requests.deadline_at <= clock_timestamp(), requests.id LIMIT :most)
SELECT {columns(AccessRequest, "requests")}, t.slug AS tenant FROM portion JOIN requests ON requests.id = portion.id
    JOIN tenants t ON t.id = requests.tenant_id
WHERE requests.closed_at IS NULL ORDER BY requests.id FOR UPDATE OF requests
""")  # noqa: S608 - ours
LEFT = text(f"""
SELECT count(*) FROM requests WHERE {IS_OPEN_IN_CASE} AND requests.deadline_at > clock_timestamp()
""")  # noqa: S608 - ours


@dataclass(frozen=True)
class EndedRequest:
    request: AccessRequest
    tenant: str


@dataclass(frozen=True)
class CaseClosing:
    """If `left` is not 0, requests are still open, and the call must be repeated."""

    ended: Sequence[EndedRequest]
    left: int


def close_case(
    session: UnitOfWork, caller: Caller, origin: Origin, system: str, case_ref: str, *, is_only: bool = False
) -> CaseClosing:
    """Cancel a case's pending requests and revoke its open windows, at most a hundred.

    `is_only` is whether `system` is the only ticket system in the catalogue: then requests that name no ticket system
    are ended too. Only tenants to which the token is bound are affected, and nothing is revealed about others.
    """
    if not caller.holds(Role.SYSTEM) or Scope.CASE_CLOSE not in caller.scopes:
        raise NotYours(f"This needs a token of a service account with the scope {Scope.CASE_CLOSE}.")
    authentication.enter(session, caller)
    authentication.close_cases(session, caller)
    named = {"system": system, "case_ref": case_ref, "is_only": is_only}
    rows = session.execute(OF_CASE, named | {"most": MOST_ENDED}).all()
    failpoint("case.after_lock")
    ended = []
    for row in rows:
        request = AccessRequest.of(row)
        decision_input = DecisionInput(WAYS_TO_END[request.state], WHY, reason=CASE_CLOSED)
        try:
            request = decide.act_on(session, caller, origin, request, decision_input, as_party=Party.SYSTEM)
        except TooLate:
            # The request's deadline has passed, and the clock will end it.
            continue
        ended.append(EndedRequest(request, row.tenant))
        failpoint("case.after_end")
    left = session.execute(LEFT, named).scalar_one()
    return CaseClosing(ended, left)
