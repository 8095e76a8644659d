"""Prints the part of a lock that an image needs: `lock.py` for the servers, `lock.py EXTRA [LOCK]` for an extra.

`lock.py production` prints what production needs in a checkout: the servers, and what builds the project itself.

The lock is requirements.lock unless one that has the extra is named. It follows the lock's own notes of what was
required by what, so it needs nothing but Python; with --require-hashes pip then refuses to install if anything were
missing.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

PRODUCTION = "production"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def part(lock: str, roots: Iterable[str]) -> str:
    """Return the entries of the roots and of all that they require."""
    entries = {_name(entry): entry for entry in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]}
    parents = {name: _required_by(entry) for name, entry in entries.items()}
    needed = {_name(root) for root in roots}
    while more := {name for name, by in parents.items() if name not in needed and by & needed}:
        needed |= more
    return "".join(entry for name, entry in entries.items() if name in needed)


def _required_by(entry: str) -> set[str]:
    _, _, note = entry.partition("# via")
    return {_name(word) for line in note.splitlines() if (word := line.strip(" #"))}


def _name(text: str) -> str:
    found = NAME.match(text)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def main() -> None:
    """Read the project and a lock in this folder."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra, lock = (*sys.argv[1:], None, None)[:2]
    servers, extras = project["dependencies"], project["optional-dependencies"]
    roots = [*servers, *extras["build"]] if extra == PRODUCTION else extras[extra] if extra else servers
    sys.stdout.write(part(Path(lock or "requirements.lock").read_text(encoding="utf-8"), roots))


if __name__ == "__main__":
    main()
