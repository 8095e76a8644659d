"""`make mutants`: run mutmut on the rules and the audit code, and count each module's mutants that tests kill."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOUND = Path("mutants/lockbox")
KILLED, TIMED_OUT, UNTESTED = {1, 3, 37}, {24, -24, 36, 152, 255}, {5, 33}
LEAST = 90.0


def main() -> int:
    """Run the modules named on the command line, or all; exit with 1 if a module is below 90 %."""
    subprocess.run([sys.executable, "-m", "mutmut", "run", "--max-children", "2", *sys.argv[1:]], check=True)
    modules = {_module(file): counted for file in sorted(FOUND.rglob("*.py.meta")) if (counted := _counted(file))}
    below = [module for module, counted in modules.items() if _share(counted) < LEAST]
    console = Console(highlight=False)
    console.print(_table(modules))
    if below:
        console.print(f"[red]below {LEAST:.0f} %: {', '.join(below)}[/red]; mutmut show NAME shows what nobody saw")
    elif modules:
        console.print(
            f"[green]the tests see at least {LEAST:.0f} % of the changes in each of {len(modules)} modules[/green]"
        )
    return int(bool(below) or not modules)


def _module(file: Path) -> str:
    return str(file.relative_to(FOUND)).removesuffix(".py.meta")


def _counted(file: Path) -> Counter[str]:
    """Return how many of a module's mutants that were run were killed, and how many were not."""
    codes = json.loads(file.read_text())["exit_code_by_key"].values()
    return Counter(_word(code) for code in codes if code is not None)


def _word(code: int) -> str:
    if code in KILLED | TIMED_OUT:
        return "killed"
    return "no test" if code in UNTESTED else "survived"


def _share(counted: Counter[str]) -> float:
    return 100 * counted["killed"] / counted.total()


def _table(modules: Mapping[str, Counter[str]]) -> Table:
    table = Table("module", show_edge=False)
    for heading in ("killed", "of", "survived", "no test", "percent"):
        table.add_column(heading, justify="right")
    for module, counted in [*modules.items(), ("all", sum(modules.values(), Counter()))]:
        if not counted:
            continue
        share = _share(counted)
        colour, mark = ("green", "") if share >= LEAST else ("red", " <")
        numbers = (counted["killed"], counted.total(), counted["survived"], counted["no test"])
        table.add_row(module, *map(str, numbers), f"{share:.1f}{mark}", style=colour)
    return table


if __name__ == "__main__":
    sys.exit(main())
