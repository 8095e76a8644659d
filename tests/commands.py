"""A terminal in which people of a small world run the command `lockbox` inside the test's process."""

import json
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from cli.app import app
from harness.people import World

WIDE = "200"


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@dataclass
class Commands:
    """Runs commands as a person of the world, against the API at an address."""

    world: World
    url: str

    def token(self, who: str | None) -> dict[str, str]:
        """Return a person's environment variables; without a person, only the API's address."""
        known = {"LOCKBOX_URL": self.url}
        return known | ({"LOCKBOX_TOKEN": self.world.tokens.get(who, who)} if who else {})

    def run(self, who: str | None, *words: object, stdin: str | None = None, columns: str = WIDE) -> CommandResult:
        """Run the command as a person of the world, or with a token."""
        variables: dict[str, str | None] = {"COLUMNS": columns, **self.token(who)}
        result = CliRunner().invoke(app, [str(word) for word in words], input=stdin, env=variables)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return CommandResult(result.exit_code, result.stdout, result.stderr)

    def does(self, who: str | None, *words: object, stdin: str | None = None) -> str:
        """Run the command, which must succeed and report no error, and return what it printed."""
        ended = self.run(who, *words, stdin=stdin)
        assert (ended.code, ended.err) == (0, ""), ended
        return ended.out

    def reads(self, who: str | None, *words: object, stdin: str | None = None) -> Any:
        """Run the command with --output json and return what it printed."""
        return json.loads(self.does(who, *words, "--output", "json", stdin=stdin))

    def is_refused(self, who: str | None, code: str, *words: object, stdin: str | None = None) -> str:
        """Run the command, which must exit with 1 and print one line that begins with the code; return the line."""
        ended = self.run(who, *words, stdin=stdin)
        assert (ended.code, ended.out) == (1, ""), ended
        assert ended.err.startswith(code), ended.err
        assert ended.err.count("\n") == 1
        return ended.err
