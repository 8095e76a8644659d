"""Check a tenant's audit log as an auditor does: export it, and have two verifiers that share no code read it."""

from harness.people import World
from lockbox.admin import audit_access
from lockbox.audit import export
from lockbox.audit.event_search import EventFilter
from lockbox.audit.verifier.verify import GOOD, verify
from lockbox.database import Database
from lockbox.identity import keyring
from tests import second_verifier
from tests.logs import public, sealed


def check_log_of_one_window(world: World, worker: Database) -> None:
    """Fail unless both verifiers find the log good and as long as the other, with one window's approval in it."""
    sealed(worker)
    with world.db.transaction() as session:
        reading = audit_access.audit_reader(session, world.people["tara"], world.tenant.slug)
    with world.db.transaction() as session:
        begun = audit_access.export(session, reading, EventFilter(), {}, ())
    lines = list(export.lines(audit_access.pages(world.db, reading), begun))
    keys = [public(), keyring.ephemeral().public]

    result = verify(lines, keys, ())

    assert (result.exit_code, result.approvals, result.unchecked_approvals) == (GOOD, 1, 0), result.findings
    assert second_verifier.check(b"".join(lines), [key.text for key in keys], ()) == result.events
