"""Naming addresses to write to: counted, since a refusal tells that somebody has the address."""

from api.deps import CurrentUser, DatabaseDep
from lockbox.database import Database
from lockbox.identity import rate_limit
from lockbox.identity.rate_limit import AttemptLimits
from lockbox.identity.roles import Caller

MOST = 20
LIMITS = AttemptLimits(per_account=MOST, per_address=MOST)


def name_an_address(who: CurrentUser, db: DatabaseDep) -> None:
    """Let somebody name twenty addresses in ten minutes, in a transaction that stands whatever becomes of it.

    Raises:
        TooMany: that was met.
    """
    count(db, who)


def count(db: Database, who: Caller) -> None:
    """Count that somebody names an address.

    Raises:
        TooMany: they have named twenty in the last ten minutes.
    """
    with db.transaction() as session:
        counted = rate_limit.count(session, LIMITS, naming=who.person_id)
    counted.check("name an address")
