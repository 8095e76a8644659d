"""The account page."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import TypeAdapter, ValidationError

from api import browser, deps, rate_limits
from api.browser import OAuthState, Visitor
from api.call_routes import CallRouter
from api.deps import IdentityProvidersDep, SessionDep, SettingsDep, TokenRulesDep
from api.portal import phrases
from api.portal.pages import REFUSED, TAG, FormContext, FormContextDep, go, local, origin, page, status_of
from api.portal.sign_in import oidc
from api.portal.sign_in import passkey as sign_in_passkey
from api.portal.sign_in import session as sign_in_session
from api.portal.sign_in.passkey import Credential
from api.schemas.members import Address
from api.schemas.parts import Line
from config.settings import Settings
from lockbox.admin import first_passkeys
from lockbox.audit.verifier.approver_keys import grouped
from lockbox.audit.verifier.passkey_assertion import fingerprint
from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, LockboxError, NotSignedIn, SignInAgain
from lockbox.facts.bounds import Word
from lockbox.identity import api_tokens, credential_trust, identities, passkeys, sessions, time_zones, token_creation
from lockbox.identity.credentials import Passkey
from lockbox.identity.passkeys import LONGEST_NAME
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.identity.sessions import SignInPurpose
from lockbox.identity.token_creation import TokenInput
from lockbox.notifications import addresses

router = CallRouter(prefix="/account", tags=[TAG], include_in_schema=False)

HERE = "/account"
NAMES = TypeAdapter[str](Line)
ADDRESSES = TypeAdapter[str](Address)
LONGEST_PATH = 400
LONGEST_TOKEN_NAME = 100
MOST_SERVICES = 200
LONGEST_TENANTS = 2000
SLUG_BREAKS = re.compile(r"[\s,;]+")
ById = Annotated[UUID, Form(alias="id")]
VOUCHING = frozenset({SignInPurpose.VOUCH})
ADDING = frozenset({SignInPurpose.ADD, SignInPurpose.ADD_VOUCHED})


@dataclass(frozen=True)
class RefusedAccountForm:
    why: LockboxError
    place: str
    written: str = ""
    ticked: Collection[str] = ()


@router.get("")
def show(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(request, chosen, session, browser.visitor(request, session, chosen))


def done(
    work: FormContext,
    place: str,
    deed: Callable[[UnitOfWork, Visitor], Response | None],
    written: str = "",
    *,
    ticked: Collection[str] = (),
    first: Callable[[Caller], None] | None = None,
) -> Response:
    """`first` runs in a transaction of its own, which is committed even if the action is refused."""
    try:
        if first:
            with work.open() as (_, visitor):
                who = visitor.caller
            first(who)
        with work.open() as (session, visitor):
            answer = deed(session, visitor)
    except REFUSED as refused:
        with work.open() as (session, visitor):
            return _shown(
                work.request, work.chosen, session, visitor, RefusedAccountForm(refused, place, written, ticked)
            )
    return answer or go(work.request, HERE)


def _shown(
    request: Request,
    settings: Settings,
    session: UnitOfWork,
    visitor: Visitor,
    refused: RefusedAccountForm | None = None,
) -> HTMLResponse:
    idle = timedelta(seconds=settings.session_idle_seconds)
    mine = passkeys.mine(session, visitor.caller)
    titles = {issuer.issuer: issuer.title for issuer in settings.issuers}
    return page(
        request,
        "account",
        status_of(refused.why) if refused else 200,
        visitor=visitor,
        refused=refused,
        needs_sign_in=refused is not None and isinstance(refused.why, SignInAgain),
        sessions=sessions.mine(session, visitor.caller, idle=idle),
        passkeys=mine,
        waits=first_passkeys.waits(session, visitor.caller),
        fingerprints={one.id: _fingerprint(one) for one in mine},
        identities=[(one, titles.get(one.issuer, one.issuer)) for one in identities.mine(session, visitor.caller)],
        issuers={
            number: issuer.title
            for number, issuer in sign_in_session.issuers(settings).items()
            if identities.speaks_for(session, issuer, visitor.caller)
        },
        by_passkey=settings.passkey_domain is not None,
        at=now(session),
        tokens=api_tokens.mine(session, visitor.caller),
        scopes=list(Scope) if visitor.caller.holds(Role.SYSTEM) else [],
        services=sorted(settings.catalogue.services),
        longest_name=LONGEST_NAME,
        chosen=addresses.preferences(session, visitor.caller),
        addresses=addresses.mine(session, visitor.caller),
        most_addresses=addresses.MOST_ADDRESSES,
        time_zones=sorted(time_zones.names()),
    )


def _fingerprint(passkey: Passkey) -> str | None:
    try:
        return grouped(fingerprint(passkeys.public_key(passkey.public_key)))
    except ValueError:
        return None


@router.post("/sessions/end")
def end_session(work: FormContextDep, one: ById) -> Response:
    return done(work, "sessions", lambda session, who: sessions.revoke(session, who.caller, one, work.place))


@router.post("/passkeys/new")
def ask_for_passkey(
    work: FormContextDep,
    name: Annotated[str, Form(max_length=LONGEST_NAME)] = "",
    path: Annotated[str, Form(alias="next", max_length=LONGEST_PATH)] = HERE,
    credential: Credential = "",
    unsigned: Annotated[str, Form(max_length=3)] = "",
) -> Response:
    """A customer's person who already has a passkey first signs the addition of a new one with it."""
    party, onward = deps.relying_party(work.chosen), local(path)

    def deed(session: UnitOfWork, visitor: Visitor) -> Response:
        named = line(name, phrases.PASSKEY) or phrases.PASSKEY
        passkeys.check_addition(session, visitor.caller)
        purpose = SignInPurpose.ADD
        if credential:
            passkeys.check_vouched(session, visitor.caller, party, challenge=challenge, shown=credential)
            purpose = SignInPurpose.ADD_VOUCHED
        elif not unsigned and passkeys.has_voucher(session, visitor.caller):
            purpose = SignInPurpose.VOUCH
        return _ceremony(work, session, visitor, purpose, named, onward)

    challenge = b""
    if credential:
        with work.open() as (session, visitor):
            challenge, _ = _challenge(session, visitor, browser.oauth_state(work.request, work.chosen), VOUCHING)
    return done(work, "passkeys", deed, name)


