"""Gates of the catalogue: a contradiction or an ambiguous path is named by line and field."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from catalogue.gate_document import GateCallers
from catalogue.load import SAMPLE, CatalogueRefused, read_catalogue, sample_catalogue
from catalogue.service_catalogue import Catalogue
from gate.gate_definition import MOST_SHOWN, GateDefinition, differences
from gate.mapping import GateCall, ServiceMapping
from lockbox.text_rules import check_resource
from tests.each import each

GOOD = """\
services:
  mail:
    title: Mail
    actions: [read, export]
    gate:
      tenant: {fixed: contoso}
      callers: {entrance: support}
      ignored_query: [trace]
      paths:
        - methods: [GET]
          path: /boxes/{box}/parts/{}
          resource: box:{box}
          action: read
        - methods: [GET]
          path: /find
          query: {box: "{box}", form: mbox}
          resource: box:{box}
          action: export
plans:
  standard: {}
issuers:
  - issuer: https://sso.example
    audience: gate
    jwks_url: https://sso.example/keys
"""
GATE = "services.mail.gate"
FIRST = f"{GATE}.paths[0]"
SECOND = f"{GATE}.paths[1]"
MORE = """\
        - methods: [GET]
          path: {path}
          resource: box:{name}
          action: read
plans:"""


def more(path: str, name: str = "{x}") -> str:
    return MORE.replace("{path}", path).replace("{name}", name)


MISTAKES = {
    "no tenant": ("{fixed: contoso}", "{}", 6, f"{GATE}.tenant", "exactly one of"),
    "two tenants": ("{fixed: contoso}", "{fixed: a, header: b}", 6, f"{GATE}.tenant", "exactly one of"),
    "a slug in capitals": ("{fixed: contoso}", "{fixed: Contoso}", 6, f"{GATE}.tenant.fixed", "slug"),
    "a host without a tenant": ("{fixed: contoso}", "{host: mail.example}", 6, f"{GATE}.tenant.host", "{tenant}"),
    "a bare top-level host": ("{fixed: contoso}", '{host: "{tenant}.example"}', 6, f"{GATE}.tenant.host", "two more"),
    "half a label": ("{fixed: contoso}", '{host: "x{tenant}.a.example"}', 6, f"{GATE}.tenant.host", "first label"),
    "a host in capitals": (
        "{fixed: contoso}",
        '{host: "{tenant}.A.example"}',
        6,
        f"{GATE}.tenant.host",
        "first label",
    ),
    "two tenants in a host": (
        "{fixed: contoso}",
        '{host: "{tenant}.{tenant}.example"}',
        6,
        f"{GATE}.tenant.host",
        "first label",
    ),
    "a header of clients": (
        "{fixed: contoso}",
        "{header: X-Forwarded-Host}",
        6,
        f"{GATE}.tenant.header",
        "only your",
    ),
    "a header of browsers": ("{fixed: contoso}", "{header: cookie}", 6, f"{GATE}.tenant.header", "only your"),
    "the gateway's credential": (
        "{fixed: contoso}",
        "{header: Lockbox-Gateway}",
        6,
        f"{GATE}.tenant.header",
        "only your",
    ),
    "a header with a blank": ("{fixed: contoso}", '{header: "a b"}', 6, f"{GATE}.tenant.header", "letters, digits"),
    "a tenant that a path lacks": ("{fixed: contoso}", "{path: box}", 15, f"{SECOND}.path", "add {box} as a segment"),
    "an unknown entrance": ("entrance: support", "entrance: back", 7, f"{GATE}.callers.entrance", "'support'"),
    "an issuer without a claim": (
        "{entrance: support}",
        '{issuer: "https://sso.example"}',
        7,
        f"{GATE}.callers",
        "issuer, claim and value",
    ),
    "both kinds of callers": (
        "{entrance: support}",
        "{entrance: support, claim: a}",
        7,
        f"{GATE}.callers",
        "issuer, claim and value",
    ),
    "an issuer that is not there": (
        "{entrance: support}",
        '{issuer: "https://a.example", claim: a, value: b}',
        7,
        f"{GATE}.callers.issuer",
        "add",
    ),
    "no paths": (
        GOOD[GOOD.index("      paths:") : GOOD.index("plans:")],
        "      paths: []\n",
        9,
        f"{GATE}.paths",
        "at least 1",
    ),
    "an unknown method": ("methods: [GET]", "methods: [FETCH]", 10, f"{FIRST}.methods[0]", "'GET'"),
    "a method twice": ("methods: [GET]", "methods: [GET, GET]", 10, f"{FIRST}.methods[1]", "each method once"),
    "no method": ("methods: [GET]", "methods: []", 10, f"{FIRST}.methods", "at least 1"),
    "a relative path": ("/boxes/{box}", "boxes/{box}", 11, f"{FIRST}.path", "begin the path"),
    "an empty segment": ("/boxes/{box}", "/boxes//{box}", 11, f"{FIRST}.path", "one / between"),
    "a dot segment": ("/boxes/{box}", "/../{box}", 11, f"{FIRST}.path", "end with a dot"),
    "a query in the path": ("/boxes/{box}", "/boxes?a=1/{box}", 11, f"{FIRST}.path", "letters, digits"),
    "an escape in the path": ("/boxes/{box}", "/b%41/{box}", 11, f"{FIRST}.path", "letters, digits"),
    "a star": ("/boxes/{box}", "/*/{box}", 11, f"{FIRST}.path", "letters, digits"),
    "half a segment": ("/boxes/{box}", "/boxes/x{box}", 11, f"{FIRST}.path", "whole segment"),
    "a name in capitals": ("/boxes/{box}", "/boxes/{Box}", 11, f"{FIRST}.path", "whole segment"),
    "a variable twice": ("/parts/{}", "/parts/{box}", 11, f"{FIRST}.path", "each variable once"),
    "a variable that is not used": ("/parts/{}", "/parts/{part}", 11, f"{FIRST}.path", "use {part}"),
    "a variable that is not defined": ("resource: box:{box}", "resource: box:{bx}", 12, f"{FIRST}.resource", "{bx}"),
    "a resource without a kind": ("resource: box:{box}", 'resource: "{box}"', 12, f"{FIRST}.resource", "a kind"),
    "a resource that is a kind": ("resource: box:{box}", "resource: 'box:'", 12, f"{FIRST}.resource", "an id after"),
    "a resource with a star": ("resource: box:{box}", "resource: box:{box}*", 12, f"{FIRST}.resource", "no *"),
    "a resource with a blank": ("resource: box:{box}", "resource: box:a {box}", 12, f"{FIRST}.resource", "visible"),
    "braces that do not close": ("resource: box:{box}", "resource: box:{box", 12, f"{FIRST}.resource", "as {name}"),
    "values that run together": (
        "parts/{}\n          resource: box:{box}",
        "parts/{p}\n          resource: box:{box}-{p}",
        12,
        f"{FIRST}.resource",
        "write a / between",
    ),
    "an action that is not there": ("action: read", "action: change", 13, f"{FIRST}.action", "read, export"),
    "half an action": ("action: read", 'action: "re{box}"', 13, f"{FIRST}.action", "either a literal"),
    "an action that is not defined": ("action: read", 'action: "{verb}"', 13, f"{FIRST}.action", "define {verb}"),
    "a parameter's odd name": ("{box: ", '{"a[]": a, box: ', 16, f"{SECOND}.query.a[]", "parameter's name"),
    "a parameter that is not used": ("form: mbox", 'form: "{form}"', 16, f"{SECOND}.query.form", "use {form}"),
    "a parameter in two cases": ("form: mbox", "Box: mbox", 16, f"{SECOND}.query.Box", "whatever its case"),
    "a name in path and query": ("path: /find", "path: /find/{box}", 16, f"{SECOND}.query.box", "defined twice"),
    "an ignored parameter that is named": (
        "[trace]",
        "[trace, Form]",
        8,
        f"{GATE}.ignored_query[1]",
        "remove it here",
    ),
    "an ignored parameter twice": ("[trace]", "[trace, TRACE]", 8, f"{GATE}.ignored_query[1]", "whatever its case"),
    "an escape of a letter": (
        "      ignored",
        "      escaped: a\n      ignored",
        8,
        f"{GATE}.escaped",
        "list characters",
    ),
    "an unknown field": (
        "      ignored",
        "      fail_open: true\n      ignored",
        8,
        f"{GATE}.fail_open",
        "remove this",
    ),
    "plain http": ("issuer: https://sso", "issuer: http://sso", 22, "issuers[0].issuer", "use https"),
    "no keys": ("    jwks_url: https://sso.example/keys\n", "", 22, "issuers[0].jwks_url", "add this field"),
    "no algorithm": (
        "    audience",
        "    algorithms: [none]\n    audience",
        23,
        "issuers[0].algorithms[0]",
        "'RS256'",
    ),
    "a shared secret": (
        "    audience",
        "    algorithms: [HS256]\n    audience",
        23,
        "issuers[0].algorithms[0]",
        "'RS256'",
    ),
    "a token without end": (
        "    audience",
        "    longest_token: 90000\n    audience",
        23,
        "issuers[0].longest_token",
        "86400",
    ),
    "mail of a word": (
        "    audience",
        '    mail_is_authoritative: "yes"\n    audience',
        23,
        "issuers[0].mail_is_authoritative",
        "true or",
    ),
    "an issuer twice": (
        "issuers:\n",
        "issuers:\n  - {issuer: https://sso.example, audience: b, jwks_url: https://sso.example/k}\n",
        23,
        "issuers[1].issuer",
        "each issuer once",
    ),
    "GraphQL": ("plans:", more("/boxes/{x}/graphql"), 20, f"{GATE}.paths[2].path", "leave out paths with graphql"),
    "GraphQL in capitals": ("plans:", more("/GraphQL/{x}"), 20, f"{GATE}.paths[2].path", "lockbox-guard"),
    "XML-RPC": ("plans:", more("/{x}/xmlrpc.php"), 20, f"{GATE}.paths[2].path", "call's body"),
    "an OData batch": ("plans:", more("/{x}/$batch"), 20, f"{GATE}.paths[2].path", "paths with $batch"),
    "a gRPC method": ("plans:", more("/{x}/mail.v1.Boxes/Read"), 20, f"{GATE}.paths[2].path", "mail.v1.Boxes"),
    "any gRPC method": ("plans:", more("/mail.v1.Boxes/{x}"), 20, f"{GATE}.paths[2].path", "mail.v1.Boxes"),
    "the same path again": ("plans:", more("/boxes/{x}/parts/{}"), 20, f"{GATE}.paths[2].path", "match paths[0]"),
    "a literal beside a variable": ("plans:", more("/boxes/{x}/parts/all"), 20, f"{GATE}.paths[2].path", "paths[0]"),
    "a variable beside a literal": (
        "plans:",
        more("/{x}/all/parts/{}"),
        20,
        f"{GATE}.paths[2].path",
        "match paths[0]",
    ),
}


def written(folder: Path, text: str) -> Path:
    path = folder / "catalogue.yaml"
    path.write_text(text)
    return path


def test_the_gate_example_in_the_documentation_is_valid(tmp_path: Path) -> None:
    gate = read_catalogue(written(tmp_path, GOOD)).services["mail"].gate

    assert gate is not None
    assert gate.callers == GateCallers(entrance="support")


@each("mistake", list(MISTAKES))
def test_a_mistake_in_a_gate_is_named_by_line_and_field(tmp_path: Path, mistake: str) -> None:
    good, bad, line, field, words = MISTAKES[mistake]
    assert good in GOOD
    path = written(tmp_path, GOOD.replace(good, bad, 1))

    with pytest.raises(CatalogueRefused) as refused:
        read_catalogue(path)

    lines = str(refused.value).splitlines()
    assert any(said.startswith(f"{path}:{line}: {field}: ") and words in said for said in lines), lines
    assert len(lines) <= 2


@each(
    "path",
    [
        "/boxes/{x}/parts",
        "/boxes/{x}/parts/{}/",
        "/boxes/{x}/others/{}",
        "/boxes/{x}",
        "/graphql-schemas/{x}",
        "/batch/{x}",
        "/archive.v1.zip/{x}/all",
    ],
)
def test_gate_paths_that_do_not_overlap_are_valid(tmp_path: Path, path: str) -> None:
    read_catalogue(written(tmp_path, GOOD.replace("plans:", more(path))))


def test_a_gate_path_may_be_mapped_again_for_another_method_or_query(tmp_path: Path) -> None:
    same = more("/boxes/{x}/parts/{}")

    read_catalogue(written(tmp_path, GOOD.replace("plans:", same.replace("[GET]", "[PUT]"))))
    read_catalogue(
        written(tmp_path, GOOD.replace("plans:", same.replace("resource", "query: {a: b}\n          resource")))
    )
    other = more("/find").replace("resource", 'query: {box: "{x}", form: text}\n          resource')
    read_catalogue(written(tmp_path, GOOD.replace("plans:", other)))
    with pytest.raises(CatalogueRefused, match=r"match paths\[1\]"):
        read_catalogue(written(tmp_path, GOOD.replace("plans:", other.replace("text", "mbox"))))


def test_a_gate_path_template_cannot_contain_escaped_characters(tmp_path: Path) -> None:
    text = GOOD.replace("/find", "/box:find").replace("      ignored", '      escaped: "@:"\n      ignored')

    with pytest.raises(CatalogueRefused, match=r":16: services.mail.gate.paths\[1\].path: leave : out"):
        read_catalogue(written(tmp_path, text))


def test_the_sample_catalogue_shows_every_gate_field() -> None:
    text = SAMPLE.read_text()
    gates = [service.gate for service in sample_catalogue().services.values() if service.gate]
    models = [*gates, *sample_catalogue().issuers, *(gate.callers for gate in gates), *gates[0].paths]

    missing = {name for model in models for name in type(model).model_fields if f"{name}:" not in text}

    assert missing == set()


def test_the_documentation_lists_every_catalogue_field() -> None:
    documented = (SAMPLE.parents[1] / "docs" / "catalogue.md").read_text()

    assert [name for name in _fields() if f"`{name}`" not in documented and f".{name}`" not in documented] == []


def _fields() -> Iterator[str]:
    catalogue = sample_catalogue()
    gate = catalogue.services["exchange-online"].gate
    assert gate is not None
    parts = (catalogue, catalogue.services["onedrive"], catalogue.plans["standard"], catalogue.issuers[0], gate)
    for model in (*parts, gate.tenant, gate.callers, gate.paths[0]):
        yield from type(model).model_fields


def test_resources_of_the_sample_gate_templates_are_valid_in_a_request() -> None:
    for name, service in sample_catalogue().services.items():
        for rule in service.gate.paths if service.gate else ():
            resource = rule.resource.replace("{address}", "a").replace("{site}", "a")
            assert check_resource(resource) == resource, name


def test_the_sample_gate_maps_calls_as_its_comments_say() -> None:
    service = sample_catalogue().services["sharepoint-online"]

    found = ServiceMapping("sharepoint-online", service).map(
        GateCall("POST", "/orgs/contoso/sites/a%40b/jobs?do=export")
    )

    assert (found.tenant_slug, found.resource, found.action) == ("contoso", "site:a@b", "export")


DOCUMENT: dict[str, Any] = {
    "services": {
        "mail": {
            "title": "Mail",
            "actions": ("read", "change"),
            "gate": {
                "tenant": {"host": "{tenant}.mail.example"},
                "callers": {"entrance": "support"},
                "escaped": "@:",
                "ignored_query": ("a", "b"),
                "paths": (
                    {
                        "methods": ("GET", "HEAD"),
                        "path": "/boxes/{box}",
                        "resource": "mailbox:{box}",
                        "action": "read",
                    },
                    {
                        "methods": ("PUT",),
                        "path": "/boxes/{box}",
                        "resource": "mailbox:{box}",
                        "action": "change",
                        "query": {"dry": "no"},
                    },
                ),
            },
        }
    },
    "plans": {"basic": {}},
    "issuers": (
        {
            "issuer": "https://idp.example",
            "audience": "mail",
            "jwks_url": "https://idp.example/keys",
            "azp": ("x", "y"),
        },
        {"issuer": "https://other.example", "audience": "mail", "jwks_url": "https://other.example/keys"},
    ),
}
Change = Callable[[dict[str, Any], dict[str, Any]], object]


def defined(change: Change = lambda *_: None) -> GateDefinition:
    document = deepcopy(DOCUMENT)
    change(document, document["services"]["mail"]["gate"])
    return GateDefinition.of(Catalogue.model_validate(document), "mail")


def reversed_in(gate: dict[str, Any], *names: str) -> None:
    for name in names:
        gate[name] = gate[name][::-1]


SAME: dict[str, Change] = {
    "paths in another order": lambda _, gate: reversed_in(gate, "paths"),
    "methods in another order": lambda _, gate: reversed_in(gate["paths"][0], "methods"),
    "ignored parameters in another order": lambda _, gate: reversed_in(gate, "ignored_query", "escaped"),
    "actions in another order": lambda document, _: reversed_in(document["services"]["mail"], "actions"),
    "issuers in another order": lambda document, _: reversed_in(document, "issuers"),
    "parties in another order": lambda document, _: reversed_in(document["issuers"][0], "azp"),
    "another title": lambda document, _: document["services"]["mail"].update(title="Post"),
    "another enforcement, of which there are events of its own": lambda _, gate: gate.update(enforcement="report"),
    "a default that is written": lambda document, _: document["issuers"][0].update(longest_token=3600),
}
OTHER: dict[str, tuple[str, Change]] = {
    "path": ("paths", lambda _, gate: gate["paths"][0].update(path="/mailboxes/{box}")),
    "resource": ("paths", lambda _, gate: gate["paths"][0].update(resource="mailbox:other-{box}")),
    "action": ("paths", lambda _, gate: gate["paths"][1].update(action="read")),
    "method": ("paths", lambda _, gate: gate["paths"][0].update(methods=("GET", "DELETE"))),
    "query": ("paths", lambda _, gate: gate["paths"][1].update(query={"dry": "yes"})),
    "ignored": ("ignored parameters", lambda _, gate: gate.update(ignored_query=("a",))),
    "escaped": ("escaped characters", lambda _, gate: gate.update(escaped="@")),
    "tenant": ("customer", lambda _, gate: gate.update(tenant={"fixed": "contoso"})),
    "callers": ("callers", lambda _, gate: gate["callers"].update(engineer_header="Lockbox-Who")),
    "actions": (
        "actions",
        lambda document, _: document["services"]["mail"].update(actions=("read", "change", "export")),
    ),
    "issuer": ("issuers", lambda document, _: document["issuers"][0].update(mail_is_authoritative=True)),
    "keys": ("issuers", lambda document, _: document["issuers"][1].update(jwks_url="https://evil.example/keys")),
    "party": ("issuers", lambda document, _: document["issuers"][0].update(azp=("x",))),
}


@pytest.mark.parametrize("what", SAME)
def test_gate_definitions_with_equal_meaning_have_equal_digests(what: str) -> None:
    assert defined(SAME[what]).digest == defined().digest


@pytest.mark.parametrize("what", OTHER)
def test_a_change_of_any_gate_setting_changes_the_digest_and_is_listed_by_name(what: str) -> None:
    part, change = OTHER[what]
    before, after = defined(), defined(change)

    assert after.digest != before.digest
    assert list(differences(before.body, after.body, "contoso")) == [part]


def test_every_field_of_gate_and_issuers_is_in_the_gate_definition() -> None:
    """A field added to the catalogue is either part of the definition, or left out here for a reason."""
    document = deepcopy(DOCUMENT)
    catalogue = Catalogue.model_validate(document)
    gate, body = catalogue.services["mail"].gate, defined().body
    assert gate is not None

    for part in (gate, gate.paths[0], gate.callers, gate.tenant, catalogue.issuers[0]):
        said = part.model_dump(exclude_none=True)
        assert {name for name in said if f'"{name}":' not in body} <= {"enforcement"}


def test_the_difference_of_two_gate_definitions_lists_removed_and_added_paths() -> None:
    after = defined(lambda _, gate: gate["paths"][0].update(resource="mailbox:everybody-{box}", methods=("GET",)))

    (said,) = differences(defined().body, after.body, "contoso").values()

    assert said == (
        "GET HEAD /boxes/{box} is read of mailbox:{box}",
        "GET /boxes/{box} is read of mailbox:everybody-{box}",
    )


def test_a_long_difference_of_gate_definitions_is_summarised() -> None:
    def many(_: object, gate: dict[str, Any]) -> None:
        gate["paths"] += tuple(
            {"methods": ("GET",), "path": f"/x{n}/{{box}}", "resource": "m:{box}", "action": "read"}
            for n in range(30)
        )

    before, after = differences(defined().body, defined(many).body, "contoso")["paths"]

    assert before == "none"
    assert after.endswith(f"; and {30 - MOST_SHOWN} more")
    assert after.count(";") == MOST_SHOWN


def test_the_difference_of_gate_definitions_never_names_another_customer() -> None:
    before, after = defined(lambda _, gate: gate.update(tenant={"fixed": "contoso"})), defined()

    assert differences(before.body, after.body, "contoso")["customer"][0] == "fixed: contoso"
    assert differences(before.body, after.body, "fabrikam")["customer"][0] == "fixed: another customer"
    assert differences(before.body, after.body, None)["customer"][0] == "fixed: contoso"
