"""Private parts of the frameworks, which a new version may change, stand where `lockbox/driver` says."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.check.sources import HOME, files, tree

FRAMEWORKS = {
    "celery",
    "fastapi",
    "kombu",
    "psycopg",
    "psycopg_pool",
    "sqlalchemy",
    "sqlmodel",
    "starlette",
    "uvicorn",
}
UNDOCUMENTED = "fastapi.dependencies."
FENCED = {Path("api/deps.py"), Path("api/http_protocol.py"), Path("lockbox/driver/prepared_statements.py")}


def private_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        for name in names:
            first, *rest = name.split(".")
            if first in FRAMEWORKS and (name.startswith(UNDOCUMENTED) or any(part.startswith("_") for part in rest)):
                yield name


def test_only_three_files_import_undocumented_names_of_frameworks() -> None:
    paths = files("api", "cli", "config", "connectors", "gate", "lockbox", "worker")
    found = {path.relative_to(HOME) for path in paths if list(private_imports(path))}

    assert found == FENCED
