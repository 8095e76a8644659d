"""The page on which an approver signs an approval with a passkey."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import Form, Request, Response

from api import browser, deps
from api.browser import OAuthState
from api.portal import phrases
from api.portal.decision_form import DecisionForm
from api.portal.pages import origin, page
from api.portal.sign_in_passkey import LONGEST_ANSWER
from api.refusal_log import AttemptedAction
from config.settings import Settings
from lockbox.database import Database
from lockbox.errors import Invalid, NotSignedIn
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import passkeys, sessions
from lockbox.identity.sessions import SignInPurpose
from lockbox.requests import decide, queries
from lockbox.requests.approvals import SignedStatement
from lockbox.requests.decisions import DecisionInput
from lockbox.requests.models import AccessRequest

LONGEST_TEXT = 200_000


@dataclass(frozen=True)
class ApprovalProofForm:
    """The signing page's forms: the two texts and the passkey's answer, or the choice not to sign."""

    credential: str = ""
    statement: str = ""
    content: str = ""
    is_unsigned: bool = False

    @property
    def is_final(self) -> bool:
        """Return whether the approver was asked for a signature already."""
        return bool(self.credential) or self.is_unsigned


NOTHING_SHOWN = ApprovalProofForm()


async def shown_proof(
    credential: Annotated[str, Form(max_length=LONGEST_ANSWER)] = "",
    statement: Annotated[str, Form(max_length=LONGEST_TEXT)] = "",
    content: Annotated[str, Form(max_length=LONGEST_TEXT)] = "",
    unsigned: Annotated[str, Form(max_length=3)] = "",
) -> ApprovalProofForm:
    """Return the signature fields of an approval's form."""
    return ApprovalProofForm(credential, statement, content, bool(unsigned))


@dataclass(frozen=True)
class SigningContext:
    """The context of signing: the call, and the CSRF token of its form."""

    request: Request
    chosen: Settings
    db: Database
    csrf: str

    def ask(self, request_id: UUID, decision_input: DecisionInput, filled: DecisionForm) -> Response | None:
        """Return the page whose script has a passkey sign the approval; None if the approver has none that can.

        Raises:
            As `acting.to_sign`.
        """
        if self.chosen.passkey_domain is None:
            return None
        party = partial(deps.relying_party, self.chosen)
        with self.db.transaction() as session:
            visitor = browser.visitor(self.request, session, self.chosen)
            browser.check_form(visitor, self.csrf)
            row = session.orm.get(AccessRequest, request_id)
            if row is None or not passkeys.has_signer(session, visitor.caller, row.tenant_id):
                return None
            session.orm.expunge(row)
            who, came = visitor.caller, origin(self.request)
            self.request.state.tried = AttemptedAction(who, came, request_id, decision_input.action)
            asked = decide.to_sign(session, who, came, request_id, decision_input, party=party)
            challenge = asked.question.challenge
            purpose = SignInPurpose.APPROVE
            stub = sessions.begin_login(session, AuthMethod.PASSKEY, purpose, tied_to=who.key_id, challenge=challenge)
            entry = queries.find(session, who, request_id)
            service = self.chosen.catalogue.services.get(row.service)
        answer = page(
            self.request,
            "sign_approval",
            visitor=visitor,
            entry=entry,
            title=service.title if service else row.service,
            asked=asked,
            signs={"max_uses": None} | (signs := json.loads(asked.statement)),
            starts=datetime.fromisoformat(signs["opens_at"]) if "opens_at" in signs else None,
            holds=json.loads(asked.content),
            fields=list(_fields(filled, row.version if decision_input.version is None else decision_input.version)),
        )
        browser.keep_oauth_state(answer, self.chosen, OAuthState(stub, purpose, f"/requests/{request_id}"))
        return answer

    def taken(self, shown: ApprovalProofForm) -> SignedStatement | None:
        """Return the answer of the approver's passkey; the challenge is used up whatever the answer.

        Raises:
            Invalid: the challenge was used, has expired, or is another browser's.
        """
        if not shown.credential:
            return None
        party = deps.relying_party(self.chosen)
        errand = browser.oauth_state(self.request, self.chosen)
        stub = errand.stub if errand and errand.purpose is SignInPurpose.APPROVE else None
        try:
            with self.db.transaction() as session:
                visitor = browser.visitor(self.request, session, self.chosen)
                browser.check_form(visitor, self.csrf)
                key_id = visitor.caller.key_id
                begun_here = sessions.use(session, stub, AuthMethod.PASSKEY, SignInPurpose.APPROVE, tied_to=key_id)
                challenge = begun_here.challenge or b""
        except NotSignedIn as refused:
            if refused.detail != sessions.OVER:
                raise
            raise Invalid(phrases.SIGNATURE_OVER) from None
        return SignedStatement(shown.statement, shown.content, shown.credential, challenge, party)


def _fields(filled: DecisionForm, version: int) -> Iterator[tuple[str, str]]:
    """Yield the approval form's fields, for this page's forms to send again."""
    yield from (
        ("version", str(version)),
        ("comment", filled.comment),
        ("window", filled.window),
        ("uses", filled.uses),
        ("start", filled.start),
    )
    if filled.resources is not None or filled.actions is not None:
        yield "narrow", "yes"
        yield from (("resources", one) for one in filled.resources or ())
        yield from (("actions", one) for one in filled.actions or ())
