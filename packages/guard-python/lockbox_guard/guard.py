"""Decisions about calls: from memory, which the change stream keeps, or by asking Lockbox once."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from uuid import UUID

from lockbox_guard.activity import METHOD
from lockbox_guard.connection import GuardToken, LockboxAddress
from lockbox_guard.database_clock import BOOT_CLOCK
from lockbox_guard.decisions import Allowed, NoAccess, Refused, Use
from lockbox_guard.remote import AUTHORIZATION, BEHIND, CallerProof, proof_of
from lockbox_guard.running_guard import RunningGuard
from lockbox_guard.watches import CallWatch

ANSWER_SECONDS = 8.0
"""Longer than the guard's thread ever takes. If the thread has died, the call is refused."""

Caller = CallerProof | UUID | str
"""The proof that a call shows, the engineer's id, or the reason why neither is known."""


class Guard:
    """The guard of a service: one for each process, for all its threads and event loops.

    It refuses whenever it cannot know: before it first hears from Lockbox, and from three seconds after it last did.
    """

    def __init__(
        self,
        url: str,
        *,
        service: str,
        token_file: Path | str | None = None,
        ca_file: Path | str | None = None,
        engineer_header: str | None = None,
        reports_token_file: Path | str | None = None,
        clock: Callable[[], float] = BOOT_CLOCK,
    ) -> None:
        """The guard begins to read the change stream with the first check, or with `start`.

        Args:
            url: the address of Lockbox: https, or http on this machine.
            service: the service in Lockbox's catalogue, for checks that name no other.
            token_file: holds a token with the scope `gate:guard`; without it, LOCKBOX_GUARD_TOKEN is the token.
            ca_file: certificates that verify Lockbox's, instead of the system's.
            engineer_header: the catalogue's `engineer_header`, for checks with `subject`.
            reports_token_file: holds a token with the scope `activity:report`, for `report` and for uses.
            clock: returns seconds, and continues while the machine sleeps.

        Raises:
            ValueError: the address is not accepted, or there is no token.
        """
        self._address = LockboxAddress(url, Path(ca_file) if ca_file else None)
        self._credential = GuardToken(Path(token_file) if token_file else None)
        self._credential.read()
        self._reports_token = GuardToken(Path(reports_token_file)) if reports_token_file else None
        self._service = service
        self._engineer_header = engineer_header and engineer_header.lower()
        self._clock = clock
        self._starting = threading.Lock()
        self._running: RunningGuard | None = None

    def __repr__(self) -> str:
        return f"Guard({self._address.url!r}, service={self._service!r})"

    def start(self) -> RunningGuard:
        """Begin to read the stream in this process; a process that was forked from a reading one begins again."""
        running = self._running
        if running is None or running.pid != os.getpid():
            with self._starting:
                running = self._running
                if running is None or running.pid != os.getpid():
                    running = self._running = RunningGuard(
                        self._address, self._credential, self._clock, self._reports_token
                    )
        return running

    def stop(self) -> None:
        """End the thread and its connections. A later check begins again."""
        with self._starting:
            running, self._running = self._running, None
        if running is not None and running.pid == os.getpid():
            running.stop()

    def check(
        self,
        *,
        tenant: str,
        resource: str,
        action: str,
        service: str | None = None,
        token: str | None = None,
        subject: str | None = None,
        engineer: UUID | str | None = None,
    ) -> Allowed:
        """Return why this may be done now.

        Name the caller in one way: by the `token` that the call came with; by the `subject` under which your service
        knows the caller, if the catalogue allows that (`engineer_header`); or by the `engineer` that Lockbox knows.
        In an event loop use `check_async`, because `check` may block for seconds.

        Args:
            tenant: its slug.
            resource: as requests name it, such as `mailbox:anna@contoso.example`.
            action: one of the service's actions.
            service: a service other than the guard's.
            token: a JWT of an issuer of the catalogue, without `Bearer`.
            subject: the caller's subject in the identity map of this service account.
            engineer: Lockbox's id of an engineer that you have authenticated yourself.

        Raises:
            Refused: this may not be done; the error says why, and where to request access.
        """
        use = Use(tenant, service or self._service, resource, action)
        running = self.start()
        found = running.look(use, self._caller(token, subject, engineer))
        if isinstance(found, Future):
            try:
                found = found.result(ANSWER_SECONDS)
            except TimeoutError:
                found = BEHIND
        return _decided(running, found)

    async def check_async(
        self,
        *,
        tenant: str,
        resource: str,
        action: str,
        service: str | None = None,
        token: str | None = None,
        subject: str | None = None,
        engineer: UUID | str | None = None,
    ) -> Allowed:
        """Like `check`, without blocking the event loop."""
        use = Use(tenant, service or self._service, resource, action)
        running = self.start()
        found = running.look(use, self._caller(token, subject, engineer))
        if isinstance(found, Future):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    found = await asyncio.wrap_future(found)
            except TimeoutError:
                found = BEHIND
        return _decided(running, found)

    def watch(
        self,
        allowed: Allowed,
        *,
        drain_seconds: float = 0.0,
        on_change: Callable[[Allowed], object] = lambda _: None,
    ) -> CallWatch:
        """Return a watch that says, at any time, whether a call that was just allowed may continue.

        `drain_seconds` is how long the call may continue after its window ends. `on_change` is called with the new
        answer when the call continues under another window, such as an extension.
        """
        running = self.start()

        def changed(now: Allowed) -> None:
            if running.reports is not None:
                running.reports.add_use(now)
            on_change(now)

        return CallWatch(running.knowledge, allowed, self._clock, drain_seconds, changed)

    def report(self, allowed: Allowed, *, method: str, outcome: str = "served") -> None:
        """Report to the customer what was done by this access, without waiting; the report is sent within seconds.

        At most 10,000 kinds of actions are kept while Lockbox is away. `stop` sends what is left.

        Raises:
            ValueError: the method (such as GET) or the outcome (a lower-case word) is not accepted.
            TypeError: the guard has no `reports_token_file`.
        """
        reports = self.start().reports
        if reports is None:
            raise TypeError("give the guard a reports_token_file to report activity")
        reports.add(allowed, method, outcome)

    def report_call(self, allowed: Allowed, method: str, outcome: str = "served") -> None:
        """Report a whole call as middleware does, by its method or `OTHER`, if the guard reports at all."""
        if self._reports_token is not None:
            self.report(allowed, method=method if METHOD.fullmatch(method) else "OTHER", outcome=outcome)

    def _caller(self, token: str | None, subject: str | None, engineer: UUID | str | None) -> Caller:
        if sum(one is not None for one in (token, subject, engineer)) > 1:
            raise TypeError("say who calls in one way: by token, subject or engineer")
        if engineer is not None:
            return _uuid(engineer)
        if subject is not None:
            if self._engineer_header is None:
                raise TypeError("give the guard the catalogue's engineer_header to check by subject")
            return proof_of(self._engineer_header, subject) or "malformed"
        if not token:
            return "no_token"
        if token.split() != [token]:
            return "malformed"
        return proof_of(AUTHORIZATION, f"Bearer {token}") or "malformed"


def _uuid(engineer: UUID | str) -> UUID | str:
    try:
        return engineer if isinstance(engineer, UUID) else UUID(engineer)
    except ValueError:
        return "unknown_engineer"


def _decided(running: RunningGuard, found: Allowed | NoAccess) -> Allowed:
    if isinstance(found, NoAccess):
        raise Refused(found)
    if found.is_known and running.reports is not None:
        running.reports.add_use(found)
    return found
