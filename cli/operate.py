"""Commands for whoever runs an installation: on its machine, with its files, or as the owner of its database."""

from pathlib import Path
from typing import Annotated

import typer

from cli.client import stop
from cli.terminal import say
from lockbox.audit import keys
from lockbox.audit.keys import BadKey

app = typer.Typer(no_args_is_help=True, help="Running an installation, on its own machine.")


@app.command("new-key")
def new_key(file: Annotated[Path, typer.Argument(help="a new file", show_default=False)]) -> None:
    """Make a key to sign with, in a file that its owner alone can read.

    For LOCKBOX_APPROVAL_KEY_FILES, which only the API is told.
    """
    try:
        keys.make(file)
    except BadKey as bad:
        raise stop(str(bad)) from None
    say(f"{file} holds a new key. Nobody else can read it; keep a copy where no back-up of the database is.")
