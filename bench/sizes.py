"""Print how large the project is, and in how many files a field of a request is named, at one or two commits.

python -m bench.sizes [COMMIT [BEFORE]]
"""

import ast
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from rich.console import Console
from rich.table import Table

SERVER = ("api", "catalogue", "cli", "config", "connectors", "devstack", "gate", "lockbox", "worker")
# The folder of packages, and the folder in which the guard used to be.
PACKAGES = ("packages", "guard")
PRODUCT = (*SERVER, *PACKAGES, "demo", "deploy", "harness")
FIELDS = ("severity", "max_uses", "case_ref", "not_before", "employing_entity")
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Commit:
    """The committed files of a revision, by path."""

    name: str
    files: dict[PurePosixPath, str]

    @classmethod
    def read(cls, revision: str) -> "Commit":
        """Read a revision of the repository in the current folder.

        Raises:
            subprocess.CalledProcessError: there is no such revision.
        """
        name = _git("rev-parse", "--short", revision).decode().strip()
        with tarfile.open(fileobj=io.BytesIO(_git("archive", revision))) as archive:
            files = {PurePosixPath(member.name): archive.extractfile(member) for member in archive if member.isfile()}
            return cls(name, {path: file.read().decode(errors="replace") for path, file in files.items() if file})

    def under(self, *folders: str, suffix: str = "") -> Iterator[tuple[PurePosixPath, str]]:
        """Iterate over the files in top-level folders."""
        return (
            (path, text)
            for path, text in self.files.items()
            if path.parts[0] in folders and path.name.endswith(suffix)
        )


def server_lines(commit: Commit) -> int:
    """Count the lines of Python of the server, migrations included."""
    return sum(_lines(text) for _, text in commit.under(*SERVER, suffix=".py"))


def package_lines(commit: Commit) -> int:
    """Count the lines of Python of the packages, without their tests."""
    return sum(_lines(text) for path, text in commit.under(*PACKAGES, suffix=".py") if "tests" not in path.parts)


def test_lines(commit: Commit) -> int:
    """Count the lines of Python of the tests, those of packages included."""
    packaged = (text for path, text in commit.under(*PACKAGES, suffix=".py") if "tests" in path.parts)
    return sum(map(_lines, packaged)) + sum(_lines(text) for _, text in commit.under("tests", suffix=".py"))


def docstring_words(commit: Commit) -> int:
    """Count the words of the server's docstrings."""
    return sum(
        len((ast.get_docstring(node) or "").split())
        for _, text in commit.under(*SERVER, suffix=".py")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, DOCUMENTED)
    )


def doc_words(commit: Commit) -> int:
    """Count the words of the docs, and of the packages' READMEs; the changelog has a limit of its own."""
    readmes = (text for path, text in commit.under(*PACKAGES, suffix="README.md"))
    return sum(len(text.split()) for text in readmes) + sum(
        len(text.split()) for _, text in commit.under("docs", suffix=".md")
    )


def naming(field: str) -> Callable[[Commit], int]:
    """Return a function that counts the product files that name a field."""
    word = re.compile(rf"\b{field}\b")
    return lambda commit: sum(bool(word.search(text)) for _, text in commit.under(*PRODUCT))


FIGURES: dict[str, Callable[[Commit], int]] = {
    "lines of the server": server_lines,
    "lines of packages": package_lines,
    "lines of tests": test_lines,
    "words of docstrings": docstring_words,
    "words of docs": doc_words,
    **{f"files that name {field}": naming(field) for field in FIELDS},
}


def main(revisions: list[str]) -> None:
    """Print the figures of a commit, HEAD by default, beside those of an earlier commit."""
    commits = [Commit.read(revision) for revision in reversed(revisions or ["HEAD"])]
    table = Table()
    table.add_column()
    for commit in commits:
        table.add_column(commit.name, justify="right")
    for title, count in FIGURES.items():
        table.add_row(title, *(f"{count(commit):,}" for commit in commits))
    Console().print(table)


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE).stdout  # noqa: S607 - any git


def _lines(text: str) -> int:
    return len(text.splitlines())


if __name__ == "__main__":
    main(sys.argv[1:])
