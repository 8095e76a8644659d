"""Private parts of the frameworks, which a new version may change, are used only where `lockbox/driver` says."""

import ast
from collections.abc import Iterator
from textwrap import dedent

from lockbox import driver
from tests.check.sources import HOME, PRODUCT, files, tree

FRAMEWORKS = {
    "billiard",
    "celery",
    "fastapi",
    "honcho",
    "kombu",
    "psycopg",
    "psycopg_pool",
    "sqlalchemy",
    "sqlmodel",
    "starlette",
    "uvicorn",
}
UNDOCUMENTED = "fastapi.dependencies."
DOCUMENTED = {"_asdict", "_exit", "_mapping", "_replace"}
"""Of named tuples, of `os`, and of SQLAlchemy's rows."""
FENCED = {
    "api/deps.py",
    "api/http_protocol.py",
    "devstack/run.py",
    "lockbox/driver/prepared_statements.py",
    "worker/prefork.py",
    "worker/transport.py",
}


def imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{name.name}" for name in node.names)
    elif isinstance(node, ast.Import):
        yield from (name.name for name in node.names)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def private_parts(module: ast.Module) -> set[str]:
    """Return private imports of frameworks, and private attributes that the file does not define itself."""
    found, own, inherited = set[str](), set[str](), set[str]()
    used: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            is_inherited = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            (inherited if is_inherited else own if isinstance(node.ctx, ast.Store) else used).add(node.attr)
        for name in imported(node):
            first, *rest = name.split(".")
            if first in FRAMEWORKS and (name.startswith(UNDOCUMENTED) or any(is_private(part) for part in rest)):
                found.add(name)
    return found | inherited | used - own


def test_only_the_listed_files_use_undocumented_parts_of_frameworks() -> None:
    assert {str(path.relative_to(HOME)) for path in files(*PRODUCT) if private_parts(tree(path))} == FENCED
    assert [path for path in FENCED if f"`{path}`" not in str(driver.__doc__)] == []


def test_a_private_attribute_that_the_file_does_not_define_is_reported() -> None:
    module = """
    class Pool(celery.Pool):
        def _event(self, proc):
            self._seen = row._mapping
            proc._is_alive(self._seen, self._kept_by_celery)
            super()._event(proc)
    """

    assert private_parts(ast.parse(dedent(module))) == {"_event", "_is_alive", "_kept_by_celery"}
