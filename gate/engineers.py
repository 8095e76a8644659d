"""Identify the engineer of a gated call, by a token or by the gateway's headers."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from catalogue.gate_document import GateCallers, TokenIssuer
from catalogue.issuers import IdentityProvider
from catalogue.service_catalogue import Catalogue
from config.outbound import OutboundRoute
from gate.answers import GateReason
from gate.bearer_tokens import GateIssuer, TokenRealm, TokenVerifier, VerifiedToken
from gate.call import SentHeaders
from gate.identity_map import HEADER, MTLS, IdentityKey, IdentityMap, MapUnreadable
from lockbox.database import Database
from lockbox.errors import Busy, NotSignedIn
from lockbox.identity.credentials import LONGEST_GATE_SUBJECT
from lockbox.identity.oidc_providers import IdentityProviders
from lockbox.safe_http import NO_WAY_ASIDE

SUPPORT_ENTRANCE = GateCallers(entrance="support")
AUTHORIZATION = "authorization"
BEARER = b"bearer"
VALUE = re.compile(rb"[!-~](?:[ -~]*[!-~])?")
SIGN_IN = "Sign in first: the call shows no token. Send Authorization: Bearer and a token of your identity provider."
NO_HEADER = "The gateway does not say whose call it is: the header {name} is missing."
NOT_ONE_HEADER = "The header {name} must be there once, with 1 to 500 visible characters. Look at the gateway."
ONE_AUTHORIZATION = "The call has more than one header Authorization. Send one."
SEVERAL_WAYS = "The call says in more than one way whose it is. Send either a token or the gateway's header."
NO_GATEWAY = "Only a gateway that has authenticated itself may say whose call it is."
UNKNOWN = "This identity is not that of an engineer at Lockbox. Ask an operator to map it: lockbox gate identity add."
BEHIND = "Lockbox cannot look up now whose call this is, and so grants no access. Try again in a minute."


@dataclass(frozen=True, slots=True)
class EngineerCall:
    """`expires_at` is the end of the engineer's token, in seconds since 1970."""

    person_id: UUID
    issuer: str
    subject: str
    expires_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A call with a verified token to which the gate does not apply."""

    issuer: str
    expires_at: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class UnidentifiedCall:
    """`identity` is the issuer and subject, separated by a space, if they were proven but map to no engineer."""

    reason: GateReason
    detail: str
    identity: str = field(default="", compare=False)


class _Identity(NamedTuple):
    key: IdentityKey
    expires_at: float | None = None


CallIdentity = EngineerCall | NotApplicable | UnidentifiedCall


@dataclass(frozen=True)
class ServiceCallers:
    """At a support entrance (a separate address for support), all calls are gated.

    Elsewhere a token of the rules' issuer is gated if its claim has, or may have, the rules' value; calls with other
    verified tokens pass.
    """

    issuers: Sequence[GateIssuer] = ()
    rules: GateCallers = SUPPORT_ENTRANCE

    @property
    def headers(self) -> frozenset[bytes]:
        return frozenset(name.encode() for name in self.rules.headers)

    def is_gated(self, claims: Mapping[str, Any]) -> bool:
        rules = self.rules
        if rules.claim is None or rules.value is None:
            return True
        # A token without the claim is gated, because its requester can often leave the claim out.
        return claims["iss"] == rules.issuer and may_say(claims.get(rules.claim), rules.value)


def may_say(found: object, value: str) -> bool:
    """Return whether a claim has a value, or might have it: ambiguous claims are gated.

    A text matches as a whole or by one of its words, as in `scope` (RFC 8693 section 4.2), ignoring case.
    """
    if isinstance(found, list):
        return any(may_say(one, value) if isinstance(one, str) else True for one in found)
    if not isinstance(found, str):
        return True
    wanted, said = value.casefold(), found.casefold()
    return said.strip() == wanted.strip() or wanted in said.split()


class EngineerResolver:
    def __init__(
        self,
        services: Mapping[str, ServiceCallers],
        database: Database,
        now: Callable[[], datetime],
        *,
        clock: Callable[[], float] = time.monotonic,
        token_header: str = AUTHORIZATION,
        route: OutboundRoute = NO_WAY_ASIDE,
    ) -> None:
        """`now` is the database's time; `token_header` is in lower case."""
        providers = {
            issuer.provider.issuer: issuer.provider for callers in services.values() for issuer in callers.issuers
        }
        self._services = services
        self._realms = {
            name: TokenRealm(name, {issuer.provider.issuer: issuer for issuer in callers.issuers}, callers.is_gated)
            for name, callers in services.items()
        }
        self._token_header = token_header.encode()
        self._watched = {
            name: frozenset([self._token_header] if callers.issuers else []) | callers.headers
            for name, callers in services.items()
        }
        self.tokens = TokenVerifier(IdentityProviders(providers.values(), route=route), now, clock=clock)
        self.map = IdentityMap(database, clock=clock)

    async def identify(
        self,
        service: str,
        headers: SentHeaders,
        gateway: UUID | None = None,
        *,
        anew: bool = False,
        ends: float | None = None,
    ) -> CallIdentity:
        """Never raises. `gateway` is the account of an authenticated gateway; `anew` ignores the cached map."""
        try:
            found = await self._identify(service, headers, gateway, ends)
            if not isinstance(found, _Identity):
                return found
            person_id = await self.map.engineer(found.key, anew=anew, ends=ends)
        except NotSignedIn as refused:
            return UnidentifiedCall(GateReason.BAD_TOKEN, refused.detail)
        except Busy as busy:
            return UnidentifiedCall(GateReason.BUSY, busy.detail)
        except MapUnreadable:
            return UnidentifiedCall(GateReason.BEHIND, BEHIND)
        if person_id is None:
            issuer, subject, _ = found.key
            return UnidentifiedCall(GateReason.UNKNOWN_ENGINEER, UNKNOWN, f"{issuer} {subject}")
        return EngineerCall(person_id, found.key[0], found.key[1], found.expires_at)

    def is_shown(self, service: str, headers: SentHeaders) -> bool:
        return not (self._watched[service] | {self._token_header}).isdisjoint(headers.values)

    def forget(self) -> None:
        self.map.forget()

    def close(self) -> None:
        self.tokens.close()
        self.map.close()

    async def _identify(
        self, service: str, headers: SentHeaders, gateway: UUID | None, ends: float | None
    ) -> NotApplicable | UnidentifiedCall | _Identity:
        callers = self._services[service]
        if self._token_header in headers.repeated:
            # With several headers, the service may use another one than the gate does, even where the gate uses none.
            return UnidentifiedCall(GateReason.MALFORMED, ONE_AUTHORIZATION)
        sent = self._watched[service].intersection(headers.values)
        if not sent:
            names = b" or ".join(sorted(callers.headers)).decode()
            detail = SIGN_IN if callers.issuers else NO_HEADER.format(name=names)
            return UnidentifiedCall(GateReason.NO_TOKEN, detail)
        if len(sent) > 1:
            return UnidentifiedCall(GateReason.MALFORMED, SEVERAL_WAYS)
        (name,) = sent
        value = headers.once(name)
        if value is None:
            return UnidentifiedCall(GateReason.MALFORMED, NOT_ONE_HEADER.format(name=name.decode()))
        if name == self._token_header:
            return await self._by_token(service, value, ends)
        is_subject = name.decode() == (callers.rules.subject_header or "").lower()
        return _by_header(name, value, MTLS + service if is_subject else HEADER, gateway)

    async def _by_token(
        self, service: str, shown: bytes, ends: float | None
    ) -> NotApplicable | UnidentifiedCall | _Identity:
        scheme, _, token = shown.partition(b" ")
        if scheme.lower() != BEARER or not token:
            return UnidentifiedCall(GateReason.NO_TOKEN, SIGN_IN)
        found: VerifiedToken = await self.tokens.verified(self._realms[service], token, ends)
        if not found.is_gated:
            return NotApplicable(found.issuer, found.expires_at)
        return _Identity((found.issuer, found.subject, found.email), found.expires_at)


