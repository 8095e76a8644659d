"""Commands of your own API tokens."""

from typing import Annotated, Any
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call, shown, stop, warn
from cli.inputs import days, duration_option, hours, id_argument, the_one
from cli.route_command import ids_at
from cli.terminal import Facts, Listing, Output, OutputFormat, say
from cli.values import Identifier, moment
from config import local_zone
from lockbox.identity.authentication import TOKEN_FORM

app = typer.Typer(no_args_is_help=True, help="Your API tokens.")

Lifetime = Annotated[int | None, duration_option("--lifetime", "until it expires, such as 90d", days)]
TokenId = Annotated[str, id_argument("TOKEN", "its id")]
ONCE = "This is the only time that the token is shown: keep it where nobody else reads."


@app.command("list")
def list_tokens(output: Output = OutputFormat.TABLE) -> None:
    """List your tokens."""
    found = call("GET", at("tokens"))
    is_system = any(one["scopes"] for one in found["items"])
    rows = (
        (
            Identifier(one["id"]),
            one["name"],
            *((_limits(one),) if is_system else ()),
            *(moment(one[name]) for name in ("last_used_at", "expires_at", "created_at")),
        )
        for one in found["items"]
    )
    columns = ("Token", "Name", *(("For",) if is_system else ()), "Last used", "Expires", "Created")
    terminal.show(output, found, Listing.of(columns, rows))


@app.command()
def make(
    name: Annotated[str, typer.Argument(help="a name for it", show_default=False)],
    lifetime: Lifetime = None,
    scope: Annotated[list[str] | None, typer.Option(help="for systems, such as access:check; repeat")] = None,
    service: Annotated[list[str] | None, typer.Option(help="for systems: such as exchange-online; repeat")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="for systems with case:close: whose cases; repeat")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Create a token for yourself and print it once.

    Requires a fresh sign-in: set LOCKBOX_TOKEN to a token of your identity provider, not an API token. Otherwise
    create the token on your account page: a terminal's sign-in cannot create it.
    """
    body = {
        "name": name,
        "days": lifetime,
        "scopes": scope or [],
        "services": service or [],
        "tenants": tenant or [],
    }
    _tell(call("POST", at("tokens"), body=body), output)


@app.command()
def rotate(
    token: Annotated[str | None, id_argument("TOKEN", "left out: the one in LOCKBOX_TOKEN; else its id")] = None,
    overlap: Annotated[
        int | None,
        duration_option("--overlap", "how long the old one stays valid, such as 24h; 0h ends it now", hours),
    ] = None,
    lifetime: Lifetime = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Replace a token; print the new one once.

    An API token may replace itself; replacing another one requires a fresh sign-in.
    """
    body = {"overlap_hours": overlap, "days": lifetime}
    _tell(call("POST", at("tokens", _whole(token) if token else _shown(), "rotate"), body=body), output)


@app.command()
def revoke(token: TokenId) -> None:
    """Revoke one of your tokens."""
    call("DELETE", at("tokens", _whole(token)))
    say("Revoked.")


def _limits(token: dict[str, Any]) -> str:
    bound = [*token["services"], *token["tenants"]]
    return ", ".join(token["scopes"]) + (f" of {', '.join(bound)}" if bound else "")


def _whole(token: str) -> str:
    return the_one(token, ids_at(at("tokens")))


def _shown() -> str:
    parts = TOKEN_FORM.fullmatch(shown())
    if parts is None:
        raise stop("LOCKBOX_TOKEN holds no API token; name the id of the one to replace, as in `lockbox token list`")
    return str(UUID(parts["id"]))


def _tell(issued: dict[str, Any], output: OutputFormat) -> None:
    warn(f"{ONCE} It lasts until {moment(issued['expires_at'])} ({local_zone.described()}).")
    if output is OutputFormat.TABLE:
        print(issued["token"])
    else:
        terminal.show(output, issued, Facts(issued))
