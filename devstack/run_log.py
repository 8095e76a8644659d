"""What the processes of `make run` say: in a file, or on the terminal."""

import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import honcho.manager
import honcho.printer
from rich.console import Console

LAST_LINES = 15
FOR_PEOPLE = "lockbox: "
"""How a line begins by which a process says why it does not start, or that it is started again."""


@contextmanager
def new_log(path: Path | None) -> Iterator[TextIO]:
    """Return a new file that only we can read, in the place of an earlier one; without a path, the terminal."""
    if path is None:
        yield sys.stdout
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # An earlier one may still be written by another `make run`.
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    with path.open("w", encoding="utf-8") as file:
        yield file


class LogPrinter(honcho.printer.Printer):  # type: ignore[misc] # honcho has no types
    """honcho's printer; what honcho itself says is also told, and what people must know goes to the console too."""

    def __init__(self, output: TextIO, console: Console | None) -> None:
        super().__init__(output)
        self.tell: Callable[[str], object] = str
        self._console = console
        self._waiting: deque[Callable[[], object]] = deque()
        self._is_printing = False
        self._last: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=LAST_LINES))

    def write(self, message: Any) -> None:  # noqa: ANN401 - honcho's
        """Print the lines of a message."""
        self.in_turn(partial(self._write, message))

    def in_turn(self, prints: Callable[[], object]) -> None:
        """Print, or have that done once what is being printed is: a signal may come in the middle of a line.

        Python's files refuse to be written by a signal's handler then.
        """
        self._waiting.append(prints)
        if self._is_printing:
            return
        self._is_printing = True
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._is_printing = False

    def _write(self, message: Any) -> None:  # noqa: ANN401 - honcho's
        super().write(message)
        if message.name == honcho.manager.SYSTEM_PRINTER_NAME:
            self.tell(message.data)
            return
        text = message.data if isinstance(message.data, str) else message.data.decode(errors="replace")
        for line in text.splitlines():
            self._last[message.name].append(line)
            if self._console and line.startswith(FOR_PEOPLE):
                self._console.print(f"{message.name}: {line.removeprefix(FOR_PEOPLE)}", markup=False)

    def last_of(self, name: str) -> list[str]:
        """Return the last lines of a process."""
        return list(self._last[name])
