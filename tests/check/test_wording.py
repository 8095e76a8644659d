"""The wording of pages and mails is in their templates and in one file each, and not in other code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from api.portal import phrases
from lockbox.notifications import chat_text, mail_text, request_wording
from tests.check.sources import files, source, tree
from tests.each import each

PORTAL, MAILS = Path(phrases.__file__).parent, Path(mail_text.__file__).parent
PLAYGROUND = PORTAL.with_name("playground")
RENDERS = ("account_mail", "chat_message", "delivery_status", "request_mail", "webhook", "window_report")
"""The modules that make mails and messages; the others of their folder send them."""
FILES = sorted(
    [
        *(file for file in PORTAL.rglob("*.py") if file.stem not in ("phrases", "user_agents")),
        *(PLAYGROUND / f"{name}.py" for name in ("mails", "play")),
        *(MAILS / f"{name}.py" for name in RENDERS),
    ]
)
"""`user_agents` has names of browsers and systems, which are nobody's wording."""
NO_WORDING = {
    '-H "Authorization: Bearer $LOCKBOX_TOKEN"': "a call by curl",
    "device login of ": "the key of a counter",
    "files of person ": "the key of a counter",
    "files of tenant ": "the key of a counter",
    "of the vendor": "the key of a counter",
    "the endpoint answered ": "an error for the log of calls",
    "no key opens the endpoint's secret": "an error for the log of calls",
}
FORMAL = re.compile(r"; charset=|; filename=|, max-age=|-src '|--brand: |<base |<svg |^\nWITH ")
"""What is in headers, markup, style sheets and parts of statements."""
WORDS = re.compile(r"[A-Za-z]{2,}[,;:.')]* [(*]?[A-Za-z]")
WORD = re.compile(r"[A-Z][a-z]+[.:]?")
CODE = ("TypeVar", "text")
"""What is called with a name or a statement."""


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the strings in code that read like wording: two words, or one with a capital letter; no comments."""
    apart = {id(one) for node in ast.walk(tree) for one in _apart(node)}
    constants = [one for one in ast.walk(tree) if isinstance(one, ast.Constant) and id(one) not in apart]
    for text in (constant.value for constant in constants if isinstance(constant.value, str)):
        if WORD.fullmatch(text) or (WORDS.search(text) and not FORMAL.search(text)):
            yield text


def _apart(node: ast.AST) -> Iterator[ast.AST]:
    """Yield docstrings, and what is inside calls that make SQL statements or names."""
    if isinstance(node, ast.Expr):
        yield node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CODE:
        yield from ast.walk(node)


FOUND = {file: list(texts(tree(file))) for file in FILES}


@each("file", FILES)
def test_code_contains_no_text_that_users_see(file: Path) -> None:
    assert [text for text in FOUND[file] if text not in NO_WORDING] == []


def test_each_listed_exemption_of_the_wording_check_still_exists() -> None:
    assert NO_WORDING.keys() - {text for found in FOUND.values() for text in found} == set()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('raise Invalid("There is no such page.")', ["There is no such page."]),
        ('raise Invalid(f"Choose at most {most} requests.")', ["Choose at most "]),
        ('Series("Requests", "submitted")', ["Requests"]),
        ('said = f"{number} of them outside the request"', [" of them outside the request"]),
        ('"""Say what a page is for."""\nX = 1\n"""The number of it."""', []),
        ('text("SELECT name FROM people")', []),
        ('page(request, "own_requests", 200)', []),
    ],
)
def test_the_wording_check_distinguishes_text_from_code(code: str, found: list[str]) -> None:
    assert list(texts(ast.parse(code))) == found


def used(name: str) -> Iterator[str]:
    """Yield the names that code uses from a wording module, and those that the module itself uses."""
    for file in files("api", "cli", "lockbox", "reference"):
        for node in ast.walk(tree(file)) if name in source(file) or file.stem == name else ():
            if isinstance(node, ast.ImportFrom) and str(node.module).endswith(f".{name}"):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name:
                yield node.attr
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and file.stem == name:
                yield node.id


@each("module", [phrases, mail_text, chat_text, request_wording])
def test_each_phrase_of_the_wording_file_is_used(module: ModuleType) -> None:
    constants = {var for var in vars(module) if var.isupper()}

    assert constants - set(used(module.__name__.rpartition(".")[2])) == set()
