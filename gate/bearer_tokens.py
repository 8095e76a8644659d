"""Verify the tokens of gated calls, and remember verified tokens for at most a minute."""

import asyncio
import hashlib
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from joserfc.jwk import KeySet

from catalogue.issuers import IdentityProvider
from gate.call import in_time
from lockbox.errors import Busy, NotSignedIn
from lockbox.identity import oidc
from lockbox.identity.oidc import BEARER_TYPES, MOST_LIFE_SECONDS, UnexplainedSignature, UnverifiedToken
from lockbox.identity.oidc_providers import UNREACHABLE, WAIT_SECONDS, IdentityProviders, has_key

REMEMBERED_SECONDS = 60.0
MOST_REMEMBERED = 20_000
MOST_WAITING_CALLS = 64
"""How many calls wait for one issuer's keys at once; further calls are refused as busy."""
MOST_VERIFIED_TOGETHER = 256
"""How many tokens wait for their verification at once; further tokens are refused as busy."""
THREADS = 2
NOT_OF_THIS_PARTY = (
    "The token was issued to a client that is not set up here; use one that was issued to a client that is."
)
NOT_ASCII = "The token was not accepted: it holds characters that no token has."
OVERLOADED = "Too many tokens are being verified; try again in a moment."


@dataclass(frozen=True)
class GateIssuer:
    """`longest_seconds` bounds a token's `exp` - `iat`.

    With `vouches_for_mail`, the issuer's mail addresses identify people.
    """

    provider: IdentityProvider
    longest_seconds: int = MOST_LIFE_SECONDS
    vouches_for_mail: bool = False


@dataclass(frozen=True)
class VerifiedToken:
    """`email` is set only if the issuer vouches for addresses and has verified this address.

    `is_gated`: the service's gate applies to calls with these claims. `expires_at` is in seconds since 1970.
    """

    issuer: str
    subject: str
    email: str | None
    is_gated: bool
    expires_at: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class TokenRealm:
    service: str
    issuers: Mapping[str, GateIssuer]
    is_gated: Callable[[Mapping[str, Any]], bool]


class TokenMemory:
    """Verified tokens by service and SHA-256, until their issuer's keys change."""

    def __init__(
        self, issuers: IdentityProviders, *, clock: Callable[[], float], most: int = MOST_REMEMBERED
    ) -> None:
        self._issuers = issuers
        self._clock = clock
        self._most = most
        self._known = OrderedDict[tuple[str, bytes], tuple[VerifiedToken, IdentityProvider, KeySet, float]]()

    def find(self, key: tuple[str, bytes]) -> VerifiedToken | None:
        found = self._known.get(key)
        if found is None:
            return None
        token, provider, keys, until = found
        if self._clock() >= until or self._issuers.known_keys(provider) is not keys:
            del self._known[key]
            return None
        self._known.move_to_end(key)
        return token

    def keep(
        self, key: tuple[str, bytes], token: VerifiedToken, provider: IdentityProvider, keys: KeySet, seconds: float
    ) -> None:
        if seconds <= 0:
            return
        self._known[key] = token, provider, keys, self._clock() + min(seconds, REMEMBERED_SECONDS)
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)


