"""Metadata and keys of identity providers, fetched and cached, and calls to their token endpoints.

A document that cannot be used raises FetchFailed.
"""

import functools
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args

import httpx
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwa import EdDSAAlgorithm
from joserfc.jwk import Key, KeySet, import_key
from joserfc.util import urlsafe_b64decode

from catalogue.issuers import Algorithm, IdentityProvider
from config.outbound import OutboundRoute
from lockbox.errors import Busy
from lockbox.safe_http import NO_WAY_ASIDE, SECONDS, FetchFailed, FetchFailure, fetch

log = structlog.get_logger(__name__)

MOST_EXCHANGES = 4
MOST_EXCHANGES_TOGETHER = 8
MOST_WAITING = 4
"""How many calls may wait for keys and metadata of all providers: a fifth of the API's concurrent calls."""
WAIT_SECONDS = 2.0
"""How long a call waits for keys or metadata; the fetch continues for the next call."""
RENEW_SECONDS = 3600.0
KEEP_SECONDS = 24 * 3600.0
PAUSE_SECONDS = 60.0
COLD_PAUSE_SECONDS = 5.0
MOST_FETCHES = 8
DISCOVERY = "/.well-known/openid-configuration"
UNREACHABLE = "The identity provider cannot be reached; try again in a moment."
PUBLIC_MEMBERS = ("kty", "kid", "use", "alg", "key_ops", "n", "e", "crv", "x", "y")
CURVES = {"EC": {"P-256", "P-384", "P-521"}, "OKP": {"Ed25519"}}
RSA_BITS = range(2048, 8193)
# joserfc warns at each use that RFC 9864 renamed this algorithm; providers still use the old name.
EDDSA = EdDSAAlgorithm()
EDDSA.security_warning = ""
T = TypeVar("T")


class CachedFetch(Generic[T]):
    """A value that is fetched and cached. Threads share it; each fetch runs in its own thread.

    `clock` returns seconds. `places` limits how many calls wait at once, and may be shared with other cached values.
    `get`, `in_background` and `again` raise FetchFailed if they have no value.
    """

    def __init__(
        self,
        load: Callable[[], T],
        *,
        name: str,
        clock: Callable[[], float],
        wait_seconds: float,
        places: threading.BoundedSemaphore | None = None,
    ) -> None:
        self._load = load
        self._name = name
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._waiting = places or threading.BoundedSemaphore(MOST_FETCHES)
        self._under_way: Future[None] | None = None
        self._value: T | None = None
        self._failure = FetchFailed("nothing usable is kept")
        self._loaded_at = self._failed_at = self._asked_again_at = float("-inf")

    def due(self) -> Future[None] | None:
        """Begin a fetch if the value needs one; return the fetch if no value can be served until it ends."""
        since_failure = self._clock() - self._failed_at
        if self.usable() is None:
            return self._fetch() if since_failure >= COLD_PAUSE_SECONDS else None
        if self._clock() - self._loaded_at >= RENEW_SECONDS and since_failure >= PAUSE_SECONDS:
            self._fetch()
        return None

    def renewal(self) -> Future[None] | None:
        """Begin and return one more fetch, at most once a minute; otherwise return the fetch under way, if any."""
        with self._lock:
            is_due = self._clock() - self._asked_again_at >= PAUSE_SECONDS
            if is_due:
                self._asked_again_at = self._clock()
            fetching = self._under_way
        return self._fetch() if is_due else fetching

    def usable(self) -> T | None:
        """Return the cached value, None if there is no value or it is too old."""
        with self._lock:
            return self._value if self._clock() - self._loaded_at < KEEP_SECONDS else None

    def get(self) -> T:
        """Return the cached value; wait for a fetch if there is no usable value."""
        self._wait(self.due())
        return self._present()

    def in_background(self, seconds: float) -> T:
        """Wait at most `seconds` for a fetch. For background threads."""
        fetching = self.due()
        if fetching is not None:
            with suppress(TimeoutError):
                fetching.result(timeout=seconds)
        return self._present()

    def again(self) -> T:
        """Return the value after one more fetch; at most one such fetch begins per minute."""
        self._wait(self.renewal())
        return self.get()

    def _present(self) -> T:
        value = self.usable()
        if value is None:
            raise FetchFailed(self._failure.reason, trouble=self._failure.trouble)
        return value

    def _fetch(self) -> Future[None]:
        with self._lock:
            if self._under_way is None:
                done: Future[None] = Future()
                threading.Thread(target=self._run, args=(done,), name=f"fetch {self._name}", daemon=True).start()
                self._under_way = done
            return self._under_way

    def _wait(self, fetching: Future[None] | None) -> None:
        if fetching is None:
            return
        if not self._waiting.acquire(blocking=False):
            raise FetchFailed("too many calls are waiting", trouble=FetchFailure.BUSY)
        try:
            fetching.result(timeout=self._wait_seconds)
        except TimeoutError:
            raise FetchFailed("it took too long", trouble=FetchFailure.TIME) from None
        finally:
            self._waiting.release()

    def _run(self, done: Future[None]) -> None:
        value, failed = None, True
        try:
            value, failed = self._load(), False
        except FetchFailed as error:
            self._failure = error
            log.warning("oidc.fetch_failed", name=self._name, reason=error.reason)
        finally:
            with self._lock:
                self._under_way = None
                if failed:
                    self._failed_at = self._clock()
                else:
                    self._value, self._loaded_at = value, self._clock()
            done.set_result(None)


