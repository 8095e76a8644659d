"""The live table, or plain lines if the output is not a terminal."""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cli.request_table import WORDS
from demo.play import StoryRow
from demo.story import STORIES

WIDE = 110
GUARD_WIDTH = 28
LEGEND = "Caddy: how the gateway answers the engineer's calls now"
MAILS = sum(len(step.all_mails) for story in STORIES for step in story.told)
HOOKS = sum(len(step.hooks) for story in STORIES for step in story.told)


class View(AbstractContextManager["View"], Protocol):
    """What shows how the stories stand."""

    def say(self, line: str) -> None:
        """Show what is being done now."""

    def show(self, rows: list[StoryRow], mails: int, hooks: int) -> None:
        """Show how all stories stand now."""


def view_on(console: Console) -> View:
    """Return a live table for a terminal, else plain lines."""
    return LiveTable(console) if console.is_terminal else Lines(console)


class Lines:
    """A line for each thing that changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._told: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there is nothing to put away."""

    def say(self, line: str) -> None:
        """Print the line."""
        self._console.print(f"{time.monotonic() - self._began:5.1f} s  {line}", highlight=False, soft_wrap=True)

    def show(self, rows: list[StoryRow], mails: int, hooks: int) -> None:
        """Print the stories that have changed."""
        for row in rows:
            line = f"{row.story.number} {row.story.title}: {_state(row).plain}; Caddy {row.now}"
            if row.now and self._told.get(row.story.number) != line:
                self._told[row.story.number] = line
                self.say(f"{line} ({mails} mails, {hooks} webhooks so far)")


class LiveTable:
    """A table that is drawn again each time, and wiped at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Show the line in place of the table."""
        self._live.update(Spinner("dots", Text(f"{line} …", style="bold")), refresh=True)

    def show(self, rows: list[StoryRow], mails: int, hooks: int) -> None:
        """Draw the table."""
        wide = self._console.width >= WIDE
        table = Table(
            box=box.SIMPLE_HEAD,
            title="Lockbox demo: nine requests",
            caption=f"mails {mails} of {MAILS}, webhooks {hooks} of {HOOKS}\n{LEGEND}",
            title_style="bold",
            padding=(0, 1),
        )
        table.add_column("Request", width=29, no_wrap=True)
        table.add_column("State", width=23, no_wrap=True)
        table.add_column("Left", width=6, justify="right", no_wrap=True)
        table.add_column("Caddy", width=8, no_wrap=True)
        if wide:
            table.add_column("Caddy, the last few seconds", width=GUARD_WIDTH, no_wrap=True)
        for row in rows:
            left = "" if row.left is None else f"{row.left:.1f} s"
            guard_history = (_guard_history(row.said),) if wide else ()
            table.add_row(f"{row.story.number} {row.story.title}", _state(row), left, _guard(row.now), *guard_history)
        self._live.update(table, refresh=True)


def _state(row: StoryRow) -> Text:
    words, colour = WORDS[row.state]
    until = f" until {row.deadline_at:%H:%M:%S}" if row.state == "active" else ""
    return Text(words + until, style=colour)


def _guard(now: str | None) -> Text:
    return Text(now or "", style="bold green" if now == "serves" else "red")


def _guard_history(said: Iterable[str]) -> Text:
    marks = Text()
    for word in list(said)[-GUARD_WIDTH:]:
        marks.append("█" if word == "serves" else "▁", style="green" if word == "serves" else "red")
    return marks
