"""The text of `make run` for a newcomer."""

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from catalogue.service_catalogue import Service
from devstack import stack
from devstack.embedded.folder import write_private
from devstack.sample import CUSTOMER, VENDOR, Sample
from devstack.stack import StackPlan

TOKENS = stack.CHECKOUT / "var" / "tokens.env"
FLOWER_FILE = "flower-password"
WIDEST = 100
USUAL = "exchange-online"


def write_tokens(path: Path, plan: StackPlan, seeded: Sample) -> None:
    values = {"API": plan.public_url, "TENANT": seeded.tenant}
    values |= {who.upper(): token for who, token in seeded.tokens.items()}
    values |= {f"{who.upper()}_ID": str(person_id) for who, person_id in seeded.people.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, "".join(f"{name}={value}\n" for name, value in values.items()))


def keep_flower_password(plan: StackPlan, path: Path) -> StackPlan:
    """Return the plan with an earlier run's password, or with its own."""
    with suppress(OSError, UnicodeDecodeError):
        known = path.read_text(encoding="utf-8").strip()
        if len(known) >= len(plan.flower_password) and known.isprintable() and not set(known) & {",", ":", " "}:
            plan = replace(plan, flower_password=known)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, f"{plan.flower_password}\n")
    return plan


def show(
    console: Console, plan: StackPlan, seeded: Sample, services: Mapping[str, Service], tokens: Path, log: Path | None
) -> None:
    """Print in one write, so that no log line comes in between; no token or password is printed."""
    width = min(WIDEST, console.width)
    paper = Console(file=io.StringIO(), width=width, force_terminal=console.is_terminal, highlight=False)
    with paper.capture() as written:
        addresses = _addresses(plan, tokens.with_name(FLOWER_FILE), log)
        paper.print(Panel(addresses, title="Lockbox is up; Ctrl-C stops it", border_style="green"))
        paper.print(f"\nTokens of the demo users, for a day, are in {shown(tokens)}:\n", soft_wrap=True)
        paper.print(_people(seeded))
        paper.print("\nRequest access as erin:\n")
        paper.print(f". {shown(tokens)}", soft_wrap=True, markup=False)
        paper.print(_curl(seeded, services), soft_wrap=True, markup=False)
    console.file.write(f"\n{written.get()}\n")
    console.file.flush()


def shown(path: Path) -> str:
    return str(path.relative_to(stack.CHECKOUT) if path.is_relative_to(stack.CHECKOUT) else path)


def _addresses(plan: StackPlan, flower_password: Path, log: Path | None) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column()
    table.add_column(overflow="fold")
    if plan.playground:
        table.add_row("[bold]Open[/]", f"[bold]{plan.public_url}/play[/]")
        table.add_row("", "in a browser: be anybody there, and follow a request from beginning to end")
    table.add_row("API", f"{plan.public_url}/v1  (described by /openapi.json)")
    table.add_row("Flower", f"{plan.flower_url}  (read-only)")
    table.add_row("", f"user {plan.flower_user}, password in {shown(flower_password)}")
    caught = str(plan.servers.maildir / "new") if plan.servers and plan.servers.smtp_url else "your relay"
    table.add_row("Mails", f"{plan.public_url}/inbox" if plan.playground else caught)
    if log:
        table.add_row("Logs", f"{shown(log)}  (`make run VERBOSE=1` shows them here)")
    return table


def _people(seeded: Sample) -> Table:
    roles = {key: role for key, _, _, role in VENDOR} | {key: role for key, _, role in CUSTOMER}
    table = Table(box=None, show_header=False, padding=(0, 1))
    for who in seeded.tokens:
        table.add_row(f"[bold]{who}[/]", f"${who.upper()}", roles[who].replace("_", " "))
    return table


def _curl(seeded: Sample, services: Mapping[str, Service]) -> str:
    service = USUAL if USUAL in services else next(iter(services))
    body = (
        f'{{"tenant":"{seeded.tenant}","service":"{service}",'
        f'"resources":["mailbox:anna@{seeded.tenant}.example"],"actions":["{services[service].actions[0]}"],"reason_code":"support_case",'
        '"justification":"Mails bounce since this morning.","case_ref":"CASE-1","access_window":600}'
    )
    return (
        f"curl -s $API/v1/requests -H \"Authorization: Bearer $ERIN\" -H 'Content-Type: application/json' -d '{body}'"
    )
