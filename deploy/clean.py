"""Removes what was made in a checkout, and says what stays: `clean.py [--all]`; needs nothing but Python."""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

CHECKOUT = Path(__file__).resolve().parents[1]
VENV = ".venv"
MADE = (
    VENV,
    ".venv-bench",
    ".venv-client",
    ".venv-demo",
    ".venv-mutants",
    "mutants",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".import_linter_cache",
)
VAR, SECRETS = "var", "secrets"
BYTES = 10**6


class StillRunning(Exception):  # noqa: N818 - it names what was found
    """Servers use the data that is to be removed; the message says what to do."""


def main(checkout: Path, *options: str) -> int:
    """Clean; return 1 where the data of embedded servers was to go and stays."""
    parser = argparse.ArgumentParser(prog="make clean", description=__doc__)
    parser.add_argument("--all", action="store_true", help="remove the data of embedded servers too")
    asked = parser.parse_args(options)
    rules = _rules(checkout)
    try:
        folders = embedded_folders(rules, checkout)
        if asked.all:
            remove(rules, checkout, folders)
    except (StillRunning, rules.EmbeddedRefused, OSError) as refused:
        folders = []
        if asked.all:
            sys.stderr.write(f"clean: {refused}\n")
            return 1
    for name in MADE:
        shutil.rmtree(checkout / name, ignore_errors=True)
    empty(checkout / VAR)
    sys.stdout.writelines(f"{line}\n" for line in left(checkout, folders))
    return 0


def _rules(checkout: Path) -> ModuleType:
    """Load the module that knows the folder by its file: its package needs more than Python."""
    path = checkout / "devstack" / "embedded" / "folder.py"
    spec = importlib.util.spec_from_file_location("folder", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def embedded_folders(rules: ModuleType, checkout: Path) -> list[Path]:
    """Return the folders in which `make run` keeps data and keys, as far as they exist.

    Raises:
        EmbeddedRefused: there is something that we did not make.
    """
    data = rules.default_folder(checkout)
    if not data.exists():
        return []
    rules.find_home(data)
    keys = data.with_name(f"{data.name}-keys")
    return [data, *([keys] if keys.exists() else [])]


def remove(rules: ModuleType, checkout: Path, folders: list[Path]) -> None:
    """Stop the servers of the first folder, and remove all.

    Raises:
        StillRunning: they can't be stopped from here.
    """
    if folders:
        _stop(rules, checkout, folders[0])
    for folder in folders:
        shutil.rmtree(folder)
        sys.stdout.write(f"Removed {folder}\n")


def _stop(rules: ModuleType, checkout: Path, folder: Path) -> None:
    python = checkout / VENV / "bin" / "python"
    if not python.exists():
        pids = [pid for pid in rules.read_state(rules.find_home(folder)).pids.values() if _lives(pid)]
        if pids:
            raise StillRunning(
                f"embedded servers may still run (pids {', '.join(map(str, pids))}), with nothing to stop them "
                "by: `make .venv/ready`, and then `make clean ALL=1` again"
            )
        return
    command = [str(python), "-m", "devstack.embedded", "stop", "--folder", str(folder)]
    ended = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if ended.returncode:
        raise StillRunning(f"the embedded servers did not stop, and nothing was removed: {ended.stderr.strip()}")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def empty(folder: Path) -> None:
    """Remove all in a folder but the secrets of the containers, and the folder itself if nothing is left."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != SECRETS:
                shutil.rmtree(path)
        else:
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def left(checkout: Path, folders: list[Path]) -> list[str]:
    """Return a line for each thing that stays."""
    lines = []
    if found := [folder for folder in folders if folder.exists()]:
        size = sum(_bytes(folder) for folder in found)
        names = " and ".join(str(folder) for folder in found)
        lines.append(
            f"Left: {names} ({size / BYTES:.0f} MB: database, Redis, mails and keys of `make run`). "
            "`make clean ALL=1` removes them."
        )
    if (checkout / VAR / SECRETS).exists():
        lines.append(f"Left: {VAR}/{SECRETS} (passwords and keys of the containers). Remove it when none needs them.")
    return lines


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main(CHECKOUT, *sys.argv[1:]))
