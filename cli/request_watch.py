"""`lockbox request watch`: follow the events of a request."""

import json
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer

from cli import request_table, terminal
from cli.client import NoAnswer, answer_of, at, warn
from cli.inputs import duration_option, seconds
from cli.request_ids import RequestId, request_id
from cli.terminal import Output, OutputFormat
from cli.values import moment, phrase, words
from config import local_zone
from lockbox.facts.enumerations import State
from lockbox.requests.lifecycle import OPEN_STATES

app = typer.Typer()

Event = Mapping[str, Any]


class Awaited(StrEnum):
    END = "end"
    ACTIVE = "active"


EVERY_HELP = "how often to look, at least 1s; 2s if left out"
Every = Annotated[int, duration_option("--every", EVERY_HELP, partial(seconds, least=1), show_default=False)]
Until = Annotated[Awaited, typer.Option("--until", help="wait for its end, or until access is open")]


@app.command()
def watch(
    request: RequestId, until: Until = Awaited.END, every: Every = 2, output: Output = OutputFormat.TABLE
) -> None:
    """Follow a request until it ends, a line for each event.

    JSON comes as one object a line. While the API does not answer, the command says so and continues. With
    --until active it ends with 0 once access is open, and with 1 if the request ends without access.
    """
    path, seen = at("requests", request_id(request), "events"), set[str]()
    if output is OutputFormat.TABLE:
        terminal.say(f"Times are in {local_zone.described()}.")
    while True:
        events = _events(path, every)
        fresh = [event for event in events if json.dumps(event) not in seen]
        _print(fresh, output, is_first=not seen)
        seen.update(map(json.dumps, fresh))
        state = next(event["to_state"] for event in reversed(events) if event["to_state"])
        if state == until.value:
            return
        if State(state) not in OPEN_STATES:
            raise typer.Exit(0 if until is Awaited.END else 1)
        time.sleep(every)


def _events(path: str, every: int) -> list[Event]:
    has_warned = False
    while True:
        try:
            found: list[Event] = answer_of("GET", path)["items"]
        except NoAnswer as away:
            if not has_warned:
                warn(f"{away} Trying again.")
            has_warned = True
            time.sleep(every)
        else:
            return found


def _print(events: Iterable[Event], output: OutputFormat, *, is_first: bool) -> None:
    match output:
        case OutputFormat.JSON:
            for one in events:
                print(json.dumps(one, ensure_ascii=False), flush=True)
        case OutputFormat.CSV:
            terminal.as_csv(request_table.events(events), with_names=is_first)
        case OutputFormat.TABLE:
            for one in events:
                terminal.say(_line(one))


def _line(event: Event) -> object:
    until = (" until ", moment(event["deadline_at"])) if event["deadline_at"] else ()
    state = (f" → {words(event['to_state'])}", *until) if event["to_state"] else ()
    said = request_table.beside(event)
    who = request_table.who(event)
    return phrase(moment(event["at"]), f"  {who}: {request_table.action(event)}", *state, f"  {said}" if said else "")
