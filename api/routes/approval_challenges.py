"""The route that makes a challenge for an approver's passkey."""

import json
from functools import partial
from uuid import UUID

from fastapi import Request, Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, IfMatch, RequestOrigin, SessionDep, SettingsDep, relying_party
from api.refusal_log import AttemptedAction
from api.routes.requests import approval
from api.schemas.parts import MAY_MATCH, problems
from api.schemas.requests import ApprovalInput, ChallengeView
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import sessions
from lockbox.identity.sessions import SignInPurpose
from lockbox.requests import decide

router = CallRouter(prefix="/v1/requests", tags=["requests"])


@router.post("/{request_id}/approve/challenge", responses=problems(404, 409, 412), openapi_extra=MAY_MATCH)
def create_approval_challenge(
    request: Request,
    request_id: UUID,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
    seen: IfMatch,
    response: Response,
    body: ApprovalInput | None = None,
) -> ChallengeView:
    """Check an approval as if it were given now, and return what a passkey of the caller's has to sign for it.

    Passkeys only answer pages of this server's own origin. Send the answer with the same body to `approve`.
    """
    said = body or ApprovalInput()
    decision_input = approval(said, seen)
    request.state.tried = AttemptedAction(who, origin, request_id, decision_input.action)
    asked = decide.to_sign(session, who, origin, request_id, decision_input, party=partial(relying_party, chosen))
    challenge = asked.question.challenge
    stub = sessions.begin_login(
        session, AuthMethod.PASSKEY, SignInPurpose.APPROVE, tied_to=who.key_id, challenge=challenge
    )
    response.headers["cache-control"] = "no-store"
    return ChallengeView(
        ticket=f"{stub.id}.{stub.secret}",
        statement=asked.statement,
        content=asked.content,
        options=json.loads(asked.question.options),
        is_demanded=asked.is_demanded,
    )
