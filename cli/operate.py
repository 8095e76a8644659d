"""Commands for operators of an installation, on its machine."""

import json
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from catalogue.unsafe_settings import UnsafeSettings
from cli import credentials, off_board, restore
from cli import status as shown
from cli.client import stop
from cli.inputs import days, duration_option
from cli.owner import owner_session, owner_transactions
from cli.terminal import Output, OutputFormat, say, show
from config.settings import Settings, load
from lockbox.admin import erased_texts, erasure, key_rotation, retention
from lockbox.audit.log import signing_keys
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.log.signing_keys import BadKey
from lockbox.audit.verifier.approval_checks import NAME as APPROVALS

app = typer.Typer(no_args_is_help=True, help="Running an installation, on its own machine.")


OLDER_HELP = "a number of days, such as 365d; LOCKBOX_RETENTION_DAYS if left out"
OfApprovals = Annotated[bool, typer.Option("--of-approvals", help="for LOCKBOX_APPROVAL_PUBLIC_KEYS")]
ForCustomers = Annotated[bool, typer.Option("--for-customers", help="what a customer needs to verify exports")]


@app.command("new-key")
def new_key(file: Annotated[Path, typer.Argument(help="a new file", show_default=False)]) -> None:
    """Make a key to sign with, in a new file.

    Only its owner can read the file. For LOCKBOX_APPROVAL_KEY_FILES, which only
    the API has, or for LOCKBOX_AUDIT_KEY_FILES, which only the core worker has.
    """
    try:
        signing_keys.make(file)
    except BadKey as bad:
        raise stop(str(bad)) from None
    say(f"{file} holds a new key. Nobody else can read it; keep a copy where no back-up of the database is.")


app.registered_commands += credentials.app.registered_commands
app.registered_commands += off_board.app.registered_commands
app.registered_commands += restore.app.registered_commands


@app.command("public-keys")
def public_keys(for_customers: ForCustomers = False, of_approvals: OfApprovals = False) -> None:
    """Print the public halves of the audit keys.

    Without an option: the keys of LOCKBOX_AUDIT_KEY_FILES, for
    LOCKBOX_AUDIT_PUBLIC_KEYS. Needs LOCKBOX_AUDIT_NAME or LOCKBOX_PUBLIC_URL
    set as the worker has it. With --for-customers: the keys of logs and of
    approvals, a line each. Needs LOCKBOX_AUDIT_PUBLIC_KEYS and
    LOCKBOX_APPROVAL_KEY_FILES set as the API has them. With --of-approvals: the
    public halves of LOCKBOX_APPROVAL_KEY_FILES, for the notifications worker,
    which names them in digests.
    """
    if of_approvals:
        say(json.dumps(_of_approvals()))
        return
    if for_customers:
        say("\n".join(_for_customers()))
        return
    try:
        settings = load()
        signers = [key.public_key().public_bytes_raw() for key in signing_keys.read(settings.audit_key_files)]
    except (UnsafeSettings, BadKey) as bad:
        raise stop(str(bad)) from None
    if not signers:
        raise stop("LOCKBOX_AUDIT_KEY_FILES is not set; name the files of the keys, the newest first")
    say(json.dumps([VerifierKey(settings.log_name, public).text for public in signers]))


def _for_customers() -> list[str]:
    settings = _settings()
    if not (settings.audit_public_keys and settings.approval_key_files):
        raise stop("set LOCKBOX_AUDIT_PUBLIC_KEYS and LOCKBOX_APPROVAL_KEY_FILES as the API has them")
    return [*settings.audit_public_keys, *_of_approvals()]


def _of_approvals() -> list[str]:
    settings = _settings()
    try:
        found = [key.public_key().public_bytes_raw() for key in signing_keys.read(settings.approval_key_files)]
    except BadKey as bad:
        raise stop(str(bad)) from None
    if not found:
        raise stop("LOCKBOX_APPROVAL_KEY_FILES is not set; name the files of the keys, the newest first")
    return [VerifierKey(APPROVALS, public).text for public in found]


def _settings() -> Settings:
    try:
        return load()
    except UnsafeSettings as unset:
        raise stop(str(unset)) from None


RunFolder = Annotated[Path | None, typer.Option(help="data folder of `make run`, where it was given another")]


@app.command()
def status(output: Output = OutputFormat.TABLE, folder: RunFolder = None) -> None:
    """Show the status of the installation.

    Ends with 1 if something needs attention. Needs the API's LOCKBOX_DATABASE_URL (or the owner's login) and
    LOCKBOX_REDIS_URL; with LOCKBOX_SMTP_URL it tries the relay, too. If neither login is set, it reads what
    `make run` started here. If a server is away, the command says so and shows the rest.
    """
    try:
        found = shown.read(load(), folder)
    except UnsafeSettings as unset:
        raise stop(str(unset)) from None
    show(output, found.as_facts(), *shown.parts(found))
    if found.troubles:
        raise typer.Exit(1)


