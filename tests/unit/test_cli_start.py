"""How the command line starts: its imports before a command runs, its version, and completion in shells."""

import resource
import shutil
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from tests.each import each

LOCKBOX = Path(sys.executable).with_name("lockbox")
NEEDED = {"annotated_doc", "shellingham", "typer"}
"""The packages without which a command line of Typer does not start."""
LOADED = """
import sys
sys.argv[0] = "lockbox"
from cli.app import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def loaded(*words: str, **variables: str) -> tuple[str, set[str]]:
    """Run the command; return what it printed, and all that it imported."""
    ended = subprocess.run(
        [sys.executable, "-c", LOADED, *words], env=variables, capture_output=True, text=True, check=True
    )
    return ended.stdout, set(ended.stderr.split())


def packages(modules: set[str]) -> set[str]:
    """Return the packages that neither belong to Python nor are imported when Python itself starts."""
    started = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    names = {module.partition(".")[0] for module in modules - set(started.stdout.split())}
    return names - sys.stdlib_module_names - {"__main__"}


@each("word", ["--help", "--version"])
def test_help_and_version_import_no_cli_commands(word: str) -> None:
    _, modules = loaded(word)

    assert packages(modules) - {"cli"} <= NEEDED
    assert {module for module in modules if module.startswith("cli.")} == {"cli.app", "cli.lazy"}


def test_completing_a_cli_command_imports_no_command() -> None:
    offered, modules = loaded(_LOCKBOX_COMPLETE="complete_bash", COMP_WORDS="lockbox req", COMP_CWORD="1")

    assert offered.split() == ["request"]
    assert {module for module in modules if module.startswith("cli.")} == {"cli.app", "cli.lazy"}


@pytest.mark.far
def test_request_commands_of_the_cli_import_no_server_code() -> None:
    _, modules = loaded("request", "--help")

    assert not packages(modules) & {"alembic", "cryptography", "psycopg", "redis", "sqlalchemy", "sqlmodel", "yaml"}


def seconds_of(*command: str) -> float:
    """Return the CPU time of a command, the least of three runs."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env={}, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


@pytest.mark.far
def test_cli_help_takes_little_more_time_than_python_and_typer() -> None:
    bare = seconds_of(sys.executable, "-c", "import typer.main, typer.completion")

    assert seconds_of(sys.executable, "-m", "cli", "--help") < 2 * bare + 0.05


def test_the_cli_version_is_the_version_of_the_package() -> None:
    assert loaded("--version")[0] == f"lockbox {metadata.version('lockbox')}\n"


@cache
def bash_script() -> str:
    """Return the completion script for bash, as the command prints it."""
    return subprocess.run(
        [LOCKBOX], env={"_LOCKBOX_COMPLETE": "source_bash"}, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.far
@each(
    ("line", "offered"),
    [
        ("lockbox req", ["request"]),
        ("lockbox request app", ["approve"]),
        ("lockbox request list --output ", ["table", "json", "csv"]),
        ("lockbox audit ver", ["verify"]),
    ],
)
def test_bash_completes_cli_commands_and_formats(line: str, offered: list[str]) -> None:
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    asks = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _lockbox_completion lockbox"
    bash = shutil.which("bash")
    assert bash

    found = subprocess.run(
        [bash, "-c", f'{bash_script()}\n{asks}\nprintf "%s\\n" "${{COMPREPLY[@]}}"'],
        env={"PATH": f"{LOCKBOX.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout.split() == offered
    assert found.stderr == ""


@pytest.mark.parametrize(("shell", "mark"), [("zsh", "#compdef lockbox"), ("fish", "complete --command lockbox")])
def test_other_shells_have_their_own_completion_script(shell: str, mark: str) -> None:
    printed, _ = loaded(_LOCKBOX_COMPLETE=f"source_{shell}")

    assert mark in printed
