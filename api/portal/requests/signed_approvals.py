"""The page on which a passkey signs an approval."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import browser, deps
from api.browser import OAuthState
from api.portal import phrases
from api.portal.pages import FormContext, page
from api.portal.requests.decision_form import DecisionForm
from api.portal.sign_in.passkey import LONGEST_ANSWER
from config.settings import Settings
from lockbox.database import UnitOfWork
from lockbox.errors import Invalid, NotSignedIn
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import sessions
from lockbox.identity.sessions import SignInPurpose
from lockbox.requests import decide
from lockbox.requests.approvals import ApprovalChallenge, SignedStatement
from lockbox.requests.decide import JudgedDecision

LONGEST_TEXT = 200_000
Answer = Callable[[], Response]
"""A function that makes an answer after the transaction has committed, so that no lock is kept meanwhile."""


class ApprovalProofForm(BaseModel):
    model_config = ConfigDict(frozen=True)

    credential: Annotated[str, Field(max_length=LONGEST_ANSWER)] = ""
    statement: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    content: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    unsigned: Annotated[str, Field(max_length=3)] = ""

    @property
    def is_final(self) -> bool:
        """Whether the approver has given or declined a signature."""
        return bool(self.credential or self.unsigned)


def ask(work: FormContext, session: UnitOfWork, judged: JudgedDecision, filled: DecisionForm) -> Answer:
    request, chosen, entry, caller = work.request, work.chosen, judged.entry, judged.scene.caller
    asked = decide.challenge(judged, party=partial(deps.relying_party, chosen))
    stub = sessions.begin_login(
        session,
        AuthMethod.PASSKEY,
        SignInPurpose.APPROVE,
        tied_to=caller.key_id,
        at=judged.scene.at,
        challenge=asked.question.challenge,
    )
    errand = OAuthState(stub, SignInPurpose.APPROVE, f"/requests/{entry.request.id}")
    return partial(_signing_page, request, chosen, judged, asked, filled, errand)


def _signing_page(
    request: Request,
    settings: Settings,
    judged: JudgedDecision,
    asked: ApprovalChallenge,
    filled: DecisionForm,
    errand: OAuthState,
) -> Response:
    entry, seen = judged.entry, judged.decision_input.version
    service = settings.catalogue.services.get(entry.request.service)
    answer = page(
        request,
        "sign_approval",
        visitor=browser.recognised(request),
        entry=entry,
        title=service.title if service else entry.request.service,
        asked=asked,
        signs={"max_uses": None} | (signs := json.loads(asked.statement)),
        starts=datetime.fromisoformat(signs["opens_at"]) if "opens_at" in signs else None,
        holds=json.loads(asked.content),
        fields=list(_fields(filled, entry.request.version if seen is None else seen)),
    )
    browser.keep_oauth_state(answer, settings, errand)
    return answer


def taken(work: FormContext, shown: ApprovalProofForm) -> SignedStatement | None:
    """The challenge is used up even if the answer is invalid."""
    if not shown.credential:
        return None
    party = deps.relying_party(work.chosen)
    errand = browser.oauth_state(work.request, work.chosen)
    stub = errand.stub if errand and errand.purpose is SignInPurpose.APPROVE else None
    try:
        with work.db.transaction() as session:
            key_id = work.visitor(session).caller.key_id
            begun_here = sessions.use(session, stub, AuthMethod.PASSKEY, SignInPurpose.APPROVE, tied_to=key_id)
            challenge = begun_here.challenge or b""
    except NotSignedIn as refused:
        if refused.detail != sessions.OVER:
            raise
        raise Invalid(phrases.SIGNATURE_OVER) from None
    return SignedStatement(shown.statement, shown.content, shown.credential, challenge, party)


def _fields(filled: DecisionForm, version: int) -> Iterator[tuple[str, str]]:
    yield "version", str(version)
    for name, typed in filled:
        yield from ((name, text) for text in (typed if isinstance(typed, list) else [typed]))
