"""What every route gets: one transaction a request, who is asking, and from where."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlmodel import Session

from config.settings import Settings
from lockbox.database import Database
from lockbox.people import tokens
from lockbox.people.roles import Caller
from lockbox.refusals import Invalid, NotSignedIn
from lockbox.requests.writing import Origin

LONGEST_AGENT = 256


def settings(request: Request) -> Settings:
    """Return the settings of this process."""
    found: Settings = request.app.state.settings
    return found


def database(request: Request) -> Database:
    """Return the database of this process."""
    found: Database = request.app.state.database
    return found


def unit_of_work(house: Annotated[Database, Depends(database)]) -> Iterator[Session]:
    """Open the one transaction of a request; it commits before the answer leaves, or the answer is an error."""
    with house.transaction() as session:
        yield session


Work = Annotated[Session, Depends(unit_of_work, scope="function")]


def caller(request: Request, session: Work, chosen: Annotated[Settings, Depends(settings)]) -> Caller:
    """Return who is asking, by bearer token.

    Raises:
        NotSignedIn: there is no token, or not a good one.
    """
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not shown:
        raise NotSignedIn("Send a token: Authorization: Bearer lbx_…")
    return tokens.authenticate(session, shown.strip(), environment=chosen.environment)


def origin(request: Request) -> Origin:
    """Return where the call came from."""
    agent = request.headers.get("user-agent", "")
    printable = "".join(mark for mark in agent if mark.isprintable())[:LONGEST_AGENT]
    return Origin("api", request.client.host if request.client else None, printable or None)


def if_match(request: Request) -> int | None:
    """Return the version that the caller saw, from If-Match; None where the header is missing or `*`.

    Raises:
        Invalid: the header is not an ETag of ours.
    """
    value = request.headers.get("if-match", "*").strip()
    if value == "*":
        return None
    number = value.removeprefix('"').removesuffix('"')
    if not number.isascii() or not number.isdigit() or len(number) > 9:  # noqa: PLR2004 - more is no version
        raise Invalid('Send If-Match as it came in ETag, such as "3".', field="If-Match")
    return int(number)


def etag(version: int) -> dict[str, Any]:
    """Return the headers of an answer that shows one version of a request."""
    return {"etag": f'"{version}"', "cache-control": "no-store"}
