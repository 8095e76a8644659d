"""The page of all requests, and its CSV."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from api import browser, rate_limits
from api.call_routes import CallRouter
from api.deps import DatabaseDep, SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import NO_PAGE, TAG, page, protect, status_of
from api.schemas.parts import Words
from catalogue.service_catalogue import LEVELS, Level
from config.settings import Settings
from lockbox.admin import recovery
from lockbox.audit.canonical import instant
from lockbox.audit.export import row
from lockbox.database import Database
from lockbox.errors import Invalid
from lockbox.facts.ask import Ask
from lockbox.facts.enumerations import State
from lockbox.facts.fact import CSV, cells, facts_of, read
from lockbox.facts.labels import label_text
from lockbox.identity import time_zones
from lockbox.identity.roles import Caller, ProtectedField, may_read, reader_roles
from lockbox.notifications.mail_text import OUTLIVED, STATE_WORDINGS
from lockbox.notifications.request_wording import signed_in
from lockbox.requests import inbox, request_list
from lockbox.requests.models import RequestEntry
from lockbox.requests.request_list import RequestFilter, RequestListing

router = CallRouter(tags=[TAG], include_in_schema=False)
MOST = 50
MOST_ROWS, ROWS_AT_ONCE = 10_000, 200
BESIDE_EACH_OTHER = 8
"""How many facts of a request are in the middle of a row. Further facts are at its end, so that no column moves."""
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
WORDS = TypeAdapter[str](Words)


def table_head() -> bytes:
    whose, from_where, rest = phrases.HISTORY_COLUMNS
    labels = [label_text(fact.label) for fact in facts_of(Ask, CSV).values()]
    return row([*whose, *labels[:BESIDE_EACH_OTHER], *from_where, *rest, *labels[BESIDE_EACH_OTHER:]])


def table_rows(caller: Caller, entries: Iterable[RequestEntry]) -> Iterator[bytes]:
    """Times are in UTC; a value that the caller may not see is empty."""
    return (row(_cells(caller, entry)) for entry in entries)


def _cells(caller: Caller, entry: RequestEntry) -> Iterator[object]:
    asked = entry.request
    held = reader_roles(caller, asked.requester_id, asked.tenant_id)
    yield asked.id
    yield entry.tenant
    yield STATE_WORDINGS[OUTLIVED if entry.is_outlived else asked.state].to(caller.side)
    yield entry.requester
    reads_why = may_read(ProtectedField.JUSTIFICATION, held)
    facts = list(cells(read(Ask, asked), CSV, reads_why=reads_why))
    yield from facts[:BESIDE_EACH_OTHER]
    yield from (asked.employing_entity, asked.office_country, asked.physical_country)
    yield signed_in(asked.sign_in, asked.sign_in_means, asked.signed_in_at, asked.created_at)
    yield asked.justification if reads_why else None
    yield asked.access_window
    for moment in (asked.created_at, asked.opened_at, asked.closed_at, asked.deadline_at):
        yield instant(moment) if moment else None
    yield from facts[BESIDE_EACH_OTHER:]


Stripped = Annotated[str, AfterValidator(str.strip)]


class HistorySearchForm(BaseModel):
    """An empty filter matches anything. Days are in the reader's time zone."""

    state: Stripped = ""
    service: Stripped = ""
    engineer: Stripped = ""
    since: Annotated[Stripped, Field(alias="from")] = ""
    until: Annotated[Stripped, Field(alias="to")] = ""
    text: Stripped = ""
    level: Stripped = ""

    def query(self, **more: str) -> str:
        given = self.model_dump(by_alias=True) | more
        return urlencode({name: value for name, value in given.items() if value})


HistorySearch = Annotated[HistorySearchForm, Query()]


