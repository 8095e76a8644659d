"""Discouraged English words in docs, docstrings, test names and wording: their number only falls."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.check.sources import HOME, PRODUCT, files, source, tree

MARKS = re.compile(
    r"\b(?:nobody|somebody|whoever|whom|anew|for ever|for good|go(?:es)? on|(?:is|are|was|were) told|hears? of)\b",
    re.IGNORECASE,
)
SHOWN = re.compile(r"^ *```.*?^ *```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
"""What a page shows as code, names of tests too."""
MOST = {"docs": 5, "docstrings": 27, "test names": 0, "wording": 118, "API description": 9}
"""How many there may be: never raise a number, and lower it when there are fewer."""
ROOM = 10
"""By how much a number may be below its limit."""
WORDING = (
    *("api/portal/templates/*.html", "lockbox/audit/templates/*.html", "lockbox/notifications/templates/*.*"),
    *("api/portal/phrases.py", "lockbox/audit/wording.py", "lockbox/notifications/*_text.py"),
    "lockbox/notifications/*wording.py",
)


def _docs() -> Iterator[str]:
    pages = {page for name in ("*.md", "docs/**/*.md", "packages/*/*.md") for page in HOME.glob(name)}
    yield from (SHOWN.sub("", source(page)) for page in sorted(pages))


def _docstrings() -> Iterator[str]:
    for path in files(*PRODUCT, "harness", "reference"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                yield str(node.value.value)


def _test_names() -> Iterator[str]:
    for path in files("tests"):
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name.replace("_", " ")


def _wording() -> Iterator[str]:
    for pattern in WORDING:
        paths = sorted(HOME.glob(pattern))
        assert paths, pattern
        yield from map(source, paths)


def _api_description() -> Iterator[str]:
    yield from sorted(set(source(HOME / "api" / "openapi.json").splitlines()))


KINDS = {
    "docs": _docs,
    "docstrings": _docstrings,
    "test names": _test_names,
    "wording": _wording,
    "API description": _api_description,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_count_of_discouraged_english_words_in_the_repository_does_not_grow(kind: str) -> None:
    number = sum(len(MARKS.findall(text)) for text in KINDS[kind]())

    assert number <= MOST[kind], "name the person or thing: the requester, no one, again, continues, is notified"
    assert number >= MOST[kind] - ROOM, f"lower the limit to {number}"


def test_a_discouraged_english_word_is_matched_only_as_a_whole_word() -> None:
    text = "Nobody is told of it, and whoever asks goes on."

    assert MARKS.findall(text) == ["Nobody", "is told", "whoever", "goes on"]
    assert not MARKS.findall("Anyone is notified and continues; a renewal.")