def _by_header(name: bytes, value: bytes, issuer: str, gateway: UUID | None) -> UnidentifiedCall | _Identity:
    if gateway is None:
        return UnidentifiedCall(GateReason.MALFORMED, NO_GATEWAY)
    if len(value) > LONGEST_GATE_SUBJECT or not VALUE.fullmatch(value):
        return UnidentifiedCall(GateReason.MALFORMED, NOT_ONE_HEADER.format(name=name.decode()))
    return _Identity((f"{HEADER}{gateway}" if issuer == HEADER else issuer, value.decode(), None))


def issuer_names(catalogue: Catalogue) -> frozenset[str]:
    certified = {MTLS + name for name, callers in callers_of(catalogue).items() if callers.rules.subject_header}
    return frozenset({issuer.issuer for issuer in catalogue.issuers} | certified)


def callers_of(catalogue: Catalogue) -> dict[str, ServiceCallers]:
    """Services without a gate accept the tokens that guards forward."""
    issuers = tuple(map(_issuer, catalogue.issuers))
    return {
        name: ServiceCallers(issuers, service.gate.callers) if service.gate is not None else ServiceCallers(issuers)
        for name, service in catalogue.services.items()
    }


def _issuer(said: TokenIssuer) -> GateIssuer:
    provider = IdentityProvider(
        issuer=said.issuer,
        audience=said.audience,
        authorized_parties=said.azp,
        algorithms=said.algorithms,
        jwks_url=said.jwks_url,
    )
    return GateIssuer(provider, said.longest_token, said.mail_is_authoritative)
