"""`make mutants`: run mutmut over the rules and the audit's code, and count for each file what the tests see."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOUND = Path("mutants/lockbox")
KILLED, TIMED_OUT, UNTESTED = {1, 3, 37}, {24, -24, 36, 152, 255}, {5, 33}
LEAST = 90.0


def main() -> int:
    """Run what is chosen on the command line, or all; the exit code is 1 where a file is below its 90 %."""
    subprocess.run([sys.executable, "-m", "mutmut", "run", "--max-children", "2", *sys.argv[1:]], check=True)
    table, bad = Table("file", "mutants", "killed", "survived", "no test", "seen", show_edge=False), False
    for file in sorted(FOUND.rglob("*.py.meta")):
        codes = [code for code in json.loads(file.read_text())["exit_code_by_key"].values() if code is not None]
        if not codes:
            continue
        counted = Counter(_word(code) for code in codes)
        share = 100 * counted["killed"] / len(codes)
        bad = bad or share < LEAST
        numbers = (len(codes), *(counted[word] for word in ("killed", "survived", "no test")))
        table.add_row(str(file.relative_to(FOUND)).removesuffix(".meta"), *map(str, numbers), f"{share:.1f} %")
    Console().print(table)
    return int(bad)


def _word(code: int) -> str:
    if code in KILLED | TIMED_OUT:
        return "killed"
    return "no test" if code in UNTESTED else "survived"


if __name__ == "__main__":
    sys.exit(main())