class SignatureRegistry(jws.JWSRegistry):
    """joserfc's registry without the algorithm `none` and without shared secrets."""

    algorithms = {name: jws.JWSRegistry.algorithms[name] for name in get_args(Algorithm)}  # noqa: RUF012 - as in joserfc
    recommended = []  # noqa: RUF012 - likewise
    max_header_length = 2048
    max_signature_length = 2048


SignatureRegistry.algorithms["EdDSA"] = EDDSA


@dataclass(frozen=True)
class ProviderMetadata:
    """OpenID Connect Discovery 1.0 section 3. An endpoint is None if the provider lacks it.

    `names_itself`: whether the provider adds `iss` to its redirect (RFC 9207).
    """

    jwks_url: str | None
    authorization_endpoint: str | None
    token_endpoint: str | None
    names_itself: bool


class ProviderUnavailable(Busy):
    """`trouble` says why; the error message says only that the provider cannot be reached."""

    def __init__(self, issuer: IdentityProvider, failed: FetchFailed) -> None:
        super().__init__(UNREACHABLE)
        self.issuer = issuer
        self.trouble = failed.trouble


class IdentityProviders:
    """One object per process, shared by its threads. Methods that fetch raise Busy."""

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
        return self._configured.get(name)

    def metadata(self, issuer: IdentityProvider) -> ProviderMetadata:
        try:
            return self._metadata[issuer.issuer].get()
        except FetchFailed as error:
            raise ProviderUnavailable(issuer, error) from error

    def keys(self, issuer: IdentityProvider, kid: str | None) -> KeySet:
        """Return the provider's keys; if the key id is unknown, fetch them again, at most once a minute."""
        kept = self._keys[issuer.issuer]
        try:
            was_empty = kept.usable() is None
            keys = kept.get()
            return keys if was_empty or has_key(keys, kid) else kept.again()
        except FetchFailed as error:
            raise ProviderUnavailable(issuer, error) from error

    def fetch_for(self, issuer: IdentityProvider, kid: str | None) -> Future[None] | None:
        """Return the fetch that may bring a key with this id; None if no wait is needed."""
        kept = self._keys[issuer.issuer]
        fetching, keys = kept.due(), kept.usable()
        return fetching if fetching or keys is None or has_key(keys, kid) else kept.renewal()

    def fetch_newer(self, issuer: IdentityProvider) -> Future[None] | None:
        return self._keys[issuer.issuer].renewal()

    def known_keys(self, issuer: IdentityProvider) -> KeySet | None:
        """Return the cached keys, if any, without waiting; the same object is returned until the keys change."""
        return self._keys[issuer.issuer].usable()

    def newer_keys(self, issuer: IdentityProvider, keys: KeySet) -> KeySet | None:
        """Return the keys after one more fetch (at most one a minute), None if `keys` is still the newest set.

        A provider may replace a key and keep its id.
        """
        try:
            newest = self._keys[issuer.issuer].again()
        except FetchFailed as error:
            raise ProviderUnavailable(issuer, error) from error
        return None if newest is keys else newest

    def exchange(self, issuer: IdentityProvider, form: Mapping[str, str], authorization: str | None) -> bytes:
        """Return the answer of the provider's token endpoint; raises FetchFailed if the endpoint refuses or fails."""
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
            # A tenant controls its own provider and the addresses in the provider's metadata.
            route=self._route if issuer.tenant is None else self._route.to_tenants,
        )


def read_metadata(document: bytes, issuer: IdentityProvider) -> ProviderMetadata:
    """Read a discovery document; its `issuer` must be this provider (OpenID Connect Discovery 1.0 section 4.3)."""
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
    """Read a JWK Set (RFC 7517 section 5), leaving out entries that are not valid public signing keys."""
    listed = read_object(document).get("keys")
    if not isinstance(listed, list):
        raise FetchFailed("its keys are no JWK Set")
    return KeySet([key for entry in listed if (key := _public_key(entry)) is not None])


def has_key(keys: KeySet, kid: str | None) -> bool:
    return kid is None or any(key.kid == kid for key in keys)


def read_object(document: bytes) -> dict[str, Any]:
    try:
        read = json.loads(document)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise FetchFailed("it answered no JSON object")
    return read


def _public_key(entry: Any) -> Key | None:  # noqa: ANN401 - any JSON value
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
