"""The marks of the dialect that docs, docstrings and test names still have: their number only falls."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
CODE = (
    "api",
    "cli",
    "config",
    "connectors",
    "gate",
    "guard",
    "harness",
    "lockbox",
    "packages",
    "reference",
    "worker",
)
MARKS = re.compile(
    r"(?:\b|_)(?:nobody|somebody|whoever|whom|anew|for ever|for good|goes on|go on"
    r"|(?:is|are|was|were) told|hears? of|by itself alone|as of now)(?:\b|_)",
    re.IGNORECASE,
)
MOST = {"docs": 0, "docstrings": 0, "test names": 0}
"""How many there may be: lower a number whenever there are fewer, and never raise one."""


def _docs() -> Iterator[str]:
    pages = {*(HOME / "docs").rglob("*.md"), *HOME.glob("*.md"), *(HOME / "guard").glob("*.md")}
    yield from (page.read_text(encoding="utf-8") for page in sorted(pages))


def _trees(*folders: str) -> Iterator[ast.Module]:
    files = (file for folder in folders for file in sorted((HOME / folder).rglob("*.py")))
    yield from (ast.parse(file.read_text(encoding="utf-8")) for file in files)


def _docstrings() -> Iterator[str]:
    """Yield docstrings, and the strings below attributes and constants."""
    for tree in _trees(*CODE):
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                yield str(node.value.value)


def _test_names() -> Iterator[str]:
    for tree in _trees("tests"):
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name.replace("_", " ")


KINDS = {"docs": _docs, "docstrings": _docstrings, "test names": _test_names}


@pytest.mark.parametrize("kind", KINDS)
def test_marks_of_the_dialect_only_become_fewer(kind: str) -> None:
    number = sum(len(MARKS.findall(text)) for text in KINDS[kind]())

    assert number <= MOST[kind], "say who or what it is: the approver, the requester, no one, again, is notified"
    assert number >= MOST[kind] - 25, f"lower the number of {kind} in MOST to {number}"


def test_a_mark_is_a_whole_word() -> None:
    assert MARKS.findall("Nobody is told of it, and whoever asks goes on.") == [
        "Nobody",
        "is told",
        "whoever",
        "goes on",
    ]
    assert not MARKS.findall("Anyone is notified and continues; a renewal.")
