"""Authenticate gateways by their tokens. A token's result is remembered for at most five seconds."""

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from gate import window_checks
from gate.answers import GateReason
from gate.call import in_time
from gate.dialects import Dialect
from gate.window_checks import FailureLog, GroupedCalls
from gate.window_memory import BOOT_CLOCK
from lockbox.database import UnitOfWork
from lockbox.errors import Busy, NotSignedIn
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role, Scope

KEPT_SECONDS, RENEWED_SECONDS = 5.0, 2.5
MOST_KEPT = 10_000
MOST_STRANGERS = 8


@dataclass(frozen=True, slots=True)
class GatewayCredential:
    token_id: UUID
    account_id: UUID
    services: frozenset[str]
    dialect: Dialect


class GatewayCredentials:
    """The valid and invalid tokens that gateways have sent, by a keyed digest, for one event loop.

    Only a few unknown tokens are looked up at once, so that a flood of unknown tokens delays no gateway.
    """

    def __init__(self, calls: GroupedCalls, environment: str) -> None:
        self._calls = calls
        self._environment = environment
        self._key = os.urandom(32)
        self._good = OrderedDict[bytes, tuple[float, GatewayCredential]]()
        self._bad = OrderedDict[bytes, float]()
        self._asked: dict[bytes, asyncio.Task[GatewayCredential | GateReason]] = {}
        self._strangers = 0
        self._failures = FailureLog("gate.authentication_failed")

    async def find(self, shown: bytes, ends: float | None = None) -> GatewayCredential | GateReason:
        """Never raises, and waits until `ends` at most."""
        digest = hashlib.blake2b(shown, key=self._key, digest_size=16).digest()
        at, good = BOOT_CLOCK(), self._good.get(digest)
        if good is not None and at < good[0]:
            if at > good[0] - RENEWED_SECONDS and digest not in self._asked:
                self._begin(digest, shown, is_stranger=False)
            return good[1]
        if at < self._bad.get(digest, 0.0):
            return GateReason.NO_CREDENTIAL
        asked = self._asked.get(digest)
        if asked is None:
            if good is None and self._strangers >= MOST_STRANGERS:
                return GateReason.BUSY
            asked = self._begin(digest, shown, is_stranger=good is None)
        try:
            return await in_time(asyncio.shield(asked), ends)
        except TimeoutError:
            return GateReason.BEHIND

    def _begin(
        self, digest: bytes, shown: bytes, *, is_stranger: bool
    ) -> asyncio.Task[GatewayCredential | GateReason]:
        asked = self._asked[digest] = asyncio.create_task(self._ask(digest, shown))
        self._strangers += is_stranger

        def end(_: object) -> None:
            self._asked.pop(digest, None)
            self._strangers -= is_stranger

        asked.add_done_callback(end)
        return asked

    def forget(self, ids: Iterable[str]) -> None:
        gone = frozenset(ids)
        for digest, (_, credential) in list(self._good.items()):
            if str(credential.token_id) in gone:
                self._good[digest] = (0.0, credential)

    async def _ask(self, digest: bytes, shown: bytes) -> GatewayCredential | GateReason:
        began = BOOT_CLOCK()
        try:
            async with asyncio.timeout(window_checks.ASK_SECONDS):
                caller = await self._calls.run(partial(_authenticate, shown.decode("latin-1"), self._environment))
        except NotSignedIn:
            found = None
        except (Busy, TimeoutError) as busy:
            return GateReason.BUSY if isinstance(busy, Busy) else GateReason.BEHIND
        except Exception as error:  # noqa: BLE001 - any error means a refusal
            self._failures.note(error)
            return GateReason.BEHIND
        else:
            found = _credential(caller)
        self._good.pop(digest, None)
        self._bad.pop(digest, None)
        if found is None:
            self._bad[digest] = began + KEPT_SECONDS
        else:
            self._good[digest] = (began + KEPT_SECONDS, found)
        for kept in (self._good, self._bad):
            if len(kept) > MOST_KEPT:
                kept.popitem(last=False)
        return found or GateReason.NO_CREDENTIAL


def _authenticate(shown: str, environment: str, session: UnitOfWork) -> Caller:
    return authentication.authenticate_token(session, shown, environment=environment)


def _credential(caller: Caller) -> GatewayCredential | None:
    dialect = Scope(next(iter(caller.scopes))).dialect if len(caller.scopes) == 1 else None
    if not caller.holds(Role.SYSTEM) or dialect is None or caller.key_id is None:
        return None
    return GatewayCredential(caller.key_id, caller.person_id, caller.services, Dialect(dialect))
