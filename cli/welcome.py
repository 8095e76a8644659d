"""What `make run` tells a newcomer: addresses, sample people with their tokens, and a call that works as it is."""

import io
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from cli import stack
from cli.sample import CUSTOMER, VENDOR, Sample
from cli.stack import StackPlan
from config.embedded.folder import write_private
from config.service_catalogue import Service

TOKENS = stack.CHECKOUT / "var" / "tokens.env"
WIDEST = 100
USUAL = "exchange-online"


def write_tokens(path: Path, plan: StackPlan, seeded: Sample) -> None:
    """Write tokens, ids and the address as shell variables into a file that only we can read."""
    values = {"API": plan.public_url, "TENANT": seeded.tenant}
    values |= {who.upper(): token for who, token in seeded.tokens.items()}
    values |= {f"{who.upper()}_ID": str(person_id) for who, person_id in seeded.people.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, "".join(f"{name}={value}\n" for name, value in values.items()))


def show(console: Console, plan: StackPlan, seeded: Sample, services: Mapping[str, Service], tokens: Path) -> None:
    """Print it in one write, so that no log line comes between."""
    width = min(WIDEST, console.width)
    paper = Console(file=io.StringIO(), width=width, force_terminal=console.is_terminal, highlight=False)
    with paper.capture() as written:
        paper.print(Panel(_addresses(plan), title="Lockbox is up; Ctrl-C stops it", border_style="green"))
        paper.print("\nSample people, with tokens that last a day:\n")
        for who, role, token in _people(seeded):
            paper.print(f"  [bold]{who:<5}[/] {role:<15} {token}", soft_wrap=True)
        where = tokens.relative_to(stack.CHECKOUT) if tokens.is_relative_to(stack.CHECKOUT) else tokens
        paper.print(f"\nAsk for access as erin (the tokens, as $ERIN and so on, and $API are in {where}):\n")
        paper.print(_curl(plan, seeded, services), soft_wrap=True, markup=False)
    console.file.write(f"\n{written.get()}\n")
    console.file.flush()


def _addresses(plan: StackPlan) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    if plan.playground:
        table.add_row("[bold]Open[/]", f"[bold]{plan.public_url}/play[/]")
        table.add_row("", "in a browser: be anybody there, and follow a request from beginning to end")
    table.add_row("API", f"{plan.public_url}/v1  (described by /openapi.json)")
    table.add_row("Flower", f"{plan.flower_url}  (read-only)")
    table.add_row("", f"user {plan.flower_user}, password {plan.flower_password}")
    caught = str(plan.servers.maildir / "new") if plan.servers and plan.servers.smtp_url else "your relay"
    table.add_row("Mails", f"{plan.public_url}/inbox" if plan.playground else caught)
    return table


def _people(seeded: Sample) -> list[tuple[str, str, str]]:
    roles = {key: role for key, _, _, role in VENDOR} | {key: role for key, _, role in CUSTOMER}
    return [(who, roles[who].replace("_", " "), token) for who, token in seeded.tokens.items()]


def _curl(plan: StackPlan, seeded: Sample, services: Mapping[str, Service]) -> str:
    service = USUAL if USUAL in services else next(iter(services))
    body = (
        f'{{"tenant":"{seeded.tenant}","service":"{service}",'
        f'"resources":["mailbox:anna@{seeded.tenant}.example"],"actions":["{services[service].actions[0]}"],"reason_code":"support_case",'
        '"justification":"Mails bounce since this morning.","case_ref":"CASE-1","access_window":600}'
    )
    return (
        f"curl -s {plan.public_url}/v1/requests -H 'Authorization: Bearer {seeded.tokens['erin']}' "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )
