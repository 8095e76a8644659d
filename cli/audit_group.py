"""The group `lockbox audit`: `verify` uses no network and imports no other command."""

from typing import ClassVar

import typer

from cli.lazy import CommandPlace, LazyGroup


class AuditGroup(LazyGroup):
    PLACES: ClassVar = {
        "list": CommandPlace("cli.audit:list", "Search the audit log, newest events first."),
        "export": CommandPlace("cli.audit:export", "Export sealed events, with proofs."),
        "checkpoint": CommandPlace("cli.audit:checkpoint", "Print the newest checkpoint of the log."),
        "statistics": CommandPlace(
            "cli.statistics:statistics", "Count what became of requests, as an admin or auditor."
        ),
        "report": CommandPlace("cli.audit:report", "Report on one request."),
        "verify": CommandPlace("cli.verify:verify", "Verify an export offline."),
    }


def begin() -> None:
    """Do nothing: Typer needs a callback for a group without commands of its own."""


HELP = "The audit log: search, export, verify."
app = typer.Typer(cls=AuditGroup, callback=begin, no_args_is_help=True, help=HELP)
