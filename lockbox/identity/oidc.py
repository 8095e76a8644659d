"""OpenID Connect: verification of identity providers' tokens, and the code flow with PKCE."""

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import httpx
import structlog
from joserfc import jws, jwt
from joserfc.errors import (
    BadSignatureError,
    ExpiredTokenError,
    InvalidKeyCurveError,
    InvalidKeyIdError,
    InvalidKeyTypeError,
    JoseError,
)
from joserfc.jwk import KeySet

from catalogue.issuers import IdentityProvider
from lockbox.errors import NotSignedIn
from lockbox.identity.directory import LONGEST_ENTITY, DirectoryEntry
from lockbox.identity.oidc_providers import (
    IdentityProviders,
    ProviderMetadata,
    ProviderUnavailable,
    SignatureRegistry,
    has_key,
    read_object,
)
from lockbox.safe_http import FetchFailed
from lockbox.text_rules import COUNTRIES

log = structlog.get_logger(__name__)

MOST_TOKEN_BYTES = 8 * 1024
LEEWAY_SECONDS = 60
MOST_LIFE_SECONDS = 24 * 3600
LONGEST_SUBJECT, LONGEST_NAME = 255, 200
ADDRESS = re.compile(r"[!-?A-~]{1,64}@[!-?A-~]{1,189}")
SCOPE = "openid profile email"

ID_TOKEN_TYPES = frozenset({"jwt"})
BEARER_TYPES = frozenset({"jwt", "at+jwt"})
BEARER_CLIENTS = ("azp", "client_id", "cid", "appid")
"""The claims that name a bearer token's client, in OpenID Connect, RFC 9068, Okta, and version 1 of Entra."""
ID_TOKEN_CLIENTS = ("azp",)
# A logout token has `events`; a token with `cnf` is worthless without its bound key (RFC 7800).
NEVER_BEARERS = frozenset({"events", "cnf"})

NOT_ACCEPTED = "The token was not accepted; sign in again and use the new one."
TOO_LONG = "The token lasts longer than {longest}; have the identity provider issue shorter ones."
EXPIRED = "The token has expired; sign in again."
UNKNOWN_ISSUER = "The token's issuer is not set up here; use a token of an issuer that is."
NOT_COMPLETED = "The sign-in was not completed; start it again."
NO_BROWSER = "This identity provider is not set up for browsers; use another way to sign in."

