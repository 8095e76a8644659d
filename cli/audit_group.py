"""The group `lockbox audit`: of its commands one calls nobody, and loads nothing of the others."""

from typing import ClassVar

import typer

from cli.lazy import LazyGroup, begin


class AuditGroup(LazyGroup):
    """What is to be done with the trail."""

    PLACES: ClassVar = {
        "list": "cli.audit:list",
        "export": "cli.audit:export",
        "checkpoint": "cli.audit:checkpoint",
        "report": "cli.audit:report",
        "verify": "cli.verify:verify",
    }


HELP = "The audit trail: search, export, verify."
app = typer.Typer(cls=AuditGroup, callback=begin, no_args_is_help=True, help=HELP)
