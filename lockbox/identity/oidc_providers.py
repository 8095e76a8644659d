"""Fetch and cache identity providers' metadata and keys, and call their token endpoints."""

import functools
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, get_args

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwa import EdDSAAlgorithm
from joserfc.jwk import Key, KeySet, import_key
from joserfc.util import urlsafe_b64decode

from catalogue.issuers import Algorithm, IdentityProvider
from config.outbound import OutboundRoute
from lockbox.errors import Busy
from lockbox.identity.cached_fetch import CachedFetch
from lockbox.safe_http import NO_WAY_ASIDE, SECONDS, FetchFailed, fetch

MOST_EXCHANGES = 4
MOST_EXCHANGES_TOGETHER = 8
MOST_WAITING = 4
"""How many calls may wait for keys and metadata of all providers: a fifth of the API's concurrent calls."""
WAIT_SECONDS = 2.0
"""How long a call waits for them; the fetch continues for the next one."""
DISCOVERY = "/.well-known/openid-configuration"
UNREACHABLE = "The identity provider cannot be reached; try again in a moment."
PUBLIC_MEMBERS = ("kty", "kid", "use", "alg", "key_ops", "n", "e", "crv", "x", "y")
CURVES = {"EC": {"P-256", "P-384", "P-521"}, "OKP": {"Ed25519"}}
RSA_BITS = range(2048, 8193)
# joserfc warns at each use that RFC 9864 renamed this algorithm; providers still use the old name.
EDDSA = EdDSAAlgorithm()
EDDSA.security_warning = ""


class SignatureRegistry(jws.JWSRegistry):
    """The signature algorithms for providers: joserfc's registry without `none` and shared secrets."""

    algorithms = {name: jws.JWSRegistry.algorithms[name] for name in get_args(Algorithm)}  # noqa: RUF012 - as there
    recommended = []  # noqa: RUF012 - likewise
    max_header_length = 2048
    max_signature_length = 2048


SignatureRegistry.algorithms["EdDSA"] = EDDSA


@dataclass(frozen=True)
class ProviderMetadata:
    """A provider's metadata (OpenID Connect Discovery 1.0 section 3); an endpoint that it lacks is None.

    `names_itself` is whether it adds `iss` to its redirect (RFC 9207).
    """

    jwks_url: str | None
    authorization_endpoint: str | None
    token_endpoint: str | None
    names_itself: bool


class ProviderUnavailable(Busy):
    """A provider cannot be used now: `trouble` says why. What callers read says no more than that."""

    def __init__(self, issuer: IdentityProvider, failed: FetchFailed) -> None:
        super().__init__(UNREACHABLE)
        self.issuer = issuer
        self.trouble = failed.trouble


