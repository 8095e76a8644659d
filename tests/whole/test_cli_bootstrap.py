"""`lockbox bootstrap` makes the first operator of an empty database, once, even if several run at the same time."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import UUID

import httpx
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

from cli import bootstrap
from cli.app import app
from devstack.embedded import ServerAddresses
from harness.stage import Urls, copied, on_database
from lockbox.identity.authentication import TOKEN_FORM
from lockbox.identity.keyring import development, make
from lockbox.owner_transaction import as_owner
from tests.mailbox import CODE
from tests.whole.conftest import RunningStack, stage_of
from tests.whole.shell import at_once, lockbox

OLGA = ("bootstrap", "--name", "Olga Ortiz", "--email", "olga@vendor.example")
ADMIN = ("--name", "Contoso", "--admin-name", "Tara Todd", "--admin-email", "tara@contoso.example")
REFUSED = "there are people here already, and the first operator is made once: ask an operator\n"
PEOPLE = "SELECT (SELECT count(*) FROM people) AS people, (SELECT count(*) FROM tokens) AS tokens"
SOMEBODY = """
INSERT INTO people (id, name, email, side, disabled_at, created_at)
VALUES (uuidv7(), 'Former', 'former@example.test', :side, {disabled_at}, now())
"""


def owner(urls: Urls, **more: str) -> dict[str, str]:
    return {"LOCKBOX_ENVIRONMENT": "test", "LOCKBOX_OWNER_DATABASE_URL": urls.owner} | more


def count(superuser: Engine) -> tuple[int, int]:
    with superuser.connect() as connection:
        row = connection.execute(text(PEOPLE)).one()
    return row.people, row.tokens


@pytest.fixture
def stage(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with stage_of(template, tmp_path_factory.mktemp("logs"), names=("api",)) as stage:
        yield stage


@pytest.mark.far
def test_the_first_operators_token_can_read_but_opens_no_window(stage: RunningStack) -> None:
    address = stage.plan.public_url

    made = lockbox(owner(stage.urls, LOCKBOX_PUBLIC_URL=address), *OLGA)

    token = made.stdout.removesuffix("\n")
    known = {"LOCKBOX_URL": address, "LOCKBOX_TOKEN": token}
    assert made.returncode == 0
    assert TOKEN_FORM.fullmatch(token)
    assert "shown once" in made.stderr
    assert f"LOCKBOX_URL={address}" in made.stderr
    assert token not in made.stderr
    me = json.loads(at_once(known, "me", "--output", "json").stdout)
    assert (me["name"], me["side"], me["roles"], me["means"]) == ("Olga Ortiz", "vendor", ["operator"], "token")
    assert at_once(known, "tenant", "add", "contoso", *ADMIN).stderr.startswith("fresh-sign-in-needed: ")
    (row,) = stage.rows("SELECT expires_at - created_at = interval '24 hours' AS is_a_day FROM tokens")
    assert row.is_a_day
    rotated = at_once(known, "token", "rotate", "--lifetime", "90d")
    assert rotated.returncode == 0
    lasting = {**known, "LOCKBOX_TOKEN": rotated.stdout.removesuffix("\n")}
    assert at_once(lasting, "vendor", "list").returncode == 0
    log = (stage.processes.logs / "api.log").read_text()
    (code,) = CODE.findall(made.stderr)
    assert not [text_ for text_ in (token, rotated.stdout.strip(), code) if text_ in log]


@pytest.mark.far
def test_the_code_printed_by_bootstrap_is_an_invitation_of_the_operator_valid_for_one_day(
    stage: RunningStack,
) -> None:
    made = at_once(owner(stage.urls, LOCKBOX_PUBLIC_URL=stage.plan.public_url), *OLGA)
    (code,) = CODE.findall(made.stderr)
    (row,) = stage.rows(
        "SELECT id, secret_hash, expires_at - created_at = interval '24 hours' AS is_a_day FROM invitations"
    )
    page = f"{stage.plan.public_url}/invitations/{row.id}"
    ours = {"origin": stage.plan.public_url}

    entered = httpx.post(page, data={"code": code}, headers=ours, timeout=30)
    again = httpx.post(page, data={"code": code}, headers=ours, timeout=30)

    assert f"{page}#{code}\n" in made.stderr
    assert row.is_a_day
    assert development().secrets.is_mark(row.secret_hash, "invitation", row.id, code.replace("-", ""))
    assert (entered.status_code, entered.headers["location"], again.status_code) == (303, "/welcome", 403)
    account = httpx.get(f"{stage.plan.public_url}/account", cookies=entered.cookies, timeout=30)
    assert "Olga Ortiz" in account.text
    assert stage.rows("SELECT role FROM memberships")[0].role == "operator"


@pytest.mark.far
def test_bootstrap_is_refused_after_the_first_operator_exists(urls: Urls, superuser: Engine) -> None:
    assert at_once(owner(urls), *OLGA).returncode == 0

    again = at_once(owner(urls), "bootstrap", "--name", "Oscar", "--email", "oscar@vendor.example")

    assert (again.returncode, again.stdout, again.stderr) == (1, "", REFUSED)
    assert count(superuser) == (1, 1)


@pytest.mark.far
@pytest.mark.parametrize("side", ["vendor", "customer"])
@pytest.mark.parametrize("disabled_at", ["NULL", "now()"])
def test_bootstrap_is_refused_where_people_ever_existed(
    urls: Urls, superuser: Engine, side: str, disabled_at: str
) -> None:
    with superuser.connect() as connection:
        connection.execute(text(SOMEBODY.format(disabled_at=disabled_at)), {"side": side})

    refused = at_once(owner(urls), *OLGA)

    assert (refused.returncode, refused.stderr) == (1, REFUSED)
    assert count(superuser) == (1, 0)


def tries(urls: Urls, number: int = 1) -> str:
    """Try to make the first operator; return the token, or `refused`."""
    try:
        with as_owner(urls.owner) as session:
            made = bootstrap.first_operator(
                session, name=f"Olga {number}", email=f"olga{number}@vendor.example", environment="test"
            )
    except bootstrap.AlreadyBootstrapped:
        return "refused"
    return made.token


@pytest.mark.far
def test_of_concurrent_bootstraps_only_the_first_succeeds(urls: Urls, superuser: Engine) -> None:
    together = Barrier(5)

    def at_once(number: int) -> str:
        together.wait()
        return tries(urls, number)

    with ThreadPoolExecutor(5) as pool:
        ended = list(pool.map(at_once, range(5)))

    assert ended.count("refused") == 4
    assert count(superuser) == (1, 1)


@pytest.mark.far
def test_one_of_two_concurrent_bootstrap_processes_is_refused_in_a_clear_line(urls: Urls, superuser: Engine) -> None:
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda _: lockbox(owner(urls), *OLGA), range(2)))

    assert sorted((one.returncode, bool(one.stdout)) for one in ended) == [(0, True), (1, False)]
    assert REFUSED in [one.stderr for one in ended]
    assert count(superuser) == (1, 1)


@pytest.mark.far
def test_bootstrap_waits_for_a_person_being_added(urls: Urls, superuser: Engine) -> None:
    engine = create_engine(urls.superuser, poolclass=NullPool)
    with engine.begin() as other, ThreadPoolExecutor(1) as pool:
        other.execute(text(SOMEBODY.format(disabled_at="NULL")), {"side": "vendor"})
        trying = pool.submit(tries, urls)
        other.execute(text("SELECT pg_sleep(0.7)"))
        waits = not trying.done()
        other.commit()
        refused = trying.result()

    assert (waits, refused) == (True, "refused")
    assert count(superuser) == (1, 0)


@pytest.mark.far
def test_bootstrap_works_in_production_with_a_production_token(urls: Urls, tmp_path: Path) -> None:
    make(tmp_path / "credential.key")
    safe = {
        "LOCKBOX_ENVIRONMENT": "production",
        "LOCKBOX_SECRET_KEYS": json.dumps([Fernet.generate_key().decode()]),
        "LOCKBOX_PUBLIC_URL": "https://lockbox.example",
        "LOCKBOX_CREDENTIAL_KEY_FILES": json.dumps([str(tmp_path / "credential.key")]),
    }

    made = at_once(owner(urls, **safe), *OLGA)

    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("lbx_production_")
    assert "LOCKBOX_URL=https://lockbox.example" in made.stderr


@pytest.mark.far
def test_bootstrap_records_the_vendors_first_event_and_no_secret_in_it(urls: Urls, superuser: Engine) -> None:
    token = at_once(owner(urls), *OLGA).stdout.strip()

    with superuser.connect() as connection:
        (event,) = connection.exec_driver_sql(
            "SELECT id, tenant_id, action, actor_id, actor_role, convert_from(body, 'UTF8') AS body FROM events"
        ).all()
        fields = connection.exec_driver_sql("SELECT fields FROM event_details").scalar_one()
        (person,) = connection.exec_driver_sql("SELECT id FROM people").all()
        unsealed = connection.exec_driver_sql("SELECT event_id FROM unsealed").scalar_one()

    body = json.loads(event.body)
    assert (event.tenant_id, event.action, event.actor_id, event.actor_role) == (
        *(None, "member_added", person.id, "operator"),
    )
    assert body["changes"] == {"roles": "none → operator"}
    assert UUID(body["person_id"]) == person.id
    told = {name: value for name, (_, value) in fields.items()}
    assert told == {"name": "Olga Ortiz", "member": "Olga Ortiz <olga@vendor.example>"}
    assert unsealed == event.id
    parts = TOKEN_FORM.fullmatch(token)
    assert parts
    assert parts["secret"] not in event.body
    assert "olga@" not in event.body


@pytest.mark.far
@pytest.mark.parametrize(
    ("name", "email", "says"),
    [
        ("", "olga@vendor.example", "--name: "),
        ("  ", "olga@vendor.example", "--name: "),
        ("Olga\nOrtiz", "olga@vendor.example", "--name: "),
        ("x" * 201, "olga@vendor.example", "--name: "),
        ("Olga", "olga", "--email: "),
        ("Olga", "Olga <olga@vendor.example>", "--email: "),
        ("Olga", "olga@vendor.example\nBcc: x@y.example", "--email: "),
        ("Olga", f"{'x' * 310}@vendor.example", "--email: "),
    ],
)
def test_bootstrap_with_an_invalid_name_or_address_reports_the_mistake_and_adds_no_one(
    urls: Urls, superuser: Engine, name: str, email: str, says: str
) -> None:
    refused = CliRunner().invoke(app, ["bootstrap", "--name", name, "--email", email], env=dict(owner(urls)))

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(says)
    assert refused.stderr.count("\n") == 1
    assert count(superuser) == (0, 0)


@pytest.mark.far
def test_bootstrap_reports_a_database_without_migrations(template: ServerAddresses) -> None:
    name = f"lockbox_unmigrated_{os.getpid()}"
    url = on_database(template.owner_database_url, name)
    with copied(template.superuser_url, name, "template0"):
        refused = at_once({"LOCKBOX_ENVIRONMENT": "test", "LOCKBOX_OWNER_DATABASE_URL": url}, *OLGA)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "run `lockbox migrate`" in refused.stderr


@pytest.mark.far
def test_bootstrap_refuses_a_database_role_other_than_the_owners(urls: Urls, superuser: Engine) -> None:
    for url in (urls.api, urls.worker):
        refused = at_once(owner(urls, LOCKBOX_OWNER_DATABASE_URL=url), *OLGA)

        assert (refused.returncode, refused.stdout) == (1, "")
        assert "does not own the tables: use lockbox_owner" in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert count(superuser) == (0, 0)


@pytest.mark.far
def test_without_a_database_bootstrap_says_what_to_set() -> None:
    unset = lockbox({}, *OLGA)

    assert (unset.returncode, unset.stdout) == (1, "")
    assert "LOCKBOX_OWNER_DATABASE_URL is not set" in unset.stderr
