"""`make failpoints`: play every scene on one stage, or those named on the command line, and print a line for each."""

import sys
import time
from collections.abc import Sequence

import pytest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from harness.stage import migrated_servers
from lockbox.failpoints import POINTS
from tests.whole.failpoints.scenes import SCENES, FailpointScene, Theatre, theatre

OUT = Console()


def main() -> int:
    """Play the scenes and print the table; exit with 1 if anything was lost, doubled or left open."""
    chosen = [scene for scene in SCENES if not sys.argv[1:] or any(word in scene.title for word in sys.argv[1:])]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    played: list[tuple[FailpointScene, float, list[str]]] = []
    with (
        migrated_servers("failpoints") as servers,
        theatre(servers, servers.folder.parent / "logs") as open_theatre,
        Progress(*columns, console=OUT) as bar,
    ):
        task = bar.add_task("failpoints", total=len(chosen))
        for scene in chosen:
            bar.update(task, description=scene.title)
            began = time.monotonic()
            wrong = _wrong(open_theatre, scene)
            played.append((scene, time.monotonic() - began, wrong))
            bar.advance(task)
    _show(played)
    return 1 if any(wrong for *_, wrong in played) else 0


def _wrong(open_theatre: Theatre, scene: FailpointScene) -> list[str]:
    try:
        return open_theatre.play(scene)
    except (AssertionError, pytest.fail.Exception, RuntimeError) as error:
        return [f"{type(error).__name__}: {error}"]


def _show(played: Sequence[tuple[FailpointScene, float, list[str]]]) -> None:
    table = Table("", "process", "ends at", "where", "seconds", show_edge=False)
    for scene, seconds, wrong in played:
        sign = "[red]✗[/]" if wrong else "[green]✓[/]"
        table.add_row(sign, scene.play.process, scene.point, POINTS[scene.name], f"{seconds:.0f}")
    OUT.print(table)
    for scene, _, wrong in played:
        for line in wrong:
            OUT.print(f"[red]✗[/] {scene.title}: {line}", highlight=False)
    if not any(wrong for *_, wrong in played):
        OUT.print(f"[green]Nothing was lost, doubled or left open, whichever of {len(played)} ends a process met.[/]")


sys.exit(main())
