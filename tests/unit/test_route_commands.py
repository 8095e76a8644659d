"""The table of commands that call one route: each row is compared with the API's description, and run once."""

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from cli.audit import SEARCH
from cli.commands import GROUPS
from cli.exclusions import EXCLUSIONS_COMMANDS
from cli.gate import ENFORCEMENT_COMMANDS, IDENTITY_COMMANDS, OUTSIDE_COMMANDS
from cli.gate_probe import PROBES
from cli.policies import VERSIONS
from cli.pre_approvals import PRE_APPROVAL_COMMANDS
from cli.requests import FINDINGS
from cli.route_command import IF_MATCH, PART, FactsOf, Once, RouteCommand, TableOf
from cli.tenant_data import DATA_COMMANDS
from cli.vendor_staff import VENDOR_COMMANDS
from tests.each import each

API: Mapping[str, Any] = json.loads((Path(__file__).parents[2] / "api" / "openapi.json").read_text())
ROWS = {f"{group} {name}": row for group, (_, rows) in GROUPS.items() for name, row in rows.items()}
ROWS |= {f"gate identity {name}": row for name, row in IDENTITY_COMMANDS.items()}
ROWS |= {f"gate enforcement {name}": row for name, row in ENFORCEMENT_COMMANDS.items()}
ROWS |= {f"gate outside {name}": row for name, row in OUTSIDE_COMMANDS.items()}
ROWS |= {f"exclusions {name}": row for name, row in EXCLUSIONS_COMMANDS.items()}
ROWS |= {f"data {name}": row for name, row in DATA_COMMANDS.items()}
ROWS |= {f"pre-approval {name}": row for name, row in PRE_APPROVAL_COMMANDS.items()}
ROWS |= {f"vendor {name}": row for name, row in VENDOR_COMMANDS.items()}
ROWS |= {"gate probes": PROBES, "audit list": SEARCH, "policy versions": VERSIONS, "request findings": FINDINGS}
ROUTES = [(name, path) for name, row in ROWS.items() for path in row.paths]
ID = "0197f3a0-a0a0-7a0a-8a0a-0a0a0a0a0a0a"


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema that another one refers to, or allows besides null."""
    for one in schema.get("anyOf", ()):
        if one.get("type") != "null":
            return resolved(one)
    if "$ref" in schema:
        return resolved(API["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    return schema


def operation(row: RouteCommand, path: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", API["paths"][path][row.method.lower()])


def taken(of: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Return the names of all inputs of a route, and of the required ones."""
    named = {one["name"].lower().replace("-", "_"): one.get("required", False) for one in of.get("parameters", ())}
    body = resolved(of["requestBody"]["content"]["application/json"]["schema"]) if "requestBody" in of else {}
    needed = {name for name, is_needed in named.items() if is_needed} | set(body.get("required", ()))
    return {*named, *body.get("properties", ())}, needed


def answered(of: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a route's answer; an empty one if the answer has no body."""
    good = next(one for status, one in of["responses"].items() if status.startswith("2"))
    return resolved(good["content"]["application/json"]["schema"]) if "content" in good else {}


@each(("name", "path"), ROUTES)
def test_every_cli_command_in_the_route_table_calls_an_existing_route_with_its_parameters(
    name: str, path: str
) -> None:
    row = ROWS[name]
    takes, needs = taken(operation(row, path))
    given = {parameter.name for parameter in row.parameters}
    elsewhere = {part for other in row.paths for part in PART.findall(other)} - set(PART.findall(path))
    of_the_command = {"all_events"} if row.body else set()

    assert given - elsewhere - of_the_command <= takes
    assert needs <= given
    assert {"limit", "cursor"} & takes <= given, "a list has to go on"


@each(("name", "path"), ROUTES)
def test_every_field_that_a_cli_command_shows_is_in_the_answer_of_its_route(name: str, path: str) -> None:
    view, answer = ROWS[name].view, answered(operation(ROWS[name], path))
    shown = [view.field] if isinstance(view, Once) else []
    if isinstance(view, TableOf | FactsOf):
        shown = [one for one in view.fields.values() if isinstance(one, str)]
        assert shown

    items = resolved(resolved(answer["properties"]["items"])["items"]) if isinstance(view, TableOf) else answer
    for dotted in shown:
        found = items
        for part in dotted.split("."):
            assert part in found["properties"], dotted
            found = resolved(found["properties"][part])


def test_only_cli_commands_with_empty_answers_have_no_json_output() -> None:
    bare = {name for name, row in ROWS.items() if not row.view.is_read}

    removals = {name for name, row in ROWS.items() if row.method == "DELETE"}
    assert bare == removals | {"endpoint test", "endpoint redeliver"}


@dataclass
class RecordedCall:
    """A call that the API received."""

    method: str
    path: str
    body: Any
    if_match: str | None


@dataclass
class RecordingApi:
    """An API that records its calls and gives each the same answer."""

    answer: Any = None
    calls: list[RecordedCall] = field(default_factory=list)
    url: str = ""

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, words, env={"LOCKBOX_URL": self.url, "LOCKBOX_TOKEN": "t", "COLUMNS": "200"})

    def sent(self, *words: str) -> RecordedCall:
        """Run a command, which must succeed, and return its call."""
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        return self.calls[-1]


