"""Bodies of terminals that sign in by a page: the code to show, and what has become of it."""

from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.parts import RequestBody
from lockbox.identity.device_login import DeviceLoginState


class DeviceAuthorizationView(BaseModel):
    """What a terminal is told once, after RFC 8628 section 3.2: show `user_code` and the page to type it into.

    `token` is worth nothing until a person has allowed it there; then it lasts `token_expires_in` seconds.
    """

    user_code: str
    verification_uri: str
    expires_in: int
    interval: int
    token: str
    token_expires_in: int


class DeviceToken(RequestBody):
    """The token of a terminal that asks what has become of it."""

    token: Annotated[str, Field(max_length=200)]


class DeviceLoginStateView(BaseModel):
    """What has become of it."""

    state: DeviceLoginState
