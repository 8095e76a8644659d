"""The page that verifies an export for somebody who has no terminal: nothing is kept, and it says whom it trusts."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session
from starlette.datastructures import FormData, UploadFile

from api import browser
from api.browser import Visitor
from api.deps import Chosen, House, Work
from api.limits import MOST_UPLOAD_BYTES
from api.portal.pages import REFUSED, TAG, page, status_of
from config.settings import Settings
from lockbox.audit import exported, proofs
from lockbox.audit import verify as verifier
from lockbox.audit.checkpoint import LONGEST_NOTE, BadNote, VerifierKey, saved
from lockbox.audit.exported import Unreadable
from lockbox.audit.findings import MOST, Kind
from lockbox.audit.remarks import WORDS, remarks, whole
from lockbox.audit.verify import Verdict
from lockbox.database import Database
from lockbox.people import context, counts
from lockbox.people.counts import Limits
from lockbox.people.roles import Caller, Role
from lockbox.refusals import Busy, Invalid, NotYours, Refusal
from lockbox.tenancy.auditing import READERS

router = APIRouter(prefix="/trail/verify", tags=[TAG], include_in_schema=False)

PATIENCE = 60.0
MOST_KEYS = 50
LONGEST_TEXT = 64 * 1024
ALLOWED = {"withheld": Kind.WITHHELD, "unproven": Kind.BEFORE_SEALS}
COLOURS = {verifier.GOOD: "good", verifier.BAD: "bad", verifier.CANNOT_TELL: "unsure"}
DEADLINE, QUEUING = 30.0, 90.0
"""How many seconds a file may be verified for, and may wait for its turn."""
LIMITS = Limits(per_account=30, per_address=30)
"""How many files one person has verified in ten minutes."""
MOST_OF_A_TENANT = 2
ARRIVED = dict[UUID, frozenset[UUID | None]]()
"""Whose files are here or on their way, and of which tenants they are: of a person one, of a tenant two."""
TURNS = asyncio.Semaphore(2)
"""Two files at a time in a process: each costs a thread. Others wait: no tenant is refused because of another."""


@dataclass(frozen=True)
class Given:
    """What somebody gives: a file, the keys that they trust, a checkpoint of their own, what they take as said."""

    file: UploadFile
    keys: str
    checkpoint: str
    allowed: frozenset[Kind]


@router.get("")
def show(request: Request, chosen: Chosen, session: Work) -> Response:
    """Show the form, with the keys that this server says it signs with."""
    visitor = browser.visitor(request, session, chosen)
    _reads(visitor)
    return _shown(request, session, visitor)


async def given(request: Request, chosen: Chosen, house: House) -> AsyncIterator[FormData]:
    """Yield what was sent, which nobody reads before it is known who sends it and that they may.

    Raises:
        NotSignedIn, NotYours: as named.
        ForeignForm: it was not sent from a page of ours.
        Busy: a file of theirs is here already, or two of their tenant's.
        TooMany: they have had thirty verified in the last ten minutes.
    """
    browser.check_same_site(request, chosen)
    visitor = await run_in_threadpool(_visitor, request, house, chosen)
    _reads(visitor)
    with _only_file_of(visitor.caller):
        await run_in_threadpool(_count, house, visitor.caller)
        try:
            async with asyncio.timeout(PATIENCE):
                form = await request.form(max_files=2, max_fields=10, max_part_size=LONGEST_TEXT)
        except TimeoutError:
            raise Invalid("The file took too long to arrive; send a smaller one, or verify it offline.") from None
        try:
            browser.check_form(visitor, _text(form, "csrf"))
            yield form
        finally:
            await form.close()


@contextmanager
def _only_file_of(caller: Caller) -> Iterator[None]:
    tenants: frozenset[UUID | None] = frozenset(caller.tenants(READERS) or (None,))
    here = Counter(tenant for others in ARRIVED.values() for tenant in others)
    if caller.person_id in ARRIVED:
        raise Busy("A file of yours is being verified; wait until that is done, then send the next.")
    if any(here[tenant] >= MOST_OF_A_TENANT for tenant in tenants):
        raise Busy("Colleagues of yours have files verified; try again in a moment.")
    ARRIVED[caller.person_id] = tenants
    try:
        yield
    finally:
        del ARRIVED[caller.person_id]


def _count(house: Database, caller: Caller) -> None:
    with house.transaction() as session:
        counted = counts.count(session, LIMITS, verifying=caller.person_id)
    counted.check("verify a file")


@router.post("")
async def verify(
    request: Request, chosen: Chosen, house: House, form: Annotated[FormData, Depends(given)]
) -> Response:
    """Verify a file and say what was found; nothing of it is kept."""
    try:
        what = await _given(form)
        try:
            async with asyncio.timeout(QUEUING):
                await TURNS.acquire()
        except TimeoutError:
            raise Busy("Other files are being verified; try again in a moment.") from None
        try:
            verdict = await run_in_threadpool(_verdict, what)
        finally:
            TURNS.release()
    except REFUSED as refused:
        return await run_in_threadpool(_again, request, house, chosen, form, refused)
    return await run_in_threadpool(_told, request, house, chosen, what, verdict)


async def _given(form: FormData) -> Given:
    file, note = form.get("export"), form.get("checkpoint")
    if not isinstance(file, UploadFile) or not file.size:
        raise Invalid("Choose the file of an export: it ends with .ndjson.", field="export")
    seen = (await note.read(2 * LONGEST_NOTE)).decode(errors="replace") if isinstance(note, UploadFile) else ""
    allowed = {ALLOWED[name] for name in form.getlist("allow") if isinstance(name, str) and name in ALLOWED}
    return Given(file, _text(form, "keys"), seen or _text(form, "note"), frozenset(allowed))


def _verdict(what: Given) -> Verdict:
    try:
        seen = [saved(what.checkpoint)] if what.checkpoint.strip() else []
        what.file.file.seek(0)
        lines = _in_time(exported.lines_of(what.file.file))
        return verifier.verify(lines, list(_keys(what.keys)), seen, what.allowed, most=MOST)
    except (Unreadable, BadNote, UnicodeDecodeError) as error:
        raise Invalid(f"It cannot be read: {error}.") from None


def _in_time(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines until there was time enough for them.

    Raises:
        Invalid: it took too long.
    """
    until = time.monotonic() + DEADLINE
    for line in lines:
        if time.monotonic() > until:
            raise Invalid("To verify this file takes too long here; use `lockbox audit verify` for it.")
        yield line