@app.command()
def erase(
    person: Annotated[UUID, typer.Argument(help="the person's id", show_default=False)],
    texts: Annotated[
        bool, typer.Option("--texts", help="also what they wrote: the texts of all that they asked for, and comments")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
) -> None:
    """Erase a person's data permanently.

    As the database's owner (LOCKBOX_OWNER_DATABASE_URL). What the person did
    stays in the audit log under a pseudonym, and the log still verifies. Texts
    of closed requests that contain one of the person's addresses are erased too.
    A legal hold at one of the person's tenants prevents the erasure.
    """
    if not yes and typer.prompt("This cannot be undone. Type the person's id again") != str(person):
        raise stop("That is another id; nothing was changed.")
    with owner_session() as (session, _):
        erased = erasure.erase(session, person, texts=texts)
    say(
        f"They are {erased.pseudonym} from now on; {erased.details} details were erased from the audit log, and the "
        f"texts of {erased.requests} requests."
    )


@app.command("erase-texts")
def erase_texts(
    request: Annotated[UUID, typer.Argument(help="the request's id", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
) -> None:
    """Permanently erase what a closed request named and why.

    As the database's owner. The request's reason, case, resources, comments and
    questions are erased from its row and from the audit log, which still
    verifies. Who asked, who decided, when and for how long stays. A legal hold
    prevents the erasure.
    """
    if not yes and typer.prompt("This cannot be undone. Type the request's id again") != str(request):
        raise stop("That is another id; nothing was changed.")
    with owner_session() as (session, _):
        erased = erased_texts.erase(session, request)
    say(f"{erased.details} details were erased from the audit log.")


@app.command("re-key")
def re_key(
    key_is_lost: Annotated[
        bool, typer.Option("--key-is-lost", help="also believe rows that no key vouches for")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
) -> None:
    """Renew the marks of rows that give power.

    Roles, passkeys, identities, delegates, modes, policies, retentions, legal
    holds and off-boardings get new marks (MACs) by the newest key. Run this as
    the database's owner, with LOCKBOX_CREDENTIAL_KEY_FILES set as the API has
    it, before an older key is taken out of that setting. If that key was lost,
    use --key-is-lost: every sign-in, token and open invitation made with it
    ends, and the rows are accepted as they are. Look through the rows first.
    """
    if key_is_lost and not yes:
        typer.confirm(
            "Believe every role, passkey, identity, delegate, mode, policy, retention, legal hold and off-boarding "
            "as it stands in the database",
            abort=True,
        )
    with owner_session() as (session, _):
        done = key_rotation.rekey(session, key_is_lost=key_is_lost)
    for one in done.unverified:
        say(f"{'Marked, though no key vouched for it' if key_is_lost else 'No key vouches for it'}: {one}")
    ended = "were ended" if key_is_lost else "count for nothing"
    say(f"{done.marked} rows have a new mark; {done.ended} tokens, sessions and invitations {ended}.")
    if done.waiting:
        say(f"{done.waiting} tokens and sessions stand by an older key until they are used; keep it until then.")
    if done.unverified and not key_is_lost:
        raise typer.Exit(1)


@app.command()
def retain(
    older_than: Annotated[
        int | None, duration_option("--older-than", OLDER_HELP, partial(days, least=1, most=36_500))
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
) -> None:
    """Remove the oldest part of the audit log permanently.

    As the database's owner. Without this command everything is kept
    indefinitely. A tenant's log is kept for as long as its admins say, and no
    longer than LOCKBOX_RETENTION_DAYS or --older-than; under a legal hold the
    whole log is kept. Events are removed from the beginning of a log, up to the
    first event that is younger, or whose request was open more recently. What
    the old requests asked for, and why, is erased too. The seals of removed
    events stay. If interrupted, run it again to continue.
    """
    if not yes:
        what = f"what is older than {older_than} days" if older_than else "what is older than was set"
        typer.confirm(f"Remove {what}? This cannot be undone", abort=True)
    count = 0
    with owner_transactions() as (transactions, settings):
        most = older_than or settings.retention_days
        for one in retention.retain(transactions, timedelta(days=most) if most else None):
            say(f"Log {one.log_id}: events {one.start} to {one.end - 1} were removed.")
            count += one.end - one.start
    say(f"{count} events were removed.")