class TokenVerifier:
    """Verifies tokens in threads for one event loop. A slow issuer delays only calls with its own tokens."""

    def __init__(
        self,
        issuers: IdentityProviders,
        now: Callable[[], datetime],
        *,
        clock: Callable[[], float] = time.monotonic,
        wait_seconds: float = WAIT_SECONDS,
        most: int = MOST_REMEMBERED,
    ) -> None:
        self._issuers = issuers
        self._now = now
        self._wait_seconds = wait_seconds
        self.memory = TokenMemory(issuers, clock=clock, most=most)
        self._threads = ThreadPoolExecutor(THREADS, "gate-tokens")
        self._waiting = Counter[str]()
        self._under_way = threading.BoundedSemaphore(MOST_VERIFIED_TOGETHER)

    def known(self, realm: TokenRealm, token: bytes) -> VerifiedToken | None:
        return self.memory.find((realm.service, hashlib.sha256(token).digest()))

    async def verified(self, realm: TokenRealm, token: bytes, ends: float | None = None) -> VerifiedToken:
        """Wait until `ends` at most.

        Raises:
            NotSignedIn: the token is malformed, forged, for another service or not valid now.
            Busy: the issuer's keys cannot be fetched, or too many tokens are being verified.
        """
        key = realm.service, hashlib.sha256(token).digest()
        if (known := self.memory.find(key)) is not None:
            return known
        try:
            return await in_time(self._verify(realm, token, key), ends)
        except TimeoutError:
            raise Busy(OVERLOADED) from None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _verify(self, realm: TokenRealm, token: bytes, key: tuple[str, bytes]) -> VerifiedToken:
        try:
            shown = oidc.parse(token.decode("ascii"))
        except UnicodeDecodeError:
            raise NotSignedIn(NOT_ASCII) from None
        issuer = realm.issuers.get(shown.issuer) if shown.issuer is not None else None
        if issuer is None:
            raise NotSignedIn(oidc.UNKNOWN_ISSUER)
        kid = oidc.key_id(shown, issuer.provider, BEARER_TYPES)
        keys = await self._keys(issuer.provider, self._issuers.fetch_for(issuer.provider, kid))
        try:
            claims = await self._claims(shown, issuer, keys)
        except UnexplainedSignature:
            if not has_key(keys, kid):
                raise
            newer = await self._keys(issuer.provider, self._issuers.fetch_newer(issuer.provider))
            if newer is keys:
                raise
            keys, claims = newer, await self._claims(shown, issuer, newer)
        identity = oidc.verified_identity(claims)
        email = identity.email if issuer.vouches_for_mail else None
        found = VerifiedToken(identity.issuer, identity.subject, email, realm.is_gated(claims), claims["exp"])
        self.memory.keep(key, found, issuer.provider, keys, claims["exp"] - self._now().timestamp())
        return found

    async def _keys(self, provider: IdentityProvider, fetching: Future[None] | None) -> KeySet:
        if fetching is not None:
            await self._wait(provider.issuer, fetching)
        keys = self._issuers.known_keys(provider)
        if keys is None:
            raise Busy(UNREACHABLE)
        return keys

    async def _wait(self, issuer: str, fetching: Future[None]) -> None:
        if self._waiting[issuer] >= MOST_WAITING_CALLS:
            raise Busy(UNREACHABLE)
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        fetching.add_done_callback(lambda _: None if loop.is_closed() else loop.call_soon_threadsafe(ended.set))
        self._waiting[issuer] += 1
        try:
            await asyncio.wait_for(ended.wait(), self._wait_seconds)
        except TimeoutError:
            raise Busy(UNREACHABLE) from None
        finally:
            self._waiting[issuer] -= 1

    async def _claims(self, shown: UnverifiedToken, issuer: GateIssuer, keys: KeySet) -> dict[str, Any]:
        if not self._under_way.acquire(blocking=False):
            raise Busy(OVERLOADED)
        try:
            check = partial(_checked, shown, issuer, keys, self._now())
            return await asyncio.get_running_loop().run_in_executor(self._threads, check)
        finally:
            self._under_way.release()


def _checked(shown: UnverifiedToken, issuer: GateIssuer, keys: KeySet, now: datetime) -> dict[str, Any]:
    provider, longest = issuer.provider, issuer.longest_seconds
    claims = oidc.verified_claims(shown, provider, keys, audience=provider.audience, now=now, longest=longest)
    if provider.authorized_parties and oidc.client_of(claims) not in provider.authorized_parties:
        raise NotSignedIn(NOT_OF_THIS_PARTY)
    return claims
