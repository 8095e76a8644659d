"""The last screen, and the file with every mail, webhook, event and answer behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from demo.evidence import DemoEvidence
from demo.proofs import ProofLine
from demo.stage import LOGS
from demo.story import STORIES
from devstack import stack

DETAILS = stack.CHECKOUT / "var" / "demo.txt"
MOST_OFF = 3


@dataclass(frozen=True)
class DemoOutcome:
    """The result of the demo; `seconds` is its whole duration."""

    tenant: str
    seconds: float
    stories: Sequence[ProofLine]
    proofs: Sequence[ProofLine]

    @property
    def off(self) -> tuple[str, ...]:
        """Everything that is wrong."""
        return tuple(line for proof in (*self.stories, *self.proofs) for line in proof.off)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.off


def show(console: Console, outcome: DemoOutcome) -> None:
    """Print a line for each story and each proof, and whatever is wrong."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width in (("Story", 29), ("Must be", 22), ("Was", 22), ("", 1)):
        table.add_column(name, width=width, no_wrap=True)
    for proof in outcome.stories:
        _add(table, proof)
    table.add_section()
    for proof in outcome.proofs:
        _add(table, proof)
    say = partial(console.print, highlight=False, no_wrap=True, overflow="ellipsis")
    say(f"[bold]Lockbox demo[/], tenant {outcome.tenant}, {outcome.seconds:.0f} s all in")
    say(table)
    for line in outcome.off[:MOST_OFF]:
        say(f"[red]✗[/] {escape(line)}")
    where = DETAILS.relative_to(stack.CHECKOUT)
    if outcome.good:
        say(f"[green]All is as it must be[/], see {where}. To look around yourself: [bold]make run[/]")
    else:
        say(f"[red]{len(outcome.off)} off.[/] All that was seen: {where}, logs: {LOGS.relative_to(stack.CHECKOUT)}")


def write_details(seen: DemoEvidence, outcome: DemoOutcome) -> None:
    """Write everything that was seen into var/demo.txt."""
    DETAILS.parent.mkdir(parents=True, exist_ok=True)
    numbers = {request["id"]: number for number, request in seen.requests.items()}
    lines = [f"Lockbox demo, tenant {outcome.tenant}", "", "Proofs"]
    for proof in (*outcome.stories, *outcome.proofs):
        lines.append(f"  {'✓' if proof.holds else '✗'} {proof.title}: must be {proof.expected}; was {proof.seen}")
        lines += [f"      {line}" for line in proof.off]
    lines += ["", "Requests"]
    lines += [f"  {number} {one['id']} {one['state']}" for number, one in seen.requests.items()]
    lines += [*_told(seen, numbers), *_asked(seen)]
    DETAILS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _told(seen: DemoEvidence, numbers: dict[str, int]) -> list[str]:
    lines = ["", "Mails (story, recipient, subject)"]
    lines += [f"  {numbers.get(m.request_id)} {m.to:<5} {m.subject}" for m in seen.mails]
    lines += ["", "Webhooks (story, endpoint, type, signature, answer, id)"]
    for hook in seen.hooks:
        signed = "verified" if hook.verified else "WRONG"
        told = f"{hook.endpoint:<8} {hook.type:<17} {signed} {hook.status} {hook.hook_id}"
        lines.append(f"  {numbers.get(hook.request_id)} {told}")
    lines += ["", "Events (story, seq, at, move, by, deadline)"]
    for number, events in seen.events.items():
        for event in events:
            who = event["actor"]["name"] if event["actor"] else "the clock"
            move = f"{event['action']}: {event['from_state'] or '-'} -> {event['to_state']}"
            lines.append(f"  {number} {event['seq']} {event['at']} {move} by {who}, deadline {event['deadline_at']}")
    return lines


def _asked(seen: DemoEvidence) -> list[str]:
    lines = ["", "Answers of Caddy, in front of the service (story, asked, answered, status)"]
    for story in STORIES:
        for probe in seen.probes[story.number]:
            sent, answered = (datetime.fromtimestamp(at, UTC).isoformat() for at in (probe.sent, probe.answered))
            lines.append(f"  {story.number} {sent} {answered} {probe.status}")
    lines += ["", "Tasks in Flower", *(f"  {name} {times}" for name, times in sorted(seen.tasks.items()))]
    lines += ["", "Control calls to Flower", *(f"  {call} {status}" for call, status in seen.control.items())]
    lines += ["", "Verifying the audit log, as it is and with a byte flipped"]
    for verified in (seen.audit_log.verified, seen.audit_log.flipped):
        lines += [f"  {line}" for line in (verified.said if verified else "never").splitlines()]
    return lines


def _add(table: Table, proof: ProofLine) -> None:
    colour, mark = ("green", "✓") if proof.holds else ("red", "✗")
    table.add_row(proof.title, proof.expected, f"[{colour}]{proof.seen}[/]", f"[{colour}]{mark}[/]")
