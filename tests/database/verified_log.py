"""Check a tenant's audit log as an auditor does: export it, and verify it with two verifiers that share no code."""

from harness.people import World
from lockbox.admin import audit_access
from lockbox.audit import export
from lockbox.audit.event_search import EventFilter
from lockbox.audit.verifier.verify import GOOD
from lockbox.database import Database
from lockbox.identity import keyring
from tests.logs import sealed
from tests.verification_results import verified


def check_log_of_one_window(world: World, worker: Database) -> None:
    """Fail unless both verifiers accept the log, and it contains the verified approval of one window."""
    sealed(worker)
    with world.db.transaction() as session:
        reading = audit_access.audit_reader(session, world.people["tara"], world.tenant.slug)
    with world.db.transaction() as session:
        begun = audit_access.export(session, reading, EventFilter(), {}, ())
    lines = export.lines(audit_access.pages(world.db, reading), begun)

    result = verified(b"".join(lines), keys=[keyring.ephemeral().public])

    assert (result.exit_code, result.approvals, result.unchecked_approvals) == (GOOD, 1, 0), result.findings
