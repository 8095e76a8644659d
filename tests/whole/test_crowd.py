"""Very many notifications to a dead host, on a separate stage, because the senders stay busy afterwards."""

import socket

import pytest

from config.setting_fields import DEVELOPMENT_KEY
from lockbox.notifications.endpoints import SecretVault, new_secret
from tests.whole.conftest import PATIENCE, RunningStack

CROWD = """
WITH hole AS (
    INSERT INTO endpoints (id, tenant_id, url, secret, event_types, created_at, description, format,
        with_justification, called_by_hand, last_sequence)
    SELECT gen_random_uuid(), :tenant, :url, :secret, '{}', now(), '', 'json', false, '{}', 0
    FROM generate_series(1, 50000)
    RETURNING id
)
INSERT INTO notifications (id, tenant_id, request_id, event_id, endpoint_id, channel, template, run_at, until_at,
attempts)
SELECT gen_random_uuid(), :tenant, :request, e.id, hole.id, 'webhook', 'pending', now(), now() + interval '1 h', 0
FROM hole, events e WHERE e.request_id = :request RETURNING id
"""


@pytest.mark.far
def test_fifty_thousand_notifications_to_a_dead_host_delay_no_deadline(stage: RunningStack) -> None:
    crowd = stage.world(approval_window=600)
    request = crowd.submit()
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        secret = SecretVault([DEVELOPMENT_KEY.get_secret_value()]).seal(new_secret())
        stage.rows(CROWD, tenant=str(crowd.tenant.id), request=str(request.id), url=url, secret=secret)
        silent.settimeout(PATIENCE)
        caller, _ = silent.accept()
        caller.close()
        world = stage.world(approval_window=2)

        waiting = world.submit()

        stage.ends(waiting.id, "timed_out")
    assert len(stage.open_notifications(crowd)) > 1000
