"""Which calls the gate only reports on, in memory: as the last read of Postgres has it, and otherwise none."""

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from gate.enforcement import REPORT
from gate.window_memory import BOOT_CLOCK, FRESH_SECONDS
from lockbox.database import UnitOfWork
from lockbox.identity import row_macs
from lockbox.identity.keyring import Part

STATES = text("""
SELECT id, service, wanted, revision, enforced_at, mac FROM enforcements
WHERE service = ANY (:services) AND wanted = 'report'
""")
CONSENTS = text("""
SELECT c.id, c.enforcement_id, c.tenant_id, c.revision, c.person_id, c.mac
FROM report_consents c JOIN enforcements e ON e.id = c.enforcement_id AND e.revision = c.revision
WHERE c.enforcement_id = ANY (:ids)
""")
TENANTS = text("""
SELECT id, slug, mode, plan, suspended, policy_version, revision, mac FROM tenants WHERE id = ANY (:ids)
""")
Parts = Callable[[Row[Any]], Sequence[Part]]


class EnforcementMemory:
    """The services and tenants for which the gate only reports. One thread writes and any number read.

    It says so only of a service that this process' catalogue has in `report` too, and while the last read of Postgres
    began less than a second ago. Rows without a valid mark count for nothing.
    """

    def __init__(self, wanted: Mapping[str, str], clock: Callable[[], float] = BOOT_CLOCK) -> None:
        self.wanted = wanted
        self._services = sorted(name for name, says in wanted.items() if says == REPORT)
        self._clock = clock
        self._changing = threading.Lock()
        self._ids: dict[str, str] = {}
        self._heard: set[str] = set()
        self._judged: dict[Row[Any], bool] = {}
        # When the last read began, and for each service the tenants for which it reports: None is all of them.
        self._read: tuple[float, Mapping[str, frozenset[str] | None]] = (float("-inf"), {})

    def reports_anywhere(self, service: str) -> bool:
        """Return whether the gate of a service only reports for any tenant."""
        return service in self._current()

    def reports(self, service: str, tenant: str | None) -> bool:
        """Return whether the gate only reports on a call for a tenant; for None, on one whose tenant is not known."""
        tenants = self._current().get(service, frozenset())
        return tenants is None or tenant in tenants

    def forget(self, ids: Collection[str]) -> bool:
        """Enforce again at once what news say has changed, until the next read; return whether it was any."""
        with self._changing:
            gone = {name for one, name in self._ids.items() if one in ids}
            self._heard |= gone
            began, reporting = self._read
            self._read = (began, {name: who for name, who in reporting.items() if name not in gone})
            return bool(gone)

    def read(self, session: UnitOfWork, began: float) -> None:
        """Read what Postgres says now, in a transaction that began then and is entered as a system."""
        if not self._services:
            return
        with self._changing:
            self._heard.clear()
        states = session.execute(STATES, {"services": self._services}).all()
        judged: dict[Row[Any], bool] = {}
        good = [row for row in states if self._holds(session, judged, row, row_macs.enforcement)]
        consented = self._consented(session, judged, [row.id for row in good if row.enforced_at is not None])
        found = {row.service: consented.get(row.id, frozenset()) if row.enforced_at else None for row in good}
        with self._changing:
            self._judged, self._ids = judged, {str(row.id): row.service for row in states}
            new = {name: who for name, who in found.items() if name not in self._heard and (who is None or who)}
            self._read = (began, new)

    def _consented(
        self, session: UnitOfWork, judged: dict[Row[Any], bool], ids: Sequence[UUID]
    ) -> dict[UUID, frozenset[str]]:
        if not ids:
            return {}
        rows = session.execute(CONSENTS, {"ids": list(ids)}).all()
        good = [row for row in rows if self._holds(session, judged, row, row_macs.report_consent)]
        tenants = session.execute(TENANTS, {"ids": list({row.tenant_id for row in good})}).all()
        slugs = {row.id: row.slug for row in tenants if self._holds(session, judged, row, row_macs.tenant)}
        found = defaultdict[UUID, set[str]](set)
        for row in good:
            if row.tenant_id in slugs:
                found[row.enforcement_id].add(slugs[row.tenant_id])
        return {one: frozenset(who) for one, who in found.items()}

    def _holds(self, session: UnitOfWork, judged: dict[Row[Any], bool], row: Row[Any], parts: Parts) -> bool:
        """Return whether a row has a valid mark; each is verified, and complained of, once."""
        is_good = self._judged.get(row)
        if is_good is None:
            is_good = row_macs.is_held(session, row.mac, parts(row), row.id)
        judged[row] = is_good
        return is_good

    def _current(self) -> Mapping[str, frozenset[str] | None]:
        began, reporting = self._read
        return reporting if self._clock() - began < FRESH_SECONDS else {}
