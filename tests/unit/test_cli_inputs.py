"""Short arguments: durations with units, and the beginning of an id."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from cli import commands, inputs, request_ids, route_command
from cli.app import app
from tests.each import each

ID = "01a20f05-b903-72c9-a099-71e4eacade78"
SAME_SECOND = "01a20f05-b9ff-7000-8000-000000000000"


@each(
    ("typed", "seconds"),
    [("90s", 90), ("15m", 900), ("8h", 28_800), ("1h30m", 5_400), ("2d", 172_800), ("1d2h3m4s", 93_784), ("0s", 0)],
)
def test_a_duration_argument_is_one_or_several_numbers_with_units(typed: str, seconds: int) -> None:
    assert inputs.seconds(typed) == seconds


@each("typed", ["", "15", "m", "15 m", "-15m", "1.5h", "30m1h", "15min", "1e3s", "٣m", "9999999d"])
def test_an_invalid_duration_argument_is_refused_with_examples(typed: str) -> None:
    with pytest.raises(typer.BadParameter, match="such as 90s, 15m, 8h, 1h30m or 2d"):
        inputs.seconds(typed)


@each(
    ("parser", "typed", "says"),
    [
        (inputs.hours, "90m", "whole number of hours, such as 24h"),
        (inputs.days, "36h", "whole number of days, such as 90d"),
        (partial(inputs.days, least=1, most=30), "31d", "at least 1d and at most 30d"),
        (partial(inputs.days, least=1), "0d", "at least 1d"),
        (partial(inputs.seconds, most=300), "6m", "at least 0s and at most 5m"),
    ],
)
def test_a_duration_argument_out_of_bounds_is_refused_with_the_bounds(parser: Any, typed: str, says: str) -> None:
    with pytest.raises(typer.BadParameter, match=says):
        parser(typed)


def test_units_of_a_duration_argument_have_singular_and_plural() -> None:
    assert (inputs.hours("2d"), inputs.days("48h"), inputs.days(30)) == (48, 2, 30)


@each(
    ("typed", "read"),
    [
        (ID, ID),
        (ID.upper(), ID),
        (ID.replace("-", ""), ID),
        ("01a20f05", "01a20f05"),
        ("01a20f05b903", "01a20f05-b903"),
        ("01a20f05-b", "01a20f05-b"),
    ],
)
def test_an_id_argument_is_accepted_in_any_spelling_and_as_a_prefix(typed: str, read: str) -> None:
    assert inputs.identifier(typed) == read
    assert inputs.is_whole(read) is (read == ID)


@each("typed", ["", "x", "01a20f0", "01a20f0g", f"{ID}0", "../../tokens"])
def test_an_invalid_id_argument_is_refused(typed: str) -> None:
    with pytest.raises(typer.BadParameter, match="8 characters"):
        inputs.identifier(typed)


class ListingApi:
    """Has two requests, on a page each, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    def call(self, method: str, path: str, *, params: Mapping[str, Any]) -> Any:
        assert (method, path) == ("GET", "/v1/requests")
        self.asked.append(params)
        first = {"items": [{"id": SAME_SECOND}], "next_cursor": "more"}
        return {"items": [{"id": ID}], "next_cursor": None} if params.get("cursor") == "more" else first


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> ListingApi:
    """An API with two requests of the same second."""
    listing = ListingApi()
    monkeypatch.setattr(request_ids, "call", listing.call)
    return listing


def test_a_whole_id_argument_needs_no_lookup(api: ListingApi) -> None:
    assert request_ids.request_id(ID) == ID
    assert api.asked == []


def test_an_id_prefix_is_looked_up_among_all_requests_created_around_the_time_in_the_prefix(api: ListingApi) -> None:
    assert request_ids.request_id("01a20f05-b903") == ID

    first, second = api.asked
    assert second == {**first, "cursor": "more"}
    made = datetime.fromtimestamp(0x01A20F05B903 / 1000).astimezone()
    after, before = (datetime.fromisoformat(first[name]) for name in ("created_after", "created_before"))
    assert after < made < before
    assert (before - after).total_seconds() < 1260


