"""docs/architecture.md: each answer leads to existing files that define what the answer names."""

import re
import tomllib
from functools import cache
from pathlib import Path

from tests.check.sources import HOME, PRODUCT, source
from tests.each import each

TABLE, PATHS = source(HOME / "docs" / "architecture.md").split("\n## Call paths\n")
ANSWERS = [
    *(line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| question |")),
    *re.split(r"^- ", PATHS, flags=re.MULTILINE)[1:],
]
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?P<folder>(?:\w[\w-]*/)*)\{?(?P<stems>\w+(?:,\w+)*)\}?\.(?P<kind>py|sql)")
NAME = re.compile(r"(\w+)(?:\(\))?")
WHERE = re.compile(r"((?:`\w+(?:\(\))?`(?:, | and )?)+) in `([^`]+\.(?:py|sql))`")
ONLY_USED = {"LOCKBOX_CATALOGUE", "enforcement", "unsettled"}
"""A setting, a key of the catalogue, and a table, which their files do not define."""


@cache
def _every() -> tuple[str, ...]:
    found = (path for folder in (*PRODUCT, "tests") for path in (HOME / folder).rglob("*"))
    return tuple(str(path.relative_to(HOME)) for path in found if path.suffix in {".py", ".sql"})


def _named(answer: str) -> dict[str, list[str]]:
    """Return the files that each file name of an answer can mean; other names in the answer choose the folder."""
    found, folders = dict[str, list[str]](), set[str]()
    for code in CODE.findall(answer):
        if file := FILE.fullmatch(code):
            for stem in file["stems"].split(","):
                name = f"{file['folder']}{stem}.{file['kind']}"
                found[name] = [path for path in _every() if path == name or path.endswith(f"/{name}")]
        elif (HOME / code).is_dir() and "/" in code:
            folders.add(str(Path(code)))
    folders |= {str(Path(paths[0]).parent) for paths in found.values() if len(paths) == 1}
    return {
        name: [path for path in paths if str(Path(path).parent) in folders] if len(paths) > 1 else paths
        for name, paths in found.items()
    }


def _text(answer: str, files: dict[str, list[str]]) -> str:
    folders = [code for code in CODE.findall(answer) if "/" in code and (HOME / code).is_dir()]
    inside = [path for folder in folders for path in _every() if path.startswith(folder)]
    return "\n".join(source(HOME / path) for path in (*inside, *(path for paths in files.values() for path in paths)))


def _holds(text: str, name: str) -> bool:
    if name in ONLY_USED:
        return name in text
    return bool(re.search(rf"\b(?:def|class|FUNCTION|TABLE) {name}\b|^ *{name}\b[^=\n]*= ", text, re.MULTILINE))


def _names(codes: str) -> list[str]:
    return [name[1] for code in CODE.findall(codes) if (name := NAME.fullmatch(code))]


def _wrong(answer: str) -> list[str]:
    files = _named(answer)
    text = _text(answer, files)
    wrong = [f"{name} is {paths or 'nowhere'}" for name, paths in files.items() if len(paths) != 1]
    wrong += [f"{name} is in no file of the answer" for name in _names(answer) if not _holds(text, name)]
    for codes, file in WHERE.findall(answer):
        there = "\n".join(source(HOME / path) for path in files.get(file, ()))
        wrong += [f"{name} is not in {file}" for name in _names(codes) if not _holds(there, name)]
    return wrong or ([] if text else ["it leads to no file"])


@each("answer", ANSWERS)
def test_each_answer_of_the_architecture_page_leads_to_the_right_files(answer: str) -> None:
    assert _wrong(answer) == []


def test_a_wrong_file_or_name_in_an_answer_of_the_architecture_page_is_detected() -> None:
    assert _wrong("`lockbox/requests/nothing.py`, `load.py`") == [
        "lockbox/requests/nothing.py is nowhere",
        "load.py is nowhere",
    ]
    moved = "`is_moot` in `lockbox/notifications/queue.py`; `lockbox/notifications/audience.py`"
    assert _wrong(moved) == ["is_moot is not in lockbox/notifications/queue.py"]
    assert _wrong("`fan_out.py` and `no_such_function()`") == ["no_such_function is in no file of the answer"]
    assert _wrong("The database.") == ["it leads to no file"]


def test_the_architecture_page_shows_the_packages_of_the_core_in_their_order() -> None:
    (chain,) = re.findall(r"imports only point down: (.+?)\. `lockbox-guard`", " ".join(TABLE.split()))
    contracts = tomllib.loads(source(HOME / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["lockbox"]]
    order = {name: number for number, layer in enumerate(layers) for name in layer.split(" | ")}
    shown = [CODE.findall(step) for step in chain.split("→")]
    packages = {path.parent.name for path in (HOME / "lockbox").glob("*/__init__.py")}

    numbers = [{order[name] for name in step} for step in shown]
    assert all(len(step) == 1 for step in numbers)
    assert numbers == sorted(numbers, key=min)
    assert packages - {name for step in shown for name in step} == set(), "a package is missing in the chain"
