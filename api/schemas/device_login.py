"""Bodies of the device login."""

from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.parts import RequestBody
from lockbox.identity.device_login import DeviceLoginState


class DeviceAuthorizationView(BaseModel):
    """The start of a device login (RFC 8628 section 3.2): show `user_code` and the page to type it into.

    `token` is worthless until a person allows the login; then it lasts `token_expires_in` seconds.
    """

    user_code: str
    verification_uri: str
    expires_in: int
    interval: int
    token: str
    token_expires_in: int


class DeviceToken(RequestBody):
    """The token of a device login whose state is asked for."""

    token: Annotated[str, Field(max_length=200)]


class DeviceLoginStateView(BaseModel):
    """Whether a person has allowed the device login."""

    state: DeviceLoginState
