"""A catalogue change by which a window for one mailbox opens another one's path: the customer's log records it."""

from datetime import timedelta

from gate import definition_records
from harness.gateway_world import ANNA, CATALOGUE, RULES, SERVICE
from harness.people import SETTINGS
from lockbox.database import Database
from lockbox.requests.lifecycle import Action
from tests.database.scenes import read
from tests.http.door import Door
from tests.http.gate_door import gate_before

BERTA = "berta@contoso.example"
TOLD = """
SELECT convert_from(body, 'UTF8')::jsonb -> 'changes' AS changes FROM events
WHERE action = 'gate_redefined' AND tenant_id = :tenant
"""


def test_mapping_a_gate_path_to_a_different_resource_is_recorded_in_the_customers_log(
    fresh_door: Door, worker: Database
) -> None:
    world = fresh_door.world
    old = CATALOGUE.services[SERVICE]
    assert old.gate is not None
    bent = RULES[0].model_copy(update={"path": "/{org}/mailboxes/{}", "resource": f"mailbox:{ANNA}"})
    gate = old.gate.model_copy(update={"paths": (bent, RULES[1])})
    services = {**CATALOGUE.services, SERVICE: old.model_copy(update={"gate": gate})}
    request = world.submit(resources=[f"mailbox:{ANNA}"])
    world.act("ann", Action.APPROVE, request.id)
    with gate_before(world, fresh_door.db, SETTINGS) as before:
        before.until(200)
        assert before.ask(path=before.path(BERTA)).reason == "no_window"

    with gate_before(world, fresh_door.db, SETTINGS, CATALOGUE.model_copy(update={"services": services})) as after:
        after.until(200, path=after.path(BERTA))
    list(definition_records.announce(worker, settled=timedelta(0)))

    ((changes,),) = read(fresh_door.db, TOLD, tenant=world.tenant.id)
    assert changes == {
        f"paths at the gate of {SERVICE}": "GET /{org}/mailboxes/{address} is read of mailbox:{address} → "
        f"GET /{{org}}/mailboxes/{{}} is read of mailbox:{ANNA}"
    }
