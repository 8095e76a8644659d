"""The guard's package: it stands alone, on httpx, and carries nothing of the server."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

HOME = Path(__file__).parents[2]
GUARD = HOME / "guard"
SERVER = {"api", "cli", "config", "gate", "harness", "lockbox", "worker"}


def test_it_depends_on_httpx_alone() -> None:
    project = tomllib.loads((GUARD / "pyproject.toml").read_text())["project"]

    assert project["dependencies"] == ["httpx>=0.28"]
    assert project["version"] == tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["version"]


def test_it_loads_nothing_of_the_server() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(GUARD)!r})
import lockbox_guard
print(*{{name.partition(".")[0] for name in sys.modules}})
"""
    ended = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)

    loaded = set(ended.stdout.split())
    assert "lockbox_guard" in loaded
    assert loaded & (SERVER | {"fastapi", "starlette", "pydantic", "sqlalchemy", "redis", "uvicorn"}) == set()


def test_its_wheel_holds_the_package_and_its_types(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=GUARD, capture_output=True, timeout=60, check=True)

    (wheel,) = tmp_path.glob("lockbox_guard-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"lockbox_guard"}
    assert "lockbox_guard/py.typed" in names
    assert {f"lockbox_guard/{path.name}" for path in (GUARD / "lockbox_guard").glob("*.py")} <= set(names)


def test_the_development_environment_has_it() -> None:
    assert "--editable ./guard" in (HOME / "deploy" / "venv").read_text()
