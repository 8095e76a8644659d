"""The commands of docs/operating, run exactly as written and in order, against real servers and processes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

from api.app import CONNECTIONS
from cli.app import app
from devstack.stack import CHECKOUT
from tests.whole.machine import Machine, machine
from worker.runtime import CONNECTIONS as OF_WORKERS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "operating/install.md",
    "operating/first-steps.md",
    "operating/monitoring.md",
    "operating/alarms.md",
    "operating/back-up.md",
    "operating/upgrade.md",
    "operating/keys.md",
    "operating/outages.md",
    "operating/gates.md",
    "scaling.md",
)
"""The pages in the order in which their commands are run."""
TEXT = "\n".join((DOCS / page).read_text() for page in PAGES)
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
BLOCKS = [block for kind, block in FENCES if kind == "sh"]
# What cannot run here, by how its line begins, and why. systemd's part is played by `tests.whole.machine`.
NOT_HERE = {
    "make production": "the tests run in it, and making it anew takes it away from them",
    'export PATH="$PWD/.venv': "the tests know where it is",
    "git checkout ": "there is one version here, and it is what is tested",
    "docker compose ": "there are no containers here",
}
OF_SUPERUSERS, OF_COMMANDS = 3, 10
"""Connections that Postgres keeps for superusers, and those of back-ups, `lockbox operate` and whoever looks."""
INLINE = re.findall(r"`(lockbox [^`]+)`", TEXT)


@pytest.fixture(scope="module")
def here() -> Iterator[Machine]:
    with machine() as made:
        yield made


@pytest.mark.far
@pytest.mark.timeout(1500)
def test_every_command_of_the_operating_guide_works(here: Machine) -> None:
    left_out = set()
    for block in BLOCKS:
        lines = block.splitlines(keepends=True)
        skipped = {name for name in NOT_HERE if any(line.startswith(name) for line in lines)}
        left_out |= skipped
        here.run("".join(line for line in lines if not line.startswith(tuple(NOT_HERE))))

    assert left_out == NOT_HERE.keys()
    said = "\n".join(here.said)
    for words in (
        "lockbox_postgres_up 1.0",
        "! Redis: away",
        "! Postgres: unavailable",
        '"status":"ready"',
        "All is well.",
        "windows were revoked",
    ):
        assert words in said, said
    _what_was_restored_is_what_runs(here)


def _what_was_restored_is_what_runs(here: Machine) -> None:
    engine = create_engine(make_url(here.servers.superuser_url).set(database="lockbox"), poolclass=NullPool)
    with engine.connect() as connection:
        names = set(connection.execute(text("SELECT datname FROM pg_database")).scalars())
        people = connection.execute(text("SELECT count(*) FROM people")).scalar_one()
        cores = connection.execute(text("SELECT count(*) FROM heartbeats WHERE role = 'core'")).scalar_one()

    assert {"lockbox", "lockbox_broken"} <= names
    assert people == 1
    assert cores >= 2


def test_every_page_of_the_operating_guide_is_tested() -> None:
    assert {f"operating/{page.name}" for page in (DOCS / "operating").glob("*.md")} == set(PAGES) - {"scaling.md"}


def test_every_command_mentioned_in_the_operating_guide_exists() -> None:
    unknown = []
    for command in INLINE:
        words = [word for word in command.split()[1:] if re.fullmatch(r"[a-z][a-z-]*", word)]
        result = CliRunner().invoke(app, [*words[: 2 if words[:1] != ["migrate"] else 1], "--help"])
        if result.exit_code:
            unknown.append(command)

    assert unknown == []
    assert len(INLINE) > 10


def test_postgres_has_connections_for_everything_the_operating_guide_starts() -> None:
    (most,) = re.findall(r"ALTER SYSTEM SET max_connections = (\d+)", TEXT)
    started = set(re.findall(r"lockbox-(?:api|(?:worker|notifications|connectors)@\w+)", "\n".join(BLOCKS)))
    opened = {"api": CONNECTIONS, "worker": OF_WORKERS["core"], **OF_WORKERS}

    wanted = sum(opened[name.removeprefix("lockbox-").partition("@")[0]] for name in started)

    assert started >= {"lockbox-api", "lockbox-worker@1", "lockbox-worker@2", "lockbox-notifications@1"}
    assert wanted + OF_SUPERUSERS + OF_COMMANDS <= int(most)


def test_the_operating_guide_lists_the_passwords_of_all_database_roles() -> None:
    roles = (CHECKOUT / "config" / "roles.sql").read_text()
    words = " ".join(TEXT.split())
    deploy = " ".join((DOCS / "deploy.md").read_text().split())
    made = set(re.findall(r"\w+", (CHECKOUT / "deploy" / "compose" / "secrets").read_text()))

    names = set(re.findall(r"LOCKBOX_\w+_PASSWORD", roles))

    assert len(names) == 5
    assert names == set(re.findall(r"`(LOCKBOX_\w+_PASSWORD)`", TEXT))
    assert {name.lower().removesuffix("_password") for name in names} <= made
    assert "with the five passwords in the environment" in words
    assert "the five passwords in `secrets/lockbox_*_password`" in deploy
    assert "its five roles" in words


def test_the_proxy_in_the_operating_guide_limits_each_client() -> None:
    (proxy,) = [block for kind, block in FENCES if kind == "nginx"]

    for kind in ("req", "conn"):
        zones = set(re.findall(rf"^limit_{kind}_zone \$binary_remote_addr zone=(\w+):", proxy, flags=re.MULTILINE))
        used = set(re.findall(rf"^ +limit_{kind} (?:zone=)?(\w+)", proxy, flags=re.MULTILINE))
        assert zones == used != set()


def test_the_proxy_in_the_operating_guide_exempts_gateways_and_guards() -> None:
    (proxy,) = [block for kind, block in FENCES if kind == "nginx"]

    locations = dict(re.findall(r"^    location (?:= )?(/\S*) \{(.*?)\}$", proxy, flags=re.MULTILINE | re.DOTALL))

    for asked in ("/gate/", "/access/", "/v1/access"):
        assert "proxy_pass " in locations[asked]
        assert "limit_req" not in locations[asked]
    assert "limit_req" in locations["/"]