class IdentityProviders:
    """The configured identity providers with their metadata and keys: one object a process, shared by its threads."""

    def __init__(
        self,
        configured: Iterable[IdentityProvider],
        *,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        tls: ssl.SSLContext | None = None,
        route: OutboundRoute = NO_WAY_ASIDE,
    ) -> None:
        places = threading.BoundedSemaphore(MOST_WAITING)
        self._configured = {issuer.issuer: issuer for issuer in configured}
        self._seconds = seconds
        self._tls = tls
        self._route = route
        self._metadata: dict[str, CachedFetch[ProviderMetadata]] = {}
        self._keys: dict[str, CachedFetch[KeySet]] = {}
        for name, issuer in self._configured.items():
            kept = functools.partial(CachedFetch, name=name, clock=clock, wait_seconds=wait_seconds, places=places)
            self._metadata[name] = kept(functools.partial(self._load_metadata, issuer))
            self._keys[name] = kept(functools.partial(self._load_keys, issuer))
        self._exchanging = threading.BoundedSemaphore(MOST_EXCHANGES_TOGETHER)
        self._exchanges = {name: threading.BoundedSemaphore(MOST_EXCHANGES) for name in self._configured}

    def configured(self, name: str) -> IdentityProvider | None:
        """Return the provider with exactly this `iss`, if it is configured."""
        return self._configured.get(name)

    def metadata(self, issuer: IdentityProvider) -> ProviderMetadata:
        """Return the provider's metadata.

        Raises:
            Busy: it is not known yet and cannot be fetched.
        """
        try:
            return self._metadata[issuer.issuer].get()
        except FetchFailed as error:
            raise ProviderUnavailable(issuer, error) from error

    def keys(self, issuer: IdentityProvider, kid: str | None) -> KeySet:
        """Return the provider's keys; for an unknown key id they are fetched again, at most once a minute.

        Raises:
            Busy: they are not known yet and cannot be fetched, or too many calls wait for them.
        """
        kept = self._keys[issuer.issuer]
        try:
            was_empty = kept.usable() is None
            keys = kept.get()
            return keys if was_empty or has_key(keys, kid) else kept.again()
        except FetchFailed as error:
            raise ProviderUnavailable(issuer, error) from error

    def fetch_for(self, issuer: IdentityProvider, kid: str | None) -> Future[None] | None:
        """Return the fetch to wait for before a key of that id can be found, None if there is nothing to wait for.

        Like `keys`, for those that wait on an event loop: the fetch has begun, and `known_keys` serves its result.
        """
        kept = self._keys[issuer.issuer]
        fetching, keys = kept.due(), kept.usable()
        return fetching if fetching or keys is None or has_key(keys, kid) else kept.renewal()

    def fetch_newer(self, issuer: IdentityProvider) -> Future[None] | None:
        """Return one more fetch to wait for, at most one a minute; like `newer_keys` on an event loop."""
        return self._keys[issuer.issuer].renewal()

    def known_keys(self, issuer: IdentityProvider) -> KeySet | None:
        """Return the provider's keys if they are known, without waiting; the same object until they change."""
        return self._keys[issuer.issuer].usable()

    def newer_keys(self, issuer: IdentityProvider, keys: KeySet) -> KeySet | None:
        """Return the provider's keys after one more fetch, at most one a minute, or None if these are the newest.

        For a signature that these keys do not explain: a provider may rotate a key and keep its id.

        Raises:
            Busy: too many calls wait for the fetch, or it takes too long.
        """
        try:
            newest = self._keys[issuer.issuer].again()
        except FetchFailed as error:
            raise ProviderUnavailable(issuer, error) from error
        return None if newest is keys else newest

    def exchange(self, issuer: IdentityProvider, form: Mapping[str, str], authorization: str | None) -> bytes:
        """Return the answer of the provider's token endpoint; a few calls at a time for each provider and for all.

        Raises:
            Busy: the issuer has no token endpoint that is known, or too many calls are under way.
            FetchFailed: the endpoint refused or failed.
        """
        endpoint, place = self.metadata(issuer).token_endpoint, self._exchanges[issuer.issuer]
        if endpoint is None or not place.acquire(blocking=False):
            raise Busy(UNREACHABLE)
        try:
            if not self._exchanging.acquire(blocking=False):
                raise Busy(UNREACHABLE)
            try:
                return self._fetch(issuer, endpoint, form=form, authorization=authorization)
            finally:
                self._exchanging.release()
        finally:
            place.release()

    def _load_metadata(self, issuer: IdentityProvider) -> ProviderMetadata:
        return read_metadata(self._fetch(issuer, issuer.issuer.rstrip("/") + DISCOVERY), issuer)

    def _load_keys(self, issuer: IdentityProvider) -> KeySet:
        url = issuer.jwks_url or self._metadata[issuer.issuer].in_background(self._seconds + 1).jwks_url
        if url is None:
            raise FetchFailed("it names no address of its keys")
        keys, known = read_keys(self._fetch(issuer, url)), self.known_keys(issuer)
        return known if known is not None and known.as_dict() == keys.as_dict() else keys

    def _fetch(
        self,
        issuer: IdentityProvider,
        url: str,
        form: Mapping[str, str] | None = None,
        authorization: str | None = None,
    ) -> bytes:
        return fetch(
            url,
            seconds=self._seconds,
            allow_loopback=issuer.is_on_loopback,
            form=form,
            authorization=authorization,
            tls=self._tls,
            # A tenant's own provider is the tenant's, and what its metadata names too.
            route=self._route if issuer.tenant is None else self._route.to_tenants,
        )


def read_metadata(document: bytes, issuer: IdentityProvider) -> ProviderMetadata:
    """Read a discovery document, which must be the provider's own (OpenID Connect Discovery 1.0 section 4.3).

    Raises:
        FetchFailed: it is not, or it is no JSON object.
    """
    said = read_object(document)
    if said.get("issuer") != issuer.issuer:
        raise FetchFailed("its discovery document is another issuer's")
    schemes = {"https", "http"} if issuer.is_plain_http else {"https"}
    urls = {name: url for name, url in said.items() if isinstance(url, str) and _scheme(url) in schemes}
    return ProviderMetadata(
        jwks_url=urls.get("jwks_uri"),
        authorization_endpoint=urls.get("authorization_endpoint"),
        token_endpoint=urls.get("token_endpoint"),
        names_itself=said.get("authorization_response_iss_parameter_supported") is True,
    )


def _scheme(url: str) -> str:
    try:
        return httpx.URL(url).scheme if httpx.URL(url).host else ""
    except httpx.InvalidURL:
        return ""


def read_keys(document: bytes) -> KeySet:
    """Read a JWK Set (RFC 7517 section 5); entries that are no valid public signing keys are skipped.

    Raises:
        FetchFailed: it is no JWK Set.
    """
    listed = read_object(document).get("keys")
    if not isinstance(listed, list):
        raise FetchFailed("its keys are no JWK Set")
    return KeySet([key for entry in listed if (key := _public_key(entry)) is not None])


def has_key(keys: KeySet, kid: str | None) -> bool:
    """Return whether there is a key of this id; without an id, any key may be meant."""
    return kid is None or any(key.kid == kid for key in keys)


def read_object(document: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FetchFailed: it is something else.
    """
    try:
        read = json.loads(document)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise FetchFailed("it answered no JSON object")
    return read


def _public_key(entry: Any) -> Key | None:  # noqa: ANN401 - whatever the issuer wrote
    if not isinstance(entry, dict) or "d" in entry or entry.get("use", "sig") != "sig":
        return None
    try:
        if entry["kty"] == "RSA":
            # Before the import: joserfc only warns of a short key instead of refusing it.
            good = int.from_bytes(urlsafe_b64decode(entry["n"].encode())).bit_length() in RSA_BITS
        else:
            good = entry["crv"] in CURVES[entry["kty"]]
        return import_key({name: entry[name] for name in PUBLIC_MEMBERS if name in entry}) if good else None
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError):
        return None
