"""Taking whole tables and trails away: counted, since each costs the server seconds."""

from lockbox.database import Database
from lockbox.people import counts
from lockbox.people.counts import Limits
from lockbox.people.roles import Caller

MOST = 60
LIMITS = Limits(per_account=MOST, per_address=MOST)


def count(house: Database, who: Caller) -> None:
    """Count that somebody takes a file away, in a transaction that stands whatever becomes of it.

    Raises:
        TooMany: they have taken sixty in the last ten minutes.
    """
    with house.transaction() as session:
        counted = counts.count(session, LIMITS, taking=who.person_id)
    counted.check("take something away")
