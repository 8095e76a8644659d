"""Off-boarding: a tenant is closed, exported and erased, as its own log proves; interrupted, off-boarding resumes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from cli.app import app
from harness.people import World
from harness.stage import Urls
from lockbox.admin import departures, legal_holds, retention, tenant_data, tenants
from lockbox.audit.verifier.verify import GOOD
from lockbox.database import Database
from lockbox.facts.ask import Ask
from lockbox.facts.clock import Clock
from lockbox.facts.fact import FactView, facts_of
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window
from lockbox.identity import authentication
from lockbox.identity.roles import BOUND_TO, Role, Scope
from lockbox.monitoring import metrics
from lockbox.monitoring.metrics import MetricName
from lockbox.owner_transaction import as_owner
from lockbox.requests import after_reviews
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.mentions import mentions
from tests.database.scenes import read, write_unchecked
from tests.database.tenancy import does, id_of
from tests.database.test_erased_texts import AN_HOUR_AGO, MARK, used
from tests.database.test_exports import verified
from tests.database.test_retention import as_long_ago
from tests.logs import sealed

Run = Callable[..., Result]
LEFT = "SELECT count(*) AS n FROM events WHERE log_id = :t"


@pytest.fixture
def world(api: Database) -> World:
    """A tenant with an ended request that contains texts."""
    made = World.make(api, Policy())
    used(made)
    return made


@pytest.fixture
def run(world: World, worker: Database, urls: Urls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("cli.off_board.time.sleep", lambda _: sealed(worker))
    owner = {"LOCKBOX_ENVIRONMENT": "test", "LOCKBOX_OWNER_DATABASE_URL": urls.owner}

    def called(*options: str, tenant: str = "") -> Result:
        given = ["operate", "off-board", tenant or str(world.tenant.id), "--folder", str(tmp_path), *options]
        return CliRunner().invoke(app, given, env=owner)

    return called


KEPT = {
    *("id", "requester_id", "service", "resources", "actions", "reason_code", "justification", "case_ref", "state"),
    *("granted_resources", "granted_actions", "level", "context", "created_at", "asked_at", "opened_at", "closed_at"),
}
"""Members of an exported request that the format keeps."""


def leaving(world: World, superuser: Engine) -> None:
    """Let an admin ask to leave and an operator suspend the tenant, both an hour ago."""
    does(world, "tara", tenant_data.ask_to_leave)
    does(world, "olga", tenants.suspend)
    as_long_ago(superuser, *AN_HOUR_AGO)


def bodies(file: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    return [json.loads(line["body"]) for line in lines if "body" in line]


@pytest.mark.far
def test_an_off_boarded_tenant_is_erased_and_the_tenants_log_proves_the_erasure(
    world: World, superuser: Engine, run: Run, tmp_path: Path
) -> None:
    (ann,) = read(world.db, "SELECT email FROM people WHERE id = :id", id=id_of(world, "ann"))
    leaving(world, superuser)

    exported = run(tenant=world.tenant.slug)
    erased = run("--erase", "--yes")

    assert exported.exit_code == 0, exported.output
    assert erased.exit_code == 0, erased.output
    before, after = ((tmp_path / name).read_bytes() for name in ("audit.ndjson", "statement.ndjson"))
    note = (tmp_path / "checkpoint.txt").read_text()
    assert verified(before).exit_code == GOOD
    assert verified(after, note).exit_code == GOOD
    assert MARK in before.decode()
    assert json.loads((tmp_path / "tenant.json").read_text())["members"]
    said = bodies(tmp_path / "statement.ndjson")[-1]
    assert (said["action"], said["export_size"]) == ("tenant_erased", json.loads(before.splitlines()[0])["size"])
    for word in (MARK, ann.email, world.tenant.slug):
        assert mentions(world.db, word) == set(), word
    assert {body["action"] for body in bodies(tmp_path / "statement.ndjson")} == {
        *("audit_events_removed", "person_erased", "tenant_erased")
    }


def test_the_export_of_a_leaving_tenant_has_each_declared_fact_of_its_requests(world: World, urls: Urls) -> None:
    stated: dict[str, Any] = {"severity": "S2", "access_window": 900, "max_uses": 3}
    request_id = world.fresh(**stated).id
    world.act("max", Action.ENDORSE, request_id)

    with as_owner(urls.owner) as session:
        exported = departures.snapshot(session, world.tenant.id)["requests"][-1]

    declared = {name for part in (Ask, Requester, Clock, Window) for name in facts_of(part, FactView.NONE)}
    assert sorted((declared | KEPT) - exported.keys()) == []
    assert (exported["id"], {name: exported[name] for name in stated}) == (str(request_id), stated)


@pytest.mark.far
def test_off_boarding_is_refused_until_all_preconditions_are_met(world: World, superuser: Engine, run: Run) -> None:
    refused = [run().output]
    does(world, "tara", tenant_data.ask_to_leave)
    refused.append(run().output)
    pending = world.act("max", Action.ENDORSE, world.fresh().id).id
    does(world, "olga", tenants.suspend)
    refused.append(run().output)
    world.act("ann", Action.DENY, pending)
    refused.append(run().output)
    as_long_ago(superuser, *AN_HOUR_AGO)
    does(world, "olga", legal_holds.hold, "A demand by law")
    refused.append(run().output)

    said = (
        "No admin",
        "suspend the tenant first",
        "Open requests: 1",
        "Closed within the hour: 2",
        "legal hold",
    )
    assert all(one in "".join(output.splitlines()) for one, output in zip(said, refused, strict=True)), refused
    assert read(world.db, "SELECT closed_at FROM offboardings WHERE closed_at IS NOT NULL") == []


def test_an_off_boarding_row_without_a_valid_mac_is_refused_unless_the_owner_overrides(
    world: World, superuser: Engine, run: Run
) -> None:
    leaving(world, superuser)
    write_unchecked(superuser, "UPDATE offboardings SET mac = NULL")

    refused = run()
    assert (refused.exit_code, "no valid mark" in " ".join(refused.output.split())) == (1, True)
    assert read(world.db, "SELECT closed_at FROM offboardings WHERE closed_at IS NOT NULL") == []

    assert run("--unasked").exit_code == 0
    assert [row.asked_by for row in read(world.db, "SELECT asked_by FROM offboardings")] == [None]
    write_unchecked(superuser, "UPDATE offboardings SET mac = NULL")
    assert (run("--erase", "--yes").exit_code, run("--unasked").exit_code) == (1, 1)
    assert read(world.db, "SELECT erased_at FROM offboardings WHERE erased_at IS NOT NULL") == []


@pytest.mark.far
def test_an_off_boarding_request_from_before_macs_existed_is_honoured(
    world: World, superuser: Engine, run: Run
) -> None:
    leaving(world, superuser)
    write_unchecked(superuser, "UPDATE offboardings SET mac = ''")

    assert run().exit_code == 0
    assert run("--erase", "--yes").exit_code == 0


@pytest.mark.far
def test_nothing_of_a_tenant_is_erased_without_an_intact_export_of_the_tenant(
    world: World, superuser: Engine, run: Run, tmp_path: Path
) -> None:
    leaving(world, superuser)
    early = run("--erase", "--yes")
    run()
    with (tmp_path / "audit.ndjson").open("ab") as file:
        file.write(b"\n")
    other = run("--erase", "--yes")

    assert "Nothing was exported yet" in early.output
    assert "is not what was exported last" in " ".join(other.output.split())
    assert mentions(world.db, MARK) != set()


@pytest.mark.far
def test_a_legal_hold_stops_off_boarding_until_the_hold_is_released(
    world: World, superuser: Engine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving(world, superuser)
    run()

    def held(*_: object) -> list[object]:
        does(world, "olga", legal_holds.hold, "A demand by law")
        return []

    with monkeypatch.context() as patched:
        patched.setattr(departures, "_people", held)
        stopped = run("--erase", "--yes")

    assert (stopped.exit_code, "legal hold" in stopped.output) == (1, True)
    assert [row.erased_at for row in read(world.db, "SELECT erased_at FROM offboardings")] == [None]
    assert read(world.db, LEFT, t=world.tenant.id)[0].n > 1
    does(world, "olga", legal_holds.release, slug=str(world.tenant.slug))
    run()
    assert run("--erase", "--yes").exit_code == 0


@pytest.mark.far
def test_off_boarding_erases_a_tenants_name_and_texts_everywhere_even_in_token_scopes(
    world: World, superuser: Engine, run: Run
) -> None:
    """A reason may equal the word that replaces erased reasons, and the scope of a token names the tenant."""
    bounds = {Scope.CASE_CLOSE.value, f"{BOUND_TO}{world.tenant.slug}", f"{BOUND_TO}northwind"}
    world.add("desk", Role.SYSTEM, scopes=bounds)
    request = world.fresh(resources=[f"mailbox:{MARK.lower()}@contoso.example"], justification="erased")
    world.act("erin", Action.CANCEL, request.id)
    leaving(world, superuser)

    run()
    run("--erase", "--yes")

    for word in (MARK, world.tenant.slug):
        assert mentions(world.db, word) == set(), word
    with world.db.transaction() as session:
        desk = authentication.authenticate_token(session, world.tokens["desk"], environment="test")
    assert desk.scopes == {Scope.CASE_CLOSE, f"{BOUND_TO}northwind"}


@pytest.mark.far
def test_off_boarding_writes_a_complete_export_again_if_the_export_file_is_missing(
    world: World, superuser: Engine, run: Run, tmp_path: Path
) -> None:
    leaving(world, superuser)
    run()
    first = json.loads((tmp_path / "tenant.json").read_text())
    (tmp_path / "tenant.json").unlink()
    early = run("--erase", "--yes")
    run()

    assert "There is no" in early.output
    second = json.loads((tmp_path / "tenant.json").read_text())
    assert {one["email"] for one in second["members"]} == {one["email"] for one in first["members"]}
    assert second["requests"] == first["requests"]


@pytest.mark.far
def test_no_reminders_of_a_break_glass_finding_follow_an_off_boarding(
    api: Database, worker: Database, urls: Urls, superuser: Engine
) -> None:
    made = World.make(api, Policy(vendor_review=False, break_glass_services=("exchange-online",)))
    request = made.fresh(break_glass=True, access_window=900)
    made.act("max", Action.BREAK_GLASS, request.id, comment="Mail is down")
    made.act("ann", Action.REVOKE, request.id)
    leaving(made, superuser)

    with as_owner(urls.owner) as session:
        departures.close(session, made.tenant.id)
    write_unchecked(
        superuser, "UPDATE after_reviews SET opened_at = opened_at - interval '2 d', due_at = due_at - interval '2 d'"
    )

    assert list(after_reviews.remind(worker)) == []
    assert metrics.read(api).labelled(MetricName.FINDINGS) == {}


@pytest.mark.far
@pytest.mark.parametrize("at", ["_people", "_rows", "remove"])
def test_an_interrupted_off_boarding_of_a_tenant_resumes(
    world: World, superuser: Engine, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, at: str
) -> None:
    leaving(world, superuser)
    run()
    where = retention if at == "remove" else departures
    with monkeypatch.context() as patched:

        def ends(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(where, at, ends)
        assert run("--erase", "--yes").exit_code != 0

    again = run("--erase", "--yes")

    assert again.exit_code == 0, again.output
    assert mentions(world.db, MARK) == set()
    assert verified((tmp_path / "statement.ndjson").read_bytes()).exit_code == GOOD
    assert run("--erase", "--yes").exit_code == 0


@pytest.mark.far
def test_off_boarding_leaves_other_tenants_untouched(world: World, superuser: Engine, run: Run) -> None:
    """A person who is also a member elsewhere is not erased, and neither is the vendor's engineer."""
    other = World.make(world.db, Policy())
    other.fresh()
    superuser_rows = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, :t, 'auditor')"
    as_long_ago(superuser, superuser_rows, p=id_of(world, "aude"), t=other.tenant.id)
    leaving(world, superuser)
    before = read(world.db, "SELECT id FROM events WHERE tenant_id = :t ORDER BY id", t=other.tenant.id)

    run()
    run("--erase", "--yes")

    names = {one.name for one in read(world.db, "SELECT name FROM people")}
    assert {"Aude", "Erin", "Max"} <= names
    assert before
    assert read(world.db, "SELECT id FROM events WHERE tenant_id = :t ORDER BY id", t=other.tenant.id) == before
