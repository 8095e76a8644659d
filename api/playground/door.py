"""Allow the playground only for calls from this machine under a name of its own."""

from fastapi import Request

from api import loopback
from config.settings import LOOPBACK
from lockbox.errors import NotYours

CLOSED = "The playground works only on the machine that runs it. Open the address that `make run` printed there."


async def here_alone(request: Request) -> None:
    """Check that a browser on this machine calls, under a name of this machine.

    A foreign name that resolves to this machine (DNS rebinding) is refused.

    Raises:
        NotYours: it does not.
    """
    if not loopback.is_from_here(request) or loopback.name_of(request) not in LOOPBACK:
        raise NotYours(CLOSED)
