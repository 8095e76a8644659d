"""The command `lockbox operate off-board`."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from cli.client import stop
from cli.owner import OwnerTransactions, owner_transactions
from cli.terminal import say
from lockbox.admin import departures
from lockbox.admin.departures import LeavingTenant
from lockbox.audit import export as exports

app = typer.Typer()

PATIENCE, LOOK = 60.0, 0.5
LOG, SNAPSHOT, CHECKPOINT, STATEMENT = "audit.ndjson", "tenant.json", "checkpoint.txt", "statement.ndjson"
EXPORTED = """{folder} holds all that there is of the tenant. Next, verify it and give it to the customer:
  lockbox audit verify {folder}/audit.ndjson
Then erase it permanently:
  lockbox operate off-board {id} --folder {folder} --erase"""
PROVEN = """{folder}/statement.ndjson is the signed statement: the tenant's log as it is now. Give it to the customer:
  lockbox audit verify {folder}/statement.ndjson --checkpoint {folder}/checkpoint.txt
says that it continues the export, and its last event which file was exported before all was erased."""


@app.command("off-board")
def off_board(
    tenant: Annotated[str, typer.Argument(help="its slug, or its id once it was erased", show_default=False)],
    folder: Annotated[Path, typer.Option("--folder", help="an empty folder for the export, or the one of before")],
    erase: Annotated[bool, typer.Option("--erase", help="erase what the folder holds the export of")] = False,
    unasked: Annotated[bool, typer.Option("--unasked", help="though no admin of it has asked")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
) -> None:
    """Off-board a tenant: export, then erase it permanently.

    Run this as the database's owner, while a core worker runs to seal the log.
    First, without --erase: all memberships of the tenant end, and the folder
    gets its whole log with proofs, and its members, policies and requests.
    Verify the export. Then, with --erase: texts, events, people and settings
    are erased, and a verifiable statement says so. The tenant has to be
    suspended, and one of its admins must have asked for this. If interrupted,
    run it again.
    """
    if erase and not yes and typer.prompt("This cannot be undone. Type the tenant as before") != tenant:
        raise stop("That is another tenant; nothing was changed.")
    with owner_transactions() as (transactions, _):
        leaving = _found(transactions, tenant)
        folder.mkdir(parents=True, exist_ok=True)
        if erase:
            _erase(transactions, leaving, folder)
            say(PROVEN.format(folder=folder))
        else:
            _export(transactions, leaving, folder, unasked=unasked)
            say(EXPORTED.format(folder=folder, id=leaving.id))


def _found(transactions: OwnerTransactions, tenant: str) -> LeavingTenant:
    try:
        tenant_id: UUID | None = UUID(tenant)
    except ValueError:
        tenant_id = None
    with transactions() as session:
        return departures.find(session, tenant, tenant_id)


def _export(transactions: OwnerTransactions, leaving: LeavingTenant, folder: Path, *, unasked: bool) -> None:
    if leaving.erased_at is not None:
        raise stop("This tenant was erased. With --erase you get its statement.")
    with transactions() as session:
        if leaving.closed_at is None or not (folder / SNAPSHOT).exists():
            there = departures.snapshot(session, leaving.id)
            _write(folder / SNAPSHOT, json.dumps(there, ensure_ascii=False, indent=1).encode())
        departures.close(session, leaving.id, unasked=unasked)
    size, digest = _log(transactions, leaving.id, folder / LOG, folder / CHECKPOINT)
    with transactions() as session:
        departures.exported(session, leaving.id, size, digest)


def _erase(transactions: OwnerTransactions, leaving: LeavingTenant, folder: Path) -> None:
    if leaving.erased_at is None:
        if leaving.digest is None:
            raise stop("Nothing was exported yet. Run this without --erase first.")
        if not (folder / SNAPSHOT).exists():
            raise stop(f"There is no {folder / SNAPSHOT}. Run this without --erase first.")
        if _digest(folder / LOG) != leaving.digest:
            raise stop(f"{folder / LOG} is not what was exported last. Run this without --erase first.")
        for done in departures.erase(transactions, leaving):
            say(done)
    _log(transactions, leaving.id, folder / STATEMENT)


def _log(
    transactions: OwnerTransactions, tenant_id: UUID, file: Path, checkpoint: Path | None = None
) -> tuple[int, str]:
    """Wait until the whole log is sealed, and write it; return its size and the file's SHA-256."""
    _wait(lambda: _is_sealed(transactions, tenant_id))
    with transactions() as session:
        export = departures.export(session, tenant_id)
    digest = hashlib.sha256()
    partial = file.with_suffix(".partial")
    with partial.open("wb") as target:
        for line in exports.lines(transactions, export):
            digest.update(line)
            target.write(line)
    partial.replace(file)
    if checkpoint:
        _write(checkpoint, export.log.note.encode())
    return export.log.size, digest.hexdigest()


def _is_sealed(transactions: OwnerTransactions, tenant_id: UUID) -> bool:
    with transactions() as session:
        return departures.is_sealed(session, tenant_id)


def _wait(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > until:
            raise stop("The log is not sealed yet. Start the core worker, and run this again: it goes on from here.")
        time.sleep(LOOK)


def _digest(file: Path) -> str | None:
    try:
        with file.open("rb") as source:
            return hashlib.file_digest(source, "sha256").hexdigest()
    except OSError:
        return None


def _write(file: Path, content: bytes) -> None:
    partial = file.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(file)
