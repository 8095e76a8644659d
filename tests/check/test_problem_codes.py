"""The list of problem codes has every code that the server writes."""

import ast
from collections.abc import Iterator

from api.problems import OF_THE_SERVER, every_code
from tests.check.sources import files, tree

SOURCES = ("api", "connectors", "gate", "lockbox", "worker")
WRITERS = {"problem", "plain_problem", "early", "RefusedQuestion"}
LISTED = {(one.status, one.code) for one in every_code()}


def calls() -> Iterator[tuple[int, str]]:
    """Yield the status and code of each call that writes a problem document with both as constants."""
    for path in files("api"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WRITERS:
                plain = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                statuses = [one for one in plain if isinstance(one, int)]
                if statuses and (codes := [one for one in plain if isinstance(one, str)]):
                    yield statuses[0], codes[0]


def test_each_problem_code_in_the_source_is_listed_in_the_documentation() -> None:
    written = set(calls())

    assert len(written) > 10
    assert written <= LISTED


def classes_with_codes() -> Iterator[str]:
    """Yield the code of each error class of the sources, whether or not this process has imported it."""
    for path in files(*SOURCES):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and node.bases:
                for one in node.body:
                    if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "code":
                        yield ast.literal_eval(one.value)


def test_each_problem_code_of_an_error_class_is_listed_with_a_meaning() -> None:
    codes = set(classes_with_codes())

    assert {"invalid-move", "duplicate-request"} < codes
    assert codes == {code for _, code in LISTED} - {one.code for one in OF_THE_SERVER}
    assert [one.code for one in every_code() if not one.meaning.endswith(".")] == []


def test_no_problem_code_is_listed_twice_with_the_same_status() -> None:
    every = every_code()

    assert len(every) == len(LISTED)
    assert {one.code for one in OF_THE_SERVER} >= {"internal", "unavailable", "invalid-json"}
