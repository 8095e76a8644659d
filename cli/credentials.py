"""Keys for sign-ins and for MACs of roles."""

from pathlib import Path
from typing import Annotated

import typer

from catalogue.unsafe_settings import UnsafeSettings
from cli.client import stop
from cli.terminal import say
from config.settings import Settings
from lockbox.audit.log.signing_keys import BadKey
from lockbox.identity import keyring
from lockbox.identity.keyring import Keyring

app = typer.Typer()


@app.command("new-credential-key")
def new_credential_key(file: Annotated[Path, typer.Argument(help="a new file", show_default=False)]) -> None:
    """Make the key of sign-ins and roles.

    Only the owner of the new file can read it. Name the file in
    LOCKBOX_CREDENTIAL_KEY_FILES of the API and of the database owner's
    commands, and of no worker.
    """
    try:
        keyring.make(file)
    except BadKey as bad:
        raise stop(str(bad)) from None
    say(f"{file} holds a new key. Nobody else can read it; keep a copy where no back-up of the database is.")


@app.command("code-key")
def code_key(
    root: Annotated[Path, typer.Argument(help="the file of the credential key", show_default=False)],
    file: Annotated[Path, typer.Argument(help="a new file", show_default=False)],
) -> None:
    """Derive the key of mailed codes into a file.

    Derived from a credential key, for LOCKBOX_CODE_KEY_FILES of the
    notifications worker, it makes codes and nothing else.
    """
    try:
        keyring.make_codes(root, file)
    except BadKey as bad:
        raise stop(str(bad)) from None
    say(f"{file} holds the key of codes that belongs to {root}.")


@app.command("mark-key")
def mark_key(
    root: Annotated[Path, typer.Argument(help="the file of the credential key", show_default=False)],
    file: Annotated[Path, typer.Argument(help="a new file", show_default=False)],
) -> None:
    """Derive the key of marks into a file.

    A mark is a MAC of a database row. With this key the connector worker
    (LOCKBOX_MARK_KEY_FILES) checks that the API wrote roles, policies and
    decisions. Derived from a credential key, it signs no one in.
    """
    try:
        keyring.make_marks(root, file)
    except BadKey as bad:
        raise stop(str(bad)) from None
    say(f"{file} holds the key of marks that belongs to {root}.")


def keyring_of(settings: Settings) -> Keyring:
    """Return the keys that the owner's commands need to add people and roles.

    Raises UnsafeSettings if the keys are not set in production, or cannot be read.
    """
    if not settings.credential_key_files:
        if settings.environment == "production":
            raise UnsafeSettings("LOCKBOX_CREDENTIAL_KEY_FILES is not set; name the files that the API has")
        return keyring.development()
    try:
        return keyring.read(settings.credential_key_files)
    except BadKey as bad:
        raise UnsafeSettings(f"LOCKBOX_CREDENTIAL_KEY_FILES: {bad}") from None
