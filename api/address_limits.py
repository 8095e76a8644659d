"""Limit how many mail addresses a person may name, because a refusal reveals that an address is taken."""

from api.deps import CurrentUser, DatabaseDep
from lockbox.database import Database
from lockbox.identity import attempt_limits
from lockbox.identity.attempt_limits import AttemptLimits
from lockbox.identity.roles import Caller

MOST = 20
LIMITS = AttemptLimits(per_account=MOST, per_address=MOST)


def name_an_address(who: CurrentUser, db: DatabaseDep) -> None:
    """Count a named address, at most twenty in ten minutes, in a transaction that stands whatever follows.

    Raises:
        TooMany: the limit was met.
    """
    count(db, who)


def count(db: Database, who: Caller) -> None:
    """Count that a person names an address.

    Raises:
        TooMany: they have named twenty in the last ten minutes.
    """
    with db.transaction() as session:
        counted = attempt_limits.count(session, LIMITS, naming=who.person_id)
    counted.check("name an address")
