"""The command `lockbox`. All commands call the API, except migrations and the commands of the database's owner."""

from importlib import metadata
from typing import Annotated, ClassVar

import typer

from cli.lazy import CommandPlace, LazyGroup

HELP = """An open Customer Lockbox: the vendor gets in only with the customer's approval.

LOCKBOX_URL is the API's address. Set LOCKBOX_TOKEN to your token, or run
`lockbox sign-in` to sign in with your browser.

Commands that read take --output table, json or csv. Of an id that a list shows,
the beginning is enough. Durations are written as 90s, 15m, 8h, 1h30m or 2d.

\b
Exit codes:
  0    done
  1    refused, not answered, or the answer is no; the reason is on stderr
  2    the command line is wrong; nothing was done
  130  stopped by Ctrl-C
`lockbox audit verify` has exit codes of its own.
"""


class CommandGroup(LazyGroup):
    PLACES: ClassVar = {
        "me": CommandPlace("cli.access:me", "Show your account and your roles."),
        "request": CommandPlace("cli.requests", "Access requests."),
        "access": CommandPlace("cli.access:access", "Check whether access is open; exits 1 if closed."),
        "sign-in": CommandPlace("cli.sign_in:sign-in", "Sign this terminal in, by your browser."),
        "sign-out": CommandPlace("cli.sign_in:sign-out", "Sign this terminal out and revoke its token."),
        "token": CommandPlace("cli.tokens", "Your API tokens."),
        "tenant": CommandPlace("cli.tenants", "Customers: add, suspend, switch, stop."),
        "member": CommandPlace("cli.commands:member", "Members of a customer."),
        "invitation": CommandPlace("cli.commands:invitation", "Open invitations of a customer."),
        "delegation": CommandPlace("cli.commands:delegation", "Delegates of approvers."),
        "policy": CommandPlace("cli.policies", "Customer policies."),
        "pre-approval": CommandPlace("cli.pre_approvals", "What a customer approves before it is asked."),
        "endpoint": CommandPlace("cli.commands:endpoint", "Webhooks."),
        "observer": CommandPlace("cli.commands:observer", "Observers, who get copies and cannot decide."),
        "exclusions": CommandPlace("cli.exclusions", "What Lockbox does not cover."),
        "data": CommandPlace("cli.tenant_data", "A customer's data: retention, legal holds, leaving."),
        "vendor": CommandPlace("cli.vendor_staff", "The vendor's staff."),
        "audit": CommandPlace("cli.audit_group", "The audit log: search, export, verify."),
        "gate": CommandPlace("cli.gate", "The gate: its catalogue, mappings and callers."),
        "operate": CommandPlace("cli.operate", "Running an installation, on its own machine."),
        "doctor": CommandPlace("cli.doctor.command:doctor", "Check the settings and servers of this machine."),
        "bootstrap": CommandPlace("cli.owner:bootstrap", "Make the first operator on an empty database."),
        "migrate": CommandPlace("cli.owner:migrate", "Bring the database's schema up to date."),
        "sample": CommandPlace("cli.owner:sample", "Add sample people to a try-out and print their tokens."),
    }


def _print_version(asked: bool) -> None:  # noqa: FBT001 - Typer passes it by position
    if asked:
        typer.echo(f"lockbox {metadata.version('lockbox')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def begin(version: Version = False) -> None:
    """Accept the options that come before a command."""


app = typer.Typer(cls=CommandGroup, callback=begin, no_args_is_help=True, help=HELP, rich_markup_mode=None)


def main() -> None:
    app()
