"""The command `lockbox`: everything through the API, but for the migrations and what fills an empty database."""

from typing import ClassVar

import typer

from cli.lazy import LazyGroup, begin

HELP = """An open Customer Lockbox: nobody at the vendor gets in without a yes.

LOCKBOX_URL names the API. LOCKBOX_TOKEN holds your token, or your browser
signs the terminal in. What reads also prints JSON, with --json. Ends with 1 where the answer is no, and with 2
where the command was written wrongly.
"""


class CommandGroup(LazyGroup):
    """Commands in the order in which somebody meets them."""

    PLACES: ClassVar = {
        "me": "cli.access:me",
        "request": "cli.requests",
        "access": "cli.access:access",
        "sign-in": "cli.sign_in:sign-in",
        "sign-out": "cli.sign_in:sign-out",
        "token": "cli.tokens",
        "tenant": "cli.tenants",
        "member": "cli.commands:member",
        "invitation": "cli.commands:invitation",
        "delegation": "cli.commands:delegation",
        "policy": "cli.policies",
        "endpoint": "cli.commands:endpoint",
        "observer": "cli.commands:observer",
        "vendor": "cli.commands:vendor",
        "audit": "cli.audit_group",
        "operate": "cli.operate",
        "bootstrap": "cli.owner:bootstrap",
        "migrate": "cli.owner:migrate",
        "sample": "cli.owner:sample",
    }


app = typer.Typer(
    cls=CommandGroup, callback=begin, no_args_is_help=True, add_completion=False, help=HELP, rich_markup_mode=None
)


def main() -> None:
    """Run the command."""
    app()
