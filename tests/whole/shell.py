"""A terminal in which people of a small world run the command `lockbox` against a real API."""

import subprocess

from typer.testing import CliRunner

from cli.app import app
from harness.people import World
from tests.commands import WIDE, Commands
from tests.whole.conftest import RunningStack
from tests.whole.warm import warm


class Shell(Commands):
    """Runs commands against the API of a stage."""

    def __init__(self, stage: RunningStack, world: World) -> None:
        super().__init__(world, stage.plan.public_url)
        self.stage = stage

    def log(self) -> str:
        return (self.stage.processes.logs / "api.log").read_text()


def at_once(variables: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the command inside this process, which has already imported everything."""
    result = CliRunner().invoke(app, words, env={"COLUMNS": WIDE} | variables)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)


def lockbox(variables: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return warm().run({"COLUMNS": WIDE} | variables, module="cli", options=words)
