"""The list of problem codes has every code that the server writes."""

import ast
from collections.abc import Iterator
from pathlib import Path

from api import problem_codes
from api.problem_codes import OF_THE_SERVER
from lockbox.errors import LockboxError

API = Path(problem_codes.__file__).parent
WRITERS = {"problem", "plain_problem", "early", "RefusedQuestion"}
LISTED = {(one.status, one.code) for one in problem_codes.every()}


def calls() -> Iterator[tuple[int, str]]:
    """Yield status and code of each call that writes a problem with both as they stand."""
    for path in API.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WRITERS:
                plain = [one.value for one in node.args if isinstance(one, ast.Constant)]
                statuses = [one for one in plain if isinstance(one, int)]
                if statuses and (codes := [one for one in plain if isinstance(one, str)]):
                    yield statuses[0], codes[0]


def test_each_code_that_is_written_is_listed() -> None:
    written = set(calls())

    assert len(written) > 10
    assert written <= LISTED


def test_each_code_of_an_error_class_is_listed_with_a_meaning() -> None:
    def classes(kind: type[LockboxError]) -> Iterator[type[LockboxError]]:
        for one in kind.__subclasses__():
            yield one
            yield from classes(one)

    codes = {one.code for one in classes(LockboxError)}

    assert codes <= {code for _, code in LISTED}
    assert [one.code for one in problem_codes.every() if not one.meaning.endswith(".")] == []


def test_no_code_is_listed_twice_with_one_status() -> None:
    every = problem_codes.every()

    assert len(every) == len(LISTED)
    assert {one.code for one in OF_THE_SERVER} >= {"internal", "unavailable", "invalid-json"}