def test_an_ambiguous_id_prefix_is_refused_with_all_matching_ids(api: ListingApi) -> None:
    ended = CliRunner().invoke(app, ["request", "show", "01a20f05-b9"])

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.splitlines() == [
        "01a20f05-b9 is the beginning of 2 ids:",
        f"  {ID}",
        f"  {SAME_SECOND}",
    ]
    assert len(api.asked) == 2


@each("typed", ["01a20f05-b904", "ffffffff", "00000000"])
def test_an_unknown_id_prefix_is_refused(api: ListingApi, typed: str) -> None:
    ended = CliRunner().invoke(app, ["request", "approve", typed])

    assert ended.exit_code == 1
    assert ended.stderr == f"nothing that you may see has an id that begins with {typed}\n"
    assert all(set(asked) >= {"created_after", "created_before"} for asked in api.asked)


class WebhookApi:
    """Has a webhook of a tenant and one of the vendor; their deliveries are paged by two, newest first."""

    HOOKS: ClassVar = {"/v1/tenants/contoso/endpoints": [ID], "/v1/vendor/endpoints": [SAME_SECOND]}
    CALLS: ClassVar = {
        ID: [f"01a20f0{digit}-b903-72c9-a099-71e4eacade78" for digit in "86"],
        SAME_SECOND: [f"01a20f0{digit}-72c9-a099-71e4eacade78" for digit in ("7-b904", "6-ffff", "6-b904", "5-ffff")],
    }

    def __init__(self) -> None:
        self.called: list[str] = []

    def call(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, **_: Any) -> Any:
        self.called.append(f"{method} {path}")
        if path == "/v1/me":
            tenants = {"contoso": ["tenant_admin"], "fabrikam": ["approver"]}
            return {"roles": ["operator"], "tenants": tenants}
        if path in self.HOOKS:
            return {"items": [{"id": one} for one in self.HOOKS[path]]}
        if method == "POST":
            return {"webhook_id": ID}
        assert params is not None
        found = [one for one in self.CALLS[path.split("/")[3]] if one < params["cursor"]]
        return {"items": [{"id": one} for one in found[:2]], "next_cursor": found[1] if len(found) > 2 else None}


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> WebhookApi:
    found = WebhookApi()
    monkeypatch.setattr(commands, "call", found.call)
    monkeypatch.setattr(route_command, "call", found.call)
    return found


def test_the_prefix_of_a_webhook_id_is_enough(hooks: WebhookApi) -> None:
    ended = CliRunner().invoke(app, ["endpoint", "test", "01a20f05-b9ff"])

    assert ended.exit_code == 0, ended.stderr
    assert hooks.called[-1] == f"POST /v1/endpoints/{SAME_SECOND}/test"
    assert not [path for path in hooks.called if "fabrikam" in path]


def test_the_prefix_of_a_delivery_id_is_looked_up_among_deliveries_around_the_time_in_the_prefix(
    hooks: WebhookApi,
) -> None:
    ended = CliRunner().invoke(app, ["endpoint", "redeliver", "01a20f06-b904"])

    assert ended.exit_code == 0, ended.stderr
    assert hooks.called[-1] == "POST /v1/deliveries/01a20f06-b904-72c9-a099-71e4eacade78/redeliver"
    assert hooks.called.count(f"GET /v1/endpoints/{SAME_SECOND}/deliveries") == 1


@pytest.mark.usefixtures("hooks")
def test_an_ambiguous_delivery_id_prefix_is_refused_with_all_matching_ids() -> None:
    ended = CliRunner().invoke(app, ["endpoint", "redeliver", "01a20f06"])

    assert ended.exit_code == 1
    assert ended.stderr.splitlines() == [
        "01a20f06 is the beginning of 3 ids:",
        "  01a20f06-b903-72c9-a099-71e4eacade78",
        "  01a20f06-b904-72c9-a099-71e4eacade78",
        "  01a20f06-ffff-72c9-a099-71e4eacade78",
    ]


def test_the_cli_exits_2_on_an_invalid_id_or_duration_argument() -> None:
    for words in (["request", "show", "x"], ["request", "approve", ID, "--window", "15"], ["token", "revoke", "x"]):
        ended = CliRunner().invoke(app, words)

        assert (ended.exit_code, ended.stdout) == (2, "")
        assert "write " in ended.stderr
