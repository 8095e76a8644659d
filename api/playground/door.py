"""The playground's door: open to this very machine alone, under a name of its own, whatever else it is asked by."""

from urllib.parse import urlsplit

from fastapi import Request

from api import nearby
from config.settings import LOOPBACK
from lockbox.refusals import NotYours

CLOSED = "The playground is for the machine that it runs on: open the address there that `make run` has printed."


async def here_alone(request: Request) -> None:
    """Check that a browser on this machine calls, and by a name of this machine.

    A name that somebody else's server has led to this machine (DNS rebinding) is none of ours.

    Raises:
        NotYours: it does not.
    """
    if not nearby.is_from_here(request) or _host(request) not in LOOPBACK:
        raise NotYours(CLOSED)


def _host(request: Request) -> str | None:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None
