"""What probes of gateways found stands in the customer's log, as an operator's word."""

import pytest

from gate import probe_records
from gate.probe_records import ProbeResult, RecordedProbe
from harness.people import World
from lockbox.errors import Invalid
from lockbox.identity import authentication
from tests.database.audit_logs import last_change
from tests.database.tenancy import does

MAIL, DRIVE = "exchange-online", "onedrive"
SERVICES = frozenset({MAIL, DRIVE})
ALL_REFUSED = ProbeResult(MAIL, "https://support.mail.example", 74, 0)


def recorded(world: World, result: ProbeResult = ALL_REFUSED, who: str = "olga") -> RecordedProbe:
    """Record a result at the world's tenant."""
    return does(world, who, probe_records.record, result, services=SERVICES)


def newest(world: World, who: str) -> list[ProbeResult]:
    """Return the newest results that somebody sees."""
    with world.db.transaction() as session:
        authentication.enter(session, world.people[who])
        return [one.result for one in probe_records.newest(session, world.tenant.id)]


def test_a_probe_is_an_event_of_the_customers_log_and_notifies_nobody(world: World) -> None:
    recorded(world)

    told = last_change(world.db)
    assert (told.action, told.actor, told.role, told.told) == ("gate_probed", "Olga", "operator", set())
    assert told.changes == {f"gateway of {MAIL}": "74 of 74 refused"}
    assert told.facts["tenant_id"] == str(world.tenant.id)
    assert (told.facts["gateway"], told.facts["refused"], told.facts["let_through"]) == (ALL_REFUSED.gateway, 74, 0)


def test_the_newest_of_each_service_is_shown_to_the_tenant_and_to_no_other(world: World) -> None:
    hole, drive = ProbeResult(MAIL, "https://a.example", 70, 4), ProbeResult(DRIVE, "https://b.example", 40, 0)
    recorded(world)
    recorded(world, drive)
    recorded(world, hole)

    assert newest(world, "tara") == newest(world, "ann") == [hole, drive]
    assert newest(world, "erin") == []
    assert newest(world, "eve") == []


def test_a_service_that_the_catalogue_has_not_is_refused(world: World) -> None:
    with pytest.raises(Invalid):
        recorded(world, ProbeResult("teams", "https://a.example", 1, 1))
