"""The group `lockbox audit`: `verify` calls nobody and loads nothing of the other commands."""

from typing import ClassVar

import typer

from cli.lazy import LazyGroup, begin


class AuditGroup(LazyGroup):
    """The commands of the audit log."""

    PLACES: ClassVar = {
        "list": "cli.audit:list",
        "export": "cli.audit:export",
        "checkpoint": "cli.audit:checkpoint",
        "report": "cli.audit:report",
        "verify": "cli.verify:verify",
    }


HELP = "The audit log: search, export, verify."
app = typer.Typer(cls=AuditGroup, callback=begin, no_args_is_help=True, help=HELP)
