"""Names and lengths: a class name is unique in the repository, a file is named after a thing and stays short."""

import ast
import re
from collections import defaultdict
from pathlib import Path

from tests.check.sources import HOME, PRODUCT, files, source, tree
from tests.conftest import SECONDS

EVERYWHERE = (*PRODUCT, "bench", "chaos", "demo", "deploy", "harness", "reference", "tests")
MOST_LINES = 600
MOST_PARAMETERS = 8
CLASS_LINE = re.compile(r"^[ \t]*class[ \t]+(\w+)", re.MULTILINE)

NOUNS = {"keyring", "logging", "mapping", "policy_wording", "request_wording", "wording"}
"""File names in -ing that are nouns: a ring of keys, the log's settings as Python calls them, a map, and words."""


def is_migration(path: Path) -> bool:
    return "migrations" in path.parts


def test_a_class_name_is_unique_in_the_repository() -> None:
    lines = defaultdict[str, list[Path]](list)
    for path in files(*EVERYWHERE):
        for name in CLASS_LINE.findall(source(path)):
            lines[name].append(path)
    assert len(lines) > 500

    # What looks like a class may stand in a text: only files that seem to share a name are worth reading as Python.
    shared = {path for paths in lines.values() if len(paths) > 1 for path in paths}
    places = defaultdict[str, list[str]](list)
    for path in sorted(shared):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(HOME)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_file_name_is_a_gerund() -> None:
    names = {path: path.stem for path in files(*PRODUCT) if not is_migration(path)}

    assert [
        str(path.relative_to(HOME)) for path, name in names.items() if name.endswith("ing") and name not in NOUNS
    ] == []
    assert set(names.values()) >= NOUNS


def test_a_repository_file_has_at_most_six_hundred_lines() -> None:
    long = {
        str(path.relative_to(HOME))
        for path in files(*EVERYWHERE)
        if not is_migration(path) and len(source(path).splitlines()) > MOST_LINES
    }

    assert long <= {"tests/whole/test_doctor.py"}


def test_a_function_of_the_portal_has_at_most_eight_parameters() -> None:
    longest = {
        f"{path.name}:{node.name}"
        for path in files("api/portal")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and sum(isinstance(part, ast.arg) for part in ast.walk(node.args)) > MOST_PARAMETERS
    }

    assert longest == set()


def test_slow_test_files_carry_the_far_marker() -> None:
    gone = [
        name for name in SECONDS if not (HOME / "tests" / name.replace("/", "/test_")).with_suffix(".py").exists()
    ]

    assert gone == []
