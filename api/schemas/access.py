"""The body of an access check that allows."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel


class AccessView(BaseModel):
    """An open window, and the checked parameters: the call may be admitted; check again before `deadline_at`.

    A gateway compares all parameters with the call that it is about to serve. `uses_left` is how many more times the
    window can be used, null for any number. `break_glass` is whether the window was opened in an emergency without
    the customer.
    """

    open: Literal[True] = True
    tenant: str
    service: str
    resource: str
    action: str
    engineer: UUID
    request_id: UUID
    deadline_at: datetime
    uses_left: int | None
    break_glass: bool
