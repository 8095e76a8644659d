"""Commands of your own API tokens; a new one is printed once."""

from typing import Annotated, Any
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call, shown, stop, warn
from cli.terminal import Plain, as_json, moment, say
from lockbox.identity.authentication import TOKEN_FORM

app = typer.Typer(no_args_is_help=True, help="Your API tokens.")

Days = Annotated[int | None, typer.Option(help="days until it expires")]
ONCE = "This is the only time that the token is shown: keep it where nobody else reads."


@app.command("list")
def list_tokens(plain: Plain = False) -> None:
    """List your tokens."""
    found = call("GET", at("tokens"))
    if plain:
        as_json(found)
        return
    rows = (
        (one["id"], one["name"], moment(one["last_used_at"]), moment(one["expires_at"]), one["created_at"][:10])
        for one in found["items"]
    )
    terminal.table(("Token", "Name", "Last used", "Expires", "Created"), rows)


@app.command()
def make(
    name: Annotated[str, typer.Argument(help="a name for it", show_default=False)],
    days: Days = None,
    scope: Annotated[list[str] | None, typer.Option(help="for systems, such as access:check; repeat")] = None,
    service: Annotated[list[str] | None, typer.Option(help="for systems: such as exchange-online; repeat")] = None,
    plain: Plain = False,
) -> None:
    """Create a token for yourself and print it once.

    Requires a fresh sign-in: set LOCKBOX_TOKEN to a token of your identity provider, not an API token. Otherwise
    create it on your account page; a terminal's sign-in cannot.
    """
    body = {"name": name, "days": days, "scopes": scope or [], "services": service or []}
    _tell(call("POST", at("tokens"), body=body), plain=plain)


@app.command()
def rotate(
    token: Annotated[
        UUID | None, typer.Argument(help="its id; the one in LOCKBOX_TOKEN if left out", show_default=False)
    ] = None,
    overlap_hours: Annotated[int | None, typer.Option(help="how long the old one stays valid; 0 ends it now")] = None,
    days: Days = None,
    plain: Plain = False,
) -> None:
    """Replace a token; print the new one once.

    An API token may replace itself; replacing another one requires a fresh sign-in.
    """
    body = {"overlap_hours": overlap_hours, "days": days}
    _tell(call("POST", at("tokens", token or _shown(), "rotate"), body=body), plain=plain)


@app.command()
def revoke(token: Annotated[UUID, typer.Argument(help="its id", show_default=False)]) -> None:
    """Revoke a token."""
    call("DELETE", at("tokens", token))
    say("Revoked.")


def _shown() -> UUID:
    parts = TOKEN_FORM.fullmatch(shown())
    if parts is None:
        raise stop("LOCKBOX_TOKEN holds no API token; name the id of the one to replace, as in `lockbox token list`")
    return UUID(parts["id"])


def _tell(issued: dict[str, Any], *, plain: bool) -> None:
    warn(f"{ONCE} It lasts until {moment(issued['expires_at'])}.")
    if plain:
        as_json(issued)
    else:
        print(issued["token"])