@router.get("/requests")
def list_all(
    request: Request, chosen: SettingsDep, session: SessionDep, sought: HistorySearch, cursor: str = ""
) -> Response:
    visitor = browser.visitor(request, session, chosen)
    found, refused = RequestListing((), None), None
    try:
        wanted = _filter(sought, chosen.catalogue.titles, visitor.time_zone)
        found = request_list.page(session, visitor.caller, wanted, cursor=cursor or None, most=MOST)
    except Invalid as error:
        refused = error
    return page(
        request,
        "requests",
        status_of(refused) if refused else 200,
        visitor=visitor,
        entries=found.entries,
        proposals=recovery.open_for(session, visitor.caller),
        titles=chosen.catalogue.titles,
        refused=refused,
        sought=sought,
        is_filtered=any(dict(sought).values()),
        is_first=not cursor,
        names=list(State),
        levels=LEVELS,
        older=sought.query(cursor=found.next_cursor) if found.next_cursor else None,
        most_rows=MOST_ROWS,
        tallies=inbox.tallies_of(session, visitor.caller, [entry.request for entry in found.entries]),
    )


@router.get("/requests.csv", tags=[NO_PAGE])
def list_as_table(
    request: Request, chosen: SettingsDep, session: SessionDep, db: DatabaseDep, sought: HistorySearch
) -> Response:
    """At most 10,000 rows. Rights are checked again for each part."""
    visitor = browser.visitor(request, session, chosen)
    wanted = _filter(sought, chosen.catalogue.titles, visitor.time_zone)
    rate_limits.count_export(visitor.caller, db)
    first = request_list.page(session, visitor.caller, wanted, cursor=None, most=ROWS_AT_ONCE)
    begun = [table_head(), *table_rows(visitor.caller, first.entries)]

    def lines() -> Iterator[bytes]:
        yield from begun
        yield from _further(request, chosen, db, wanted, first.next_cursor, len(first.entries))

    headers = {"content-disposition": 'attachment; filename="requests.csv"'}
    answer = StreamingResponse(rate_limits.streamed(lines()), media_type="text/csv; charset=utf-8", headers=headers)
    protect(request, answer)
    return answer


def _further(
    request: Request, settings: Settings, db: Database, wanted: RequestFilter, cursor: str | None, count: int
) -> Iterator[bytes]:
    while cursor and count < MOST_ROWS:
        with db.transaction() as session:
            caller = browser.visitor(request, session, settings).caller
            found = request_list.page(session, caller, wanted, cursor=cursor, most=ROWS_AT_ONCE)
            lines = list(table_rows(caller, found.entries))
        yield from lines
        cursor, count = found.next_cursor, count + len(found.entries)


def _filter(sought: HistorySearchForm, services: Mapping[str, str], zone: str) -> RequestFilter:
    if sought.state not in {"", *State}:
        raise Invalid(phrases.NO_STATE)
    if sought.service not in {"", *services}:
        raise Invalid(phrases.NO_SERVICE)
    if sought.level not in {"", *LEVELS}:
        raise Invalid(phrases.NO_LEVEL)
    first, last = _day(sought.since), _day(sought.until)
    if first and last and first > last:
        raise Invalid(phrases.DAYS_REVERSED)
    try:
        since, until = time_zones.days(first, last, zone)
        engineer = WORDS.validate_python(sought.engineer) if sought.engineer else None
        text = WORDS.validate_python(sought.text) if sought.text else None
        after = since - timedelta(microseconds=1) if since else None
    except OverflowError:
        raise Invalid(phrases.DAY_TOO_OLD) from None
    except ValidationError:
        raise Invalid(phrases.TOO_LONG_A_SEARCH) from None
    state = State(sought.state) if sought.state else None
    level = Level(sought.level) if sought.level else None
    return RequestFilter(state, sought.service or None, None, after, until, engineer, text, level)


def _day(written: str) -> date | None:
    if not written:
        return None
    try:
        day = date.fromisoformat(written) if DAY.fullmatch(written) else None
    except ValueError:
        day = None
    if day is None:
        raise Invalid(phrases.NO_DAY)
    return day
