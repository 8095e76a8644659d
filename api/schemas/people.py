"""Bodies of people: who somebody is."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import Incoming
from lockbox.people import zones
from lockbox.people.roles import Means, Role, Side


class MeView(BaseModel):
    """The caller: roles at the vendor, and roles at tenants by their slugs.

    `signed_in_at` is when the person last proved who they are; an API token proves nothing of that.
    """

    id: UUID
    name: str
    side: Side
    roles: list[Role]
    tenants: dict[str, list[Role]]
    means: Means
    signed_in_at: datetime | None
    time_zone: str


class Preferences(Incoming):
    """What people choose for themselves; `time_zone` is a name of the IANA database, such as `Europe/Berlin`."""

    time_zone: str = Field(min_length=1, max_length=zones.LONGEST)