@pytest.fixture
def api() -> Iterator[RecordingApi]:
    recording = RecordingApi()

    class Handler(BaseHTTPRequestHandler):
        """Records and answers calls."""

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            recording.calls.append(
                RecordedCall(
                    self.command, self.path, json.loads(body) if body else None, self.headers.get("if-match")
                )
            )
            said = json.dumps(recording.answer).encode() if recording.answer is not None else b""
            self.send_response(200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - as http.server calls them

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        recording.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield recording
        server.shutdown()


ROLES = ("--role", "approver", "--role", "auditor")


@pytest.mark.far
@pytest.mark.parametrize(("version", "header"), [((), "*"), (("--version", "7"), '"7"')])
def test_a_cli_command_sends_the_version_that_it_replaces_as_a_header(
    api: RecordingApi, version: tuple[str, ...], header: str
) -> None:
    api.answer = {"id": ID, "since": None, "version": 8, "name": "", "address": "", "roles": [], "eligible": True}

    sent = api.sent("member", "roles", "contoso", ID, *ROLES, *version)

    assert sent == RecordedCall(
        "PUT", f"/v1/tenants/contoso/members/{ID}", {"roles": ["approver", "auditor"]}, header
    )


@pytest.mark.far
def test_the_cli_sends_no_omitted_option_and_sends_a_renamed_option_under_its_name_in_the_api(
    api: RecordingApi,
) -> None:
    api.answer = {"id": ID, "name": "", "address": "", "roles": []}

    sent = api.sent("vendor", "invite", "--name", "Nils", "--email", "nils@vendor.example", "--role", "engineer")

    assert sent == RecordedCall(
        "POST", "/v1/vendor/members", {"name": "Nils", "address": "nils@vendor.example", "roles": ["engineer"]}, None
    )


@pytest.mark.far
def test_the_options_of_a_cli_list_command_are_sent_as_query_parameters(api: RecordingApi) -> None:
    api.answer = {"items": [], "next_cursor": "n"}

    sent = api.sent("vendor", "undelivered", "--cursor", "c")
    more = api.run("vendor", "undelivered")

    assert sent == RecordedCall("GET", "/v1/vendor/undelivered?limit=50&cursor=c", None, None)
    assert more.stdout == "None.\nThere are more: --cursor n\n"


@pytest.mark.far
@pytest.mark.parametrize(
    ("whose", "path"),
    [((), "/v1/vendor/endpoints"), (("--tenant", "a/../b?"), "/v1/tenants/a%2F..%2Fb%3F/endpoints")],
)
def test_a_cli_command_calls_the_first_path_whose_parts_are_all_given(
    api: RecordingApi, whose: tuple[str, ...], path: str
) -> None:
    api.answer = {"items": []}

    assert api.sent("endpoint", "list", *whose).path == path


@pytest.mark.far
@pytest.mark.parametrize(
    ("options", "body"),
    [
        (("--disable",), {"enabled": False}),
        (
            ("--no-justification", "--event", "request.denied"),
            {"with_justification": False, "event_types": ["request.denied"]},
        ),
        (("--all-events",), {"event_types": []}),
    ],
)
def test_the_cli_sends_only_the_named_fields_of_a_webhook_change(
    api: RecordingApi, options: tuple[str, ...], body: dict[str, Any]
) -> None:
    sent = api.sent("endpoint", "change", ID, *options, "--output", "json")

    assert (sent.method, sent.body) == ("PATCH", body)


@pytest.mark.far
def test_the_cli_refuses_an_empty_change_and_does_not_send_it(api: RecordingApi) -> None:
    refused = api.run("endpoint", "change", ID)

    assert (refused.exit_code, api.calls) == (1, [])
    assert "name what to change" in refused.stderr


@pytest.mark.far
@pytest.mark.parametrize("as_json", [(), ("--output", "json")])
def test_the_cli_prints_only_the_secret_to_stdout_and_its_notes_to_stderr(
    api: RecordingApi, as_json: tuple[str, ...]
) -> None:
    api.answer = {"id": ID, "secret": "whsec_x"}

    shown = api.run("endpoint", "rotate", ID, *as_json)

    assert shown.stdout.strip() == (json.dumps(api.answer, indent=2) if as_json else "whsec_x")
    assert "the only time" in shown.stderr
    assert ID in shown.stderr


@pytest.mark.far
def test_the_sentence_printed_by_a_cli_command_quotes_its_argument_and_the_answer(api: RecordingApi) -> None:
    api.answer = {"webhook_id": "msg_1"}

    shown = api.run("endpoint", "test", ID)

    assert shown.stdout == f"Test queued with webhook-id msg_1. To see the result: lockbox endpoint deliveries {ID}\n"


@pytest.mark.far
def test_before_changing_a_delegate_the_cli_reads_roles_and_version_and_sends_both_back(api: RecordingApi) -> None:
    api.answer = {"roles": ["auditor"], "version": 5}

    api.sent("member", "delegate-eligible", "contoso", ID, "--no", "--output", "json")

    read, written = api.calls
    assert (read.method, read.path) == ("GET", f"/v1/tenants/contoso/members/{ID}")
    assert written == RecordedCall("PUT", read.path, {"roles": ["auditor"], "eligible": False}, '"5"')


@pytest.mark.far
@pytest.mark.parametrize(("version", "header"), [((), "*"), (("--version", "0"), '"0"')])
def test_the_cli_publishes_exclusions_from_a_file(
    api: RecordingApi, tmp_path: Path, version: tuple[str, ...], header: str
) -> None:
    api.answer = {"version": 1, "created_at": "2026-11-28T12:36:00Z"}
    file = tmp_path / "exclusions.txt"
    file.write_text("Demands by law.\n", encoding="utf-8")

    sent = api.sent("exclusions", "state", str(file), *version)

    assert sent == RecordedCall("PUT", "/v1/exclusions", {"text": "Demands by law.\n"}, header)
    refused = api.run("exclusions", "state", str(tmp_path / "none.txt"))
    assert (refused.exit_code, len(api.calls)) == (1, 1)
    assert "cannot be read" in refused.output


@pytest.mark.far
def test_an_omitted_retention_option_means_the_installations_default(api: RecordingApi) -> None:
    api.answer = {"kept_days": None, "retention_days": None, "holds": [], "offboarding": None}

    assert api.sent("data", "retention", "contoso").body == {"days": None}
    assert api.sent("data", "retention", "contoso", "--days", "90").body == {"days": 90}


@pytest.mark.far
def test_the_cli_lists_tenants_with_legal_holds_or_off_boardings(api: RecordingApi) -> None:
    asked_at = "2026-11-29T08:00:00Z"
    one = {"tenant": "contoso", "name": "Contoso", "held_by": ["vendor", "customer"], "retention_days": 90}
    one |= {"offboarding_asked_at": asked_at, "offboarding_closed_at": None}
    api.answer = {"items": [one], "next_cursor": "contoso"}

    shown = api.run("data", "list", "--output", "csv")

    assert api.calls[-1].path == "/v1/vendor/data?limit=50"
    assert f'contoso,Contoso,"vendor, customer",90,{asked_at},' in shown.stdout
    assert "--cursor contoso" in shown.output


OTHER_ID = "0197f3a0-a0a1-7a0a-8a0a-0a0a0a0a0a0a"


@pytest.mark.far
@each(
    ("words", "listed"),
    [
        (("invitation", "withdraw", "contoso"), "/v1/tenants/contoso/invitations"),
        (("delegation", "end", "contoso"), "/v1/tenants/contoso/delegations"),
        (("observer", "remove", "contoso"), "/v1/tenants/contoso/observers"),
        (("member", "remove", "contoso"), "/v1/tenants/contoso/members"),
        (("vendor", "remove"), "/v1/vendor/members"),
        (("vendor", "withdraw"), "/v1/vendor/invitations"),
        (("token", "revoke"), "/v1/tokens"),
        (("gate", "identity", "remove"), "/v1/gate/identities"),
    ],
)
def test_an_id_prefix_is_enough_for_cli_commands_whose_ids_are_in_a_list(
    api: RecordingApi, words: tuple[str, ...], listed: str
) -> None:
    api.answer, api.calls = {"items": [{"id": OTHER_ID}, {"id": ID}]}, []

    removed = api.sent(*words, ID[:13])
    asked, *_ = api.calls
    ambiguous = api.run(*words, ID[:8])

    assert (asked.method, asked.path) == ("GET", listed)
    assert (removed.method, removed.path) == ("DELETE", f"{listed}/{ID}")
    assert (ambiguous.exit_code, api.calls[-1].method) == (1, "GET")
    assert all(one in ambiguous.stderr for one in (ID, OTHER_ID))


def test_only_the_cli_commands_that_set_roles_take_the_version_to_replace() -> None:
    with_version = {
        name for name, row in ROWS.items() if IF_MATCH in {parameter.name for parameter in row.parameters}
    }

    assert with_version == {"member roles", "vendor roles"}
