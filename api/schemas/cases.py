"""Bodies of closed cases."""

from uuid import UUID

from pydantic import BaseModel

from lockbox.facts.enumerations import State


class EndedRequestView(BaseModel):
    """A request that ended with its case."""

    request_id: UUID
    tenant: str
    state: State


class CaseClosingView(BaseModel):
    """What ended with a case: `cancelled` requests and `revoked` windows, by id.

    A call ends a hundred at most; `left` is how many are still open: repeat the call until `left` is 0.
    """

    case_system: str
    case_ref: str
    ended: list[EndedRequestView]
    left: int
