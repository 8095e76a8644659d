"""The page that verifies an uploaded export; nothing is stored."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from api import browser
from api.browser import Visitor
from api.call_routes import CallRouter
from api.client_counts import ClientCounts
from api.deps import DatabaseDep, SessionDep, SettingsDep
from api.middleware import MOST_UPLOAD_BYTES
from api.portal import phrases
from api.portal.pages import REFUSED, TAG, page, status_of
from config.settings import Settings
from lockbox.admin.audit_access import READERS
from lockbox.audit.log import proofs
from lockbox.audit.log.checkpoint import BadNote, VerifierKey
from lockbox.audit.verifier import approver_keys, consistency, export_format
from lockbox.audit.verifier import verify as verifier
from lockbox.audit.verifier.approver_keys import LONGEST_FILE, ApproverKeys, BadKeys
from lockbox.audit.verifier.export_format import MOST, Unreadable
from lockbox.audit.verifier.signed_approvals import Approvers
from lockbox.audit.verifier.verify import VerificationResult, remarks, whole, word
from lockbox.database import Database, UnitOfWork
from lockbox.errors import Busy, Invalid, LockboxError, NotYours
from lockbox.identity import attempt_limits, authentication
from lockbox.identity.attempt_limits import AttemptLimits
from lockbox.identity.roles import Caller, Role

router = CallRouter(prefix="/audit-log/verify", tags=[TAG], include_in_schema=False)

PATIENCE = 60.0
MOST_KEYS = 50
MOST_KEY_FILES = 5
LONGEST_TEXT = 64 * 1024
COLOURS = {verifier.GOOD: "good", verifier.BAD: "bad", verifier.CANNOT_TELL: "unsure"}
MOST_FILES = 2 + 2 * MOST_KEY_FILES
"""How many files are read: more key files than are accepted, so that the error can say how many there are."""
DEADLINE, QUEUING = 30.0, 90.0
"""The time limits in seconds of verifying a file, and of waiting for its turn."""
LIMITS = AttemptLimits(per_account=30, per_address=30)
"""How many files one person may verify in ten minutes."""
MOST_OF_A_TENANT = 2
"""How many files of a tenant are verified at once. A person can verify one file at a time."""
TURNS = asyncio.Semaphore(2)
"""A process verifies two files at a time, each in a thread. Others wait, so that tenants do not block each other."""


@dataclass(frozen=True)
class VerificationInput:
    """`checkpoint` is the checkpoint that the person kept, or the mail that contains it.

    `approver_keys` are files of approvers' keys that the person's organisation exported.
    """

    file: UploadFile
    keys: str
    checkpoint: bytes
    approver_keys: tuple[ApproverKeys, ...]


@router.get("")
def show(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    _reads(visitor)
    return _shown(request, session, visitor)


async def verification_input(request: Request, chosen: SettingsDep, db: DatabaseDep) -> AsyncIterator[FormData]:
    """Read the upload only after the sender and their rights are known.

    Raises:
        NotSignedIn, NotYours: no one is signed in, or the person may read no audit log.
        Busy: the person is already verifying a file, or two people of the same tenant are.
        TooMany: the person has verified thirty files in the last ten minutes.
    """
    browser.check_same_site(request, chosen)
    visitor = await run_in_threadpool(_visitor, request, db, chosen)
    _reads(visitor)
    with _only_file_of(visitor.caller, request.app.state.counts):
        await run_in_threadpool(_count, db, visitor.caller)
        try:
            async with asyncio.timeout(PATIENCE):
                form = await request.form(max_files=MOST_FILES, max_fields=10, max_part_size=LONGEST_TEXT)
        except TimeoutError:
            raise Invalid(phrases.TOO_SLOW_A_FILE) from None
        try:
            browser.check_form(visitor, _text(form, "csrf"))
            yield form
        finally:
            await form.close()


@contextmanager
def _only_file_of(caller: Caller, counts: ClientCounts) -> Iterator[None]:
    tenants = sorted(map(str, caller.tenants(READERS))) or ["of the vendor"]
    with ExitStack() as held:
        if not _takes(held, counts, file_of(caller.person_id), 1):
            raise Busy(phrases.OWN_FILE_FIRST)
        if not all(_takes(held, counts, f"files of tenant {tenant}", MOST_OF_A_TENANT) for tenant in tenants):
            raise Busy(phrases.COLLEAGUES_FIRST)
        yield


def file_of(person_id: UUID) -> str:
    return f"files of person {person_id}"


def _takes(held: ExitStack, counts: ClientCounts, client: str, most: int) -> bool:
    is_held = counts.take(client, most)
    if is_held:
        held.callback(counts.give_back, client)
    return is_held


def _count(db: Database, caller: Caller) -> None:
    with db.transaction() as session:
        counted = attempt_limits.count(session, LIMITS, verifying=caller.person_id)
    counted.check(phrases.VERIFY_A_FILE)


@router.post("")
async def verify(
    request: Request, chosen: SettingsDep, db: DatabaseDep, form: Annotated[FormData, Depends(verification_input)]
) -> Response:
    try:
        what = await _given(form)
        try:
            async with asyncio.timeout(QUEUING):
                await TURNS.acquire()
        except TimeoutError:
            raise Busy(phrases.OTHERS_FIRST) from None
        try:
            result = await run_in_threadpool(_result, what)
        finally:
            TURNS.release()
    except REFUSED as refused:
        return await run_in_threadpool(_again, request, db, chosen, form, refused)
    return await run_in_threadpool(_told, request, db, chosen, what, result)


async def _given(form: FormData) -> VerificationInput:
    file, note = form.get("export"), form.get("checkpoint")
    if not isinstance(file, UploadFile) or not file.size:
        raise Invalid(phrases.NO_EXPORT, field="export")
    seen = await note.read(consistency.LARGEST) if isinstance(note, UploadFile) else b""
    approvers = tuple([key async for key in _approver_keys(form)])
    return VerificationInput(file, _text(form, "keys"), seen or _text(form, "note").encode(), approvers)


async def _approver_keys(form: FormData) -> AsyncIterator[ApproverKeys]:
    chosen = [one for one in form.getlist("approver_keys") if isinstance(one, UploadFile) and one.size]
    if len(chosen) > MOST_KEY_FILES:
        raise Invalid(phrases.TOO_MANY_KEY_FILES.format(most=MOST_KEY_FILES), field="approver_keys")
    for one in chosen:
        content = await one.read(LONGEST_FILE + 1)
        if len(content) > LONGEST_FILE:
            raise Invalid(
                phrases.TOO_LONG_A_KEY_FILE.format(most=LONGEST_FILE >> 20),
                field="approver_keys",
            )
        try:
            yield approver_keys.read(content)
        except BadKeys as error:
            raise Invalid(phrases.UNREADABLE.format(why=error), field="approver_keys") from None


def _result(what: VerificationInput) -> VerificationResult:
    try:
        keys = list(_keys(what.keys))
        seen = [consistency.read(what.checkpoint).note] if what.checkpoint.strip() else []
        what.file.file.seek(0)
        now = datetime.fromtimestamp(time.time(), UTC)
        lines = _in_time(export_format.lines_of(what.file.file))
        approvers = Approvers(what.approver_keys)
        return verifier.verify(lines, keys, seen, now=now, most=MOST, approvers=approvers)
    except (Unreadable, BadNote, UnicodeDecodeError) as error:
        raise Invalid(phrases.UNREADABLE.format(why=error)) from None


def _in_time(lines: Iterable[bytes]) -> Iterator[bytes]:
    until = time.monotonic() + DEADLINE
    for line in lines:
        if time.monotonic() > until:
            raise Invalid(phrases.TOO_LONG_A_FILE)
        yield line


def _keys(text: str) -> Iterator[VerifierKey]:
    given = text.split()
    if not given or len(given) > MOST_KEYS:
        raise Invalid(phrases.TOO_MANY_KEYS.format(most=MOST_KEYS), field="keys")
    for one in given:
        try:
            yield VerifierKey.read(one)
        except BadNote as error:
            raise Invalid(f"{one[:100]}: {error}.", field="keys") from None


def _text(form: FormData, name: str) -> str:
    found = form.get(name)
    return found if isinstance(found, str) else ""


def _visitor(request: Request, db: Database, settings: Settings) -> Visitor:
    with db.transaction() as session:
        return browser.visitor(request, session, settings)


def _reads(visitor: Visitor) -> None:
    """Refuse a person who may read no audit log, because each file costs the server time."""
    if not visitor.caller.tenants(READERS) and not visitor.caller.holds(Role.VENDOR_AUDITOR):
        raise NotYours(phrases.NOT_A_READER)


def _again(request: Request, db: Database, settings: Settings, form: FormData, refused: LockboxError) -> Response:
    with db.transaction() as session:
        visitor = browser.visitor(request, session, settings)
        return _shown(request, session, visitor, (_text(form, "keys"), _text(form, "note")), refused)


def _shown(
    request: Request,
    session: UnitOfWork,
    visitor: Visitor,
    said: tuple[str, str] | None = None,
    refused: LockboxError | None = None,
) -> Response:
    authentication.enter(session, visitor.caller)
    keys, note = said or ("\n".join(key.key for key in proofs.keys(session)), "")
    return page(
        request,
        "verify",
        status_of(refused) if refused else 200,
        visitor=visitor,
        keys=keys,
        note=note,
        megabytes=MOST_UPLOAD_BYTES >> 20,
        refused=refused,
    )


def _told(
    request: Request, db: Database, settings: Settings, what: VerificationInput, result: VerificationResult
) -> Response:
    with db.transaction() as session:
        visitor = browser.visitor(request, session, settings)
        return page(
            request,
            "verification_result",
            visitor=visitor,
            result=result,
            word=word(result),
            colour=COLOURS[result.exit_code],
            whole=whole(result),
            remarks=list(remarks(result)),
            name=what.file.filename or phrases.THE_FILE,
        )