# The key of this id may have been replaced, so the signature is tried with newer keys.
OTHER_KEY = (BadSignatureError, InvalidKeyIdError, InvalidKeyTypeError, InvalidKeyCurveError)
# joserfc 1.8 raises these for malformed input, besides its own errors.
MALFORMED = (JoseError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


class UnexplainedSignature(NotSignedIn):
    """None of the keys made the signature; the provider may have replaced the key and kept its id."""


class Claims(jwt.JWTClaimsRegistry):
    """Checks a token's claims by RFC 7519 and OpenID Connect Core 1.0 section 3.1.3.7."""

    def validate_auth_time(self, value: object) -> None:
        self.validate_iat(value)


@dataclass(frozen=True)
class VerifiedIdentity:
    """A person that an identity provider authenticated, identified by issuer and subject, never by name or address.

    `email` is set only if the provider verified it. `methods` is the claim `amr` (RFC 8176). `directory` is the
    person's directory entry from the claims, None if no claims are configured for it.
    """

    issuer: str
    subject: str
    authenticated_at: datetime
    name: str | None
    email: str | None
    methods: tuple[str, ...]
    directory: DirectoryEntry | None = None
    issued_at: datetime | None = None


@dataclass(frozen=True)
class UnverifiedToken:
    """`issuer` is the provider that the token names, if any."""

    text: str = field(repr=False)
    header: Mapping[str, Any] = field(repr=False)
    issuer: str | None


@dataclass(frozen=True)
class AuthorizationRequest:
    """All fields but the URL are stored until the browser returns."""

    url: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


def verify(token: str, issuers: IdentityProviders, now: datetime) -> VerifiedIdentity:
    """Verify a bearer token: an access token (RFC 9068) or an ID token of a configured provider."""
    shown = parse(token)
    issuer = issuers.configured(shown.issuer) if shown.issuer is not None else None
    if issuer is None:
        raise NotSignedIn(UNKNOWN_ISSUER)
    claims = _claims(shown, issuer, issuers, audience=issuer.audience, types=BEARER_TYPES, now=now)
    return _with_directory(verified_identity(claims), issuer, claims)


def begin(issuer: IdentityProvider, metadata: ProviderMetadata, redirect_uri: str) -> AuthorizationRequest:
    """Begin the authorization code flow with PKCE (RFC 7636, S256 only).

    The calling function binds state, nonce and verifier to this browser, and later compares the returned state.
    """
    if issuer.client_id is None or metadata.authorization_endpoint is None:
        raise NotSignedIn(NO_BROWSER)
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    digest = hashlib.sha256(verifier.encode()).digest()
    asked = {
        "response_type": "code",
        "client_id": issuer.client_id,
        "redirect_uri": redirect_uri,
        "scope": SCOPE,
        "state": state,
        "nonce": nonce,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    url = httpx.URL(metadata.authorization_endpoint).copy_merge_params(asked)
    return AuthorizationRequest(str(url), state=state, nonce=nonce, verifier=verifier)


def finish(
    issuers: IdentityProviders,
    issuer: IdentityProvider,
    *,
    code: str,
    verifier: str,
    nonce: str,
    redirect_uri: str,
    now: datetime,
    answered_by: str | None = None,
) -> VerifiedIdentity:
    """Exchange the returned code for an ID token, and return its identity.

    `redirect_uri` must equal the one passed to `begin`. `answered_by` is the parameter `iss` next to the code
    (RFC 9207), if any.
    """
    if issuer.client_id is None:
        raise NotSignedIn(NO_BROWSER)
    expects_name = issuers.metadata(issuer).names_itself
    if answered_by != issuer.issuer and (expects_name or answered_by is not None):
        raise NotSignedIn(NOT_COMPLETED)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier, "redirect_uri": redirect_uri}
    token = _exchange(issuers, issuer, issuer.client_id, form)
    claims = _claims(
        parse(token),
        issuer,
        issuers,
        audience=issuer.client_id,
        types=ID_TOKEN_TYPES,
        now=now,
        clients=ID_TOKEN_CLIENTS,
    )
    if claims.get("nonce") != nonce or claims.get("azp", issuer.client_id) != issuer.client_id:
        raise NotSignedIn(NOT_COMPLETED)
    return _with_directory(verified_identity(claims), issuer, claims)


def _exchange(issuers: IdentityProviders, issuer: IdentityProvider, client_id: str, form: dict[str, str]) -> str:
    """Exchange a code for an ID token, by client_secret_basic (RFC 6749 section 2.3.1) or as a public client."""
    authorization = None
    if issuer.client_secret is None:
        form = form | {"client_id": client_id}
    else:
        pair = f"{quote_plus(client_id)}:{quote_plus(issuer.client_secret.get_secret_value())}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    try:
        token = read_object(issuers.exchange(issuer, form, authorization)).get("id_token")
    except FetchFailed as failed:
        if failed.status == httpx.codes.BAD_REQUEST:
            raise NotSignedIn(NOT_COMPLETED) from None
        log.warning("oidc.exchange_failed", issuer=issuer.issuer, reason=failed.reason)
        raise ProviderUnavailable(issuer, failed) from None
    if not isinstance(token, str):
        raise NotSignedIn(NOT_COMPLETED)
    return token


def parse(token: str) -> UnverifiedToken:
    if len(token) > MOST_TOKEN_BYTES:
        raise NotSignedIn(NOT_ACCEPTED)
    try:
        shown = jws.extract_compact(token.encode("ascii"), None, SignatureRegistry())
        header, claims = shown.headers(), json.loads(shown.payload, object_pairs_hook=_distinct)
    except MALFORMED:
        raise NotSignedIn(NOT_ACCEPTED) from None
    # No extension of RFC 7515 section 4.1.11 is supported, and RFC 7797 section 7 keeps b64 out of JWTs.
    if not isinstance(header, dict) or not isinstance(claims, dict) or "crit" in header or "b64" in header:
        raise NotSignedIn(NOT_ACCEPTED)
    name = claims.get("iss")
    return UnverifiedToken(token, header, name if isinstance(name, str) else None)


def _distinct(members: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(members)
    if len(named) < len(members):
        raise ValueError("a name is repeated")
    return named


def key_id(shown: UnverifiedToken, issuer: IdentityProvider, types: frozenset[str]) -> str | None:
    kid, kind = shown.header.get("kid"), str(shown.header.get("typ", "jwt")).lower().removeprefix("application/")
    if not isinstance(kid, str | None) or kind not in types or shown.header.get("alg") not in issuer.algorithms:
        raise NotSignedIn(NOT_ACCEPTED)
    return kid


def verified_claims(
    shown: UnverifiedToken,
    issuer: IdentityProvider,
    keys: KeySet,
    *,
    audience: str,
    now: datetime,
    longest: int = MOST_LIFE_SECONDS,
    clients: Sequence[str] = BEARER_CLIENTS,
) -> dict[str, Any]:
    """Return the claims of a token that one of these keys signed for that audience and that is valid now.

    The function `key_id` has checked the header. `longest` is the longest accepted lifetime in seconds. `clients`
    lists the claims that can name the client to which the token was issued. Raises UnexplainedSignature.
    """
    rules = Claims(
        now=int(now.timestamp()),
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer.issuer},
        aud={"essential": True, "value": audience},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    )
    registry = SignatureRegistry(algorithms=issuer.algorithms, strict_check_header=False)
    try:
        claims = jwt.decode(shown.text, keys, registry=registry).claims
        rules.validate(claims)
    except OTHER_KEY:
        raise UnexplainedSignature(NOT_ACCEPTED) from None
    except ExpiredTokenError:
        raise NotSignedIn(EXPIRED) from None
    except MALFORMED:
        raise NotSignedIn(NOT_ACCEPTED) from None
    ours, client = issuer.client_id or audience, client_of(claims, clients)
    is_ours = claims["aud"] in (ours, [ours]) if client is None else client in (ours, audience)
    if not is_ours and client not in issuer.authorized_parties:
        raise NotSignedIn(NOT_ACCEPTED)
    if claims["exp"] - claims["iat"] > longest:
        raise NotSignedIn(TOO_LONG.format(longest=_duration(longest)))
    if NEVER_BEARERS & claims.keys():
        raise NotSignedIn(NOT_ACCEPTED)
    return claims


def client_of(claims: Mapping[str, Any], named_by: Sequence[str] = BEARER_CLIENTS) -> str | None:
    named = [claims[name] for name in named_by if name in claims]
    if any(not isinstance(one, str) or one != named[0] for one in named):
        raise NotSignedIn(NOT_ACCEPTED)
    return named[0] if named else None


def _duration(seconds: int) -> str:
    return f"{seconds // 3600} hours" if seconds % 3600 == 0 else f"{seconds} seconds"


def _claims(
    shown: UnverifiedToken,
    issuer: IdentityProvider,
    issuers: IdentityProviders,
    *,
    audience: str,
    types: frozenset[str],
    now: datetime,
    clients: Sequence[str] = BEARER_CLIENTS,
) -> dict[str, Any]:
    kid = key_id(shown, issuer, types)
    keys = issuers.keys(issuer, kid)
    try:
        return verified_claims(shown, issuer, keys, audience=audience, now=now, clients=clients)
    except UnexplainedSignature:
        newer = issuers.newer_keys(issuer, keys) if has_key(keys, kid) else None
    if newer is None:
        raise NotSignedIn(NOT_ACCEPTED)
    return verified_claims(shown, issuer, newer, audience=audience, now=now, clients=clients)


def verified_identity(claims: Mapping[str, Any]) -> VerifiedIdentity:
    subject, at = claims["sub"], claims.get("auth_time", claims["iat"])
    if not 1 <= len(subject) <= LONGEST_SUBJECT or not subject.isprintable() or at < 0:
        raise NotSignedIn(NOT_ACCEPTED)
    name, email, methods = claims.get("name"), claims.get("email"), claims.get("amr")
    is_verified = claims.get("email_verified") is True and isinstance(email, str) and ADDRESS.fullmatch(email)
    words = [word for word in methods if isinstance(word, str)] if isinstance(methods, list) else []
    return VerifiedIdentity(
        issuer=claims["iss"],
        subject=subject,
        authenticated_at=datetime.fromtimestamp(at, UTC),
        name=(_printable(name)[:LONGEST_NAME] or None) if isinstance(name, str) else None,
        email=email if is_verified else None,
        methods=tuple(map(_printable, words)),
    )


def _with_directory(
    identity: VerifiedIdentity, issuer: IdentityProvider, claims: Mapping[str, Any]
) -> VerifiedIdentity:
    asked = issuer.directory_claims
    if not any(asked.values()):
        return identity
    said = {name: claims.get(claim) if claim else None for name, claim in asked.items()}
    entity = said["employing_entity"]
    entry = DirectoryEntry(
        (_printable(entity)[:LONGEST_ENTITY] or None) if isinstance(entity, str) else None,
        _country(said["office_country"]),
        _country(said["physical_country"]),
    )
    return replace(identity, directory=entry, issued_at=datetime.fromtimestamp(claims["iat"], UTC))


def _country(said: object) -> str | None:
    code = said.strip().upper() if isinstance(said, str) else ""
    return code if code in COUNTRIES else None


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable()).strip()
