"""Commands of webhooks: those of a customer, as its admin, or the vendor's own, as an operator; and their log."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call, stop, warn
from cli.terminal import Cursor, Limit, Plain, as_json, moment, say, words

app = typer.Typer(no_args_is_help=True, help="Webhooks.")

Whose = Annotated[str | None, typer.Option("--tenant", help="the customer's slug; the vendor's own if left out")]
Endpoint = Annotated[UUID, typer.Argument(help="its id", show_default=False)]
Url = Annotated[str, typer.Argument(help="where calls go, by https", show_default=False)]
Events = Annotated[list[str] | None, typer.Option("--event", help="such as request.denied; repeat; all if left out")]
Description = Annotated[str | None, typer.Option(help="what you call it")]
Justification = Annotated[
    bool | None,
    typer.Option("--justification/--no-justification", help="whether a customer's own is told why access is asked"),
]
ONCE = "This is the only time that the secret is shown: it signs every call."


@app.command("list")
def list_endpoints(tenant: Whose = None, plain: Plain = False) -> None:
    """List webhooks; their secrets are never shown again."""
    found = call("GET", _place(tenant))
    if plain:
        as_json(found)
        return
    rows = (
        (one["id"], one["url"], one["description"], one["format"], one["event_types"] or "all", _state(one))
        for one in found["items"]
    )
    terminal.table(("Webhook", "Address", "Name", "Format", "Events", "State"), rows)


@app.command()
def add(
    url: Url,
    tenant: Whose = None,
    event: Events = None,
    description: Description = None,
    format_: Annotated[str, typer.Option("--format", help="json (Standard Webhooks) or slack")] = "json",
    justification: Annotated[
        bool, typer.Option("--justification", help="tell a customer's own why access is asked")
    ] = False,
    plain: Plain = False,
) -> None:
    """Add a webhook and print its secret, once.

    It takes a fresh sign-in: LOCKBOX_TOKEN has to hold a token of your sign-in service, not an API token.
    """
    body = {
        "url": url,
        "event_types": event or [],
        "description": description,
        "format": format_,
        "with_justification": justification,
    }
    _tell(call("POST", _place(tenant), body=body), plain=plain)


@app.command()
def show(endpoint: Endpoint, plain: Plain = False) -> None:
    """Show one webhook."""
    _show(call("GET", at("endpoints", endpoint)), plain=plain)


@app.command()
def change(
    endpoint: Endpoint,
    url: Annotated[str | None, typer.Option(help="where calls go from now on")] = None,
    event: Events = None,
    all_events: Annotated[bool, typer.Option("--all-events", help="tell it of everything")] = False,
    description: Description = None,
    format_: Annotated[str | None, typer.Option("--format", help="json (Standard Webhooks) or slack")] = None,
    justification: Justification = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="whether it is called")] = None,
    plain: Plain = False,
) -> None:
    """Change a webhook; what is left out stays.

    All but disabling and describing it takes a fresh sign-in.
    """
    wanted = {
        "url": url,
        "event_types": [] if all_events else event,
        "description": description,
        "format": format_,
        "with_justification": justification,
        "enabled": enabled,
    }
    body = {name: value for name, value in wanted.items() if value is not None}
    if not body:
        raise stop("say what is to be different, such as --disable")
    _show(call("PATCH", at("endpoints", endpoint), body=body), plain=plain)


@app.command()
def remove(endpoint: Endpoint) -> None:
    """Remove a webhook: nothing more is called."""
    call("DELETE", at("endpoints", endpoint))
    say("Removed.")


@app.command()
def rotate(
    endpoint: Endpoint,
    overlap_hours: Annotated[int, typer.Option(help="how long the old secret signs too; 0 ends it now")] = 24,
    plain: Plain = False,
) -> None:
    """Replace a webhook's secret; print the new one, once.

    It takes a fresh sign-in.
    """
    _tell(call("POST", at("endpoints", endpoint, "rotate"), body={"overlap_hours": overlap_hours}), plain=plain)


@app.command()
def test(endpoint: Endpoint) -> None:
    """Call a webhook with a test event."""
    called = call("POST", at("endpoints", endpoint, "test"))
    say(f"It is called with webhook-id {called['webhook_id']}; see: lockbox endpoint deliveries {endpoint}")


@app.command()
def deliveries(endpoint: Endpoint, limit: Limit = 50, cursor: Cursor = None, plain: Plain = False) -> None:
    """List each try to call a webhook, the newest first."""
    page = call("GET", at("endpoints", endpoint, "deliveries"), params={"limit": limit, "cursor": cursor})
    if plain:
        as_json(page)
        return
    rows = (
        (
            one["id"],
            moment(one["at"]),
            one["event_type"],
            f"{one['took_ms']} ms",
            one["status"],
            words(one["error"] or "arrived"),
            one["answer"],
        )
        for one in page["items"]
    )
    terminal.table(("Delivery", "When", "Event", "Took", "Status", "How", "Answer"), rows)
    terminal.more(page)


@app.command()
def redeliver(delivery: Annotated[UUID, typer.Argument(help="the id of a delivery", show_default=False)]) -> None:
    """Call again what has ended, under the id that it had."""
    called = call("POST", at("deliveries", delivery, "redeliver"))
    say(f"It is called again with webhook-id {called['webhook_id']}.")


def _place(tenant: str | None) -> str:
    return at("tenants", tenant, "endpoints") if tenant else at("vendor", "endpoints")


def _tell(shown: Mapping[str, Any], *, plain: bool) -> None:
    warn(f"{ONCE} The webhook is {shown['id']}.")
    if plain:
        as_json(shown)
    else:
        print(shown["secret"])


def _state(one: Mapping[str, Any]) -> str:
    if one["disabled_at"]:
        return f"disabled ({words(one['why_disabled'] or 'by hand')})"
    return f"failing since {moment(one['failing_since'])}" if one["failing_since"] else "called"


def _show(one: Mapping[str, Any], *, plain: bool) -> None:
    if plain:
        as_json(one)
        return
    terminal.facts(
        {
            "Webhook": one["id"],
            "Address": one["url"],
            "Name": one["description"],
            "Format": one["format"],
            "Events": one["event_types"] or "all",
            "Justification": one["with_justification"],
            "Public key": one["public_key"],
            "State": _state(one),
            "Added": moment(one["created_at"]),
        }
    )