@router.post("/passkeys")
def add_passkey(
    work: FormContextDep, credential: Credential = "", name: Annotated[str, Form(max_length=LONGEST_NAME)] = ""
) -> Response:
    """The challenge is used up even if the answer is invalid."""
    party = deps.relying_party(work.chosen)
    named, errand = line(name, phrases.PASSKEY) or phrases.PASSKEY, browser.oauth_state(work.request, work.chosen)
    with work.open() as (session, visitor):
        challenge, purpose = _challenge(session, visitor, errand, ADDING)
    with work.open() as (session, visitor):
        is_first = passkeys.add(
            session,
            visitor.caller,
            party,
            challenge=challenge,
            shown=credential,
            name=named,
            place=work.place,
            is_vouched=purpose is SignInPurpose.ADD_VOUCHED,
        )
        if is_first:
            first_passkeys.announce(session, visitor.caller, origin(work.request))
    answer = go(work.request, local(errand.path) if errand else HERE)
    browser.drop_oauth_state(answer, work.chosen)
    return answer


@router.post("/passkeys/remove")
def remove_passkey(work: FormContextDep, one: ById) -> Response:
    return done(work, "passkeys", lambda session, who: passkeys.remove(session, who.caller, one, work.place))


@router.post("/identities/new")
def ask_issuer(work: FormContextDep, known: IdentityProvidersDep, number: Annotated[int, Form()]) -> Response:
    issuer = oidc.find(work.chosen, number)
    with work.open() as (session, visitor):
        credential_trust.check(session, visitor.caller)
    url, errand = oidc.begin(
        work.db, known, work.chosen, issuer, path=HERE, is_again=True, tied_to=visitor.caller.key_id
    )
    answer = page(work.request, "provider_redirect", visitor=visitor, url=url, title=issuer.title, back=HERE)
    browser.keep_oauth_state(answer, work.chosen, errand)
    return answer


@router.post("/identities/remove")
def remove_identity(
    work: FormContextDep, issuer: Annotated[str, Form()], subject: Annotated[str, Form()]
) -> Response:
    def deed(session: UnitOfWork, visitor: Visitor) -> None:
        identities.remove(session, visitor.caller, issuer, subject, work.place, issuers=work.chosen.issuers)

    return done(work, "identities", deed)


@router.post("/tokens/new")
def make_token(
    work: FormContextDep,
    laid_down: TokenRulesDep,
    name: Annotated[str, Form(max_length=LONGEST_TOKEN_NAME)] = "",
    scopes: Annotated[frozenset[Scope], Form(max_length=len(Scope))] = frozenset(),
    services: Annotated[frozenset[Word], Form(max_length=MOST_SERVICES)] = frozenset(),
    tenants: Annotated[str, Form(max_length=LONGEST_TENANTS)] = "",
) -> Response:
    """Only the page that answers this form shows the token."""

    def deed(session: UnitOfWork, visitor: Visitor) -> Response:
        bound_to = frozenset(SLUG_BREAKS.split(tenants.strip())) - {""}
        called = line(name, phrases.TOKEN) or phrases.TOKEN
        wanted = TokenInput(called, scopes=scopes, services=services, tenants=bound_to)
        issued = token_creation.make(session, visitor.caller, work.place, wanted, laid_down)
        return page(
            work.request, "api_token", visitor=visitor, issued=issued, public_url=work.chosen.public_url, back=HERE
        )

    return done(work, "tokens", deed, name, ticked=scopes | services)