def _keys(text: str) -> Iterator[VerifierKey]:
    words = text.split()
    if not words or len(words) > MOST_KEYS:
        raise Invalid(f"Give the keys that you trust, one a line, and at most {MOST_KEYS}.", field="keys")
    for word in words:
        try:
            yield VerifierKey.read(word)
        except BadNote as error:
            raise Invalid(f"{word[:100]}: {error}.", field="keys") from None


def _text(form: FormData, name: str) -> str:
    found = form.get(name)
    return found if isinstance(found, str) else ""


def _visitor(request: Request, house: Database, chosen: Settings) -> Visitor:
    with house.transaction() as session:
        return browser.visitor(request, session, chosen)


def _reads(visitor: Visitor) -> None:
    """Check that somebody reads a trail at all: a file costs the server time.

    Raises:
        NotYours: they do not.
    """
    if not visitor.caller.tenants(READERS) and not visitor.caller.holds(Role.VENDOR_AUDITOR):
        raise NotYours("The trail is read by a tenant's admins and auditors, and by the vendor's auditors.")


def _again(request: Request, house: Database, chosen: Settings, form: FormData, refused: Refusal) -> Response:
    with house.transaction() as session:
        visitor = browser.visitor(request, session, chosen)
        said = (_text(form, "keys"), _text(form, "note"), frozenset(str(one) for one in form.getlist("allow")))
        return _shown(request, session, visitor, said, refused)


def _shown(
    request: Request,
    session: Session,
    visitor: Visitor,
    said: tuple[str, str, Collection[str]] | None = None,
    refused: Refusal | None = None,
) -> Response:
    context.enter(session, visitor.caller)
    keys, note, allow = said or ("\n".join(key.key for key in proofs.keys(session)), "", ())
    return page(
        request,
        "verify",
        status_of(refused) if refused else 200,
        visitor=visitor,
        keys=keys,
        note=note,
        allow=allow,
        megabytes=MOST_UPLOAD_BYTES >> 20,
        refused=refused,
    )


def _told(request: Request, house: Database, chosen: Settings, what: Given, verdict: Verdict) -> Response:
    with house.transaction() as session:
        visitor = browser.visitor(request, session, chosen)
        code = verdict.exit_code
        return page(
            request,
            "verdict",
            visitor=visitor,
            verdict=verdict,
            word=WORDS[code],
            colour=COLOURS[code],
            whole=whole(verdict),
            remarks=list(remarks(verdict, has_seen=bool(what.checkpoint.strip()))),
            name=what.file.filename or "the file",
        )
