"""The Python files of this repository, each read and parsed once."""

import ast
from functools import cache
from pathlib import Path

HOME = Path(__file__).parents[2]
PRODUCT = ("api", "catalogue", "cli", "config", "connectors", "devstack", "gate", "lockbox", "packages", "worker")


@cache
def source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(source(path))


@cache
def files(*folders: str) -> tuple[Path, ...]:
    """Return all Python files below some folders of the repository, in order."""
    return tuple(path for folder in folders for path in sorted((HOME / folder).rglob("*.py")))