@router.post("/tokens/revoke")
def revoke_token(work: FormContextDep, one: ById) -> Response:
    return done(work, "tokens", lambda session, who: token_creation.revoke(session, who.caller, work.place, one))


@router.post("/preferences")
def choose_time_zone(
    work: FormContextDep,
    time_zone: Annotated[str, Form(max_length=time_zones.LONGEST)] = "",
    path: Annotated[str, Form(alias="next", max_length=LONGEST_PATH)] = HERE,
) -> Response:
    def deed(session: UnitOfWork, visitor: Visitor) -> Response:
        addresses.choose_time_zone(session, visitor.caller, time_zone.strip())
        return go(work.request, local(path))

    return done(work, "time-zone", deed, time_zone)


@router.post("/preferences/prompts")
def choose_prompts(work: FormContextDep, prompts: Annotated[Literal["yes", "no"], Form()] = "yes") -> Response:
    def deed(session: UnitOfWork, visitor: Visitor) -> None:
        addresses.choose_prompts(session, visitor.caller, work.place, wanted=prompts == "yes")

    return done(work, "prompts", deed)


@router.post("/addresses")
def add_address(work: FormContextDep, email: Annotated[str, Form(max_length=320)] = "") -> Response:
    def deed(session: UnitOfWork, visitor: Visitor) -> None:
        addresses.add(session, visitor.caller, work.place, _address(email))

    return done(work, "address", deed, email, first=lambda who: rate_limits.count_address(who, work.db))


@router.post("/addresses/confirm")
def confirm_address(work: FormContextDep, one: ById, code: Annotated[str, Form(max_length=100)] = "") -> Response:
    def deed(session: UnitOfWork, visitor: Visitor) -> None:
        addresses.confirm(session, visitor.caller, work.place, one, code)

    return done(work, str(one), deed, code)


@router.post("/addresses/prompts")
def choose_address(
    work: FormContextDep, one: ById, prompts: Annotated[Literal["yes", "no"], Form()] = "yes"
) -> Response:
    def deed(session: UnitOfWork, visitor: Visitor) -> None:
        addresses.choose(session, visitor.caller, work.place, one, prompts=prompts == "yes")

    return done(work, str(one), deed)


@router.post("/addresses/remove")
def remove_address(work: FormContextDep, one: ById) -> Response:
    return done(work, str(one), lambda session, who: addresses.remove(session, who.caller, work.place, one))


def _address(typed: str) -> str:
    try:
        return ADDRESSES.validate_python(typed.strip())
    except ValidationError:
        raise Invalid(phrases.ONE_ADDRESS, field="email") from None


def _ceremony(
    work: FormContext, session: UnitOfWork, visitor: Visitor, purpose: SignInPurpose, named: str, onward: str
) -> Response:
    party, caller = deps.relying_party(work.chosen), visitor.caller
    stub, challenge = sessions.begin_ceremony(session, purpose, tied_to=caller.key_id)
    if purpose is SignInPurpose.VOUCH:
        answer = sign_in_passkey.ceremony(
            work.request,
            passkeys.vouching_challenge(session, caller, party, challenge),
            kind="get",
            action="/account/passkeys/new",
            back=onward,
            visitor=visitor,
            fields={"name": named, "next": onward},
            is_vouching=True,
        )
    else:
        answer = sign_in_passkey.ceremony(
            work.request,
            passkeys.registration_challenge(session, caller, party, challenge),
            kind="create",
            action="/account/passkeys",
            back=onward,
            visitor=visitor,
            fields={"name": named},
        )
    browser.keep_oauth_state(answer, work.chosen, OAuthState(stub, purpose, onward))
    return answer


def _challenge(
    session: UnitOfWork, visitor: Visitor, errand: OAuthState | None, purposes: Collection[SignInPurpose]
) -> tuple[bytes, SignInPurpose]:
    stub, purpose = None, SignInPurpose.ADD
    if errand and errand.purpose in purposes:
        stub, purpose = errand.stub, errand.purpose
    try:
        return sessions.use_ceremony(session, stub, purpose, tied_to=visitor.caller.key_id), purpose
    except NotSignedIn:
        raise Invalid(phrases.PASSKEY_OVER) from None


def line(name: str, what: str) -> str:
    try:
        return NAMES.validate_python(name.strip()) if name.strip() else ""
    except ValidationError:
        raise Invalid(phrases.NO_NAME.format(what=what)) from None
