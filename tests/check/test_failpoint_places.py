"""Each failpoint has one place in the code and one line in the list."""

import ast
from collections import Counter
from collections.abc import Iterator

from lockbox.failpoints import POINTS
from tests.check.sources import files, tree


def _reached() -> Iterator[str]:
    for file in files("api", "connectors", "gate", "lockbox", "worker"):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{file}: name the failpoint where it is"
                yield str(name.value)


def test_each_listed_failpoint_is_used_in_the_code_exactly_once() -> None:
    found = Counter(_reached())

    assert set(found) == set(POINTS)
    assert {name for name, times in found.items() if times > 1} == set()
