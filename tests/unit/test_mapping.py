"""The gate's mapping: which resource and action a request uses, and that every ambiguous request is refused."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogue.gate_document import TenantSource
from catalogue.service_catalogue import Service
from gate.call import SentHeaders
from gate.mapping import (
    PATH_MARKS,
    QUERY_MARKS,
    GateCall,
    MappedCall,
    MappingRefused,
    ServiceMapping,
    explain,
    target_pattern,
)
from tests.each import each
from tests.unit.gate_examples import HOST, mapped, mapping, refused, rule

MAIL = mapping()
LONG = "a" * 2048
TAKEN = [
    ("GET", "/", "directory:all", "read"),
    ("GET", "/mailboxes/anna@contoso.example", "mailbox:anna@contoso.example", "read"),
    ("PUT", "/mailboxes/anna", "mailbox:anna", "change"),
    ("DELETE", "/mailboxes/anna", "mailbox:anna", "change"),
    ("GET", "/mailboxes/messages", "mailbox:messages", "read"),
    ("GET", "/mailboxes/a-b_c~d.e", "mailbox:a-b_c~d.e", "read"),
    ("GET", "/mailboxes/!$&'()+,:=@", "mailbox:!$&'()+,:=@", "read"),
    ("GET", "/mailboxes/jos%C3%A9", "mailbox:jos\u00e9", "read"),
    ("GET", "/mailboxes/%E4%BD%A0", "mailbox:\u4f60", "read"),
    ("GET", "/mailboxes/a%7Bb%7D", "mailbox:a{b}", "read"),
    ("GET", "/mailboxes/a%22b", 'mailbox:a"b', "read"),
    ("GET", "/mailboxes/a/messages/7?part=headers", "mailbox:a", "read"),
    ("GET", "/mailboxes/a/messages/7?part=all", "mailbox:a", "export"),
    ("GET", "/mailboxes/a/messages/%20?trace=x%20y&part=all", "mailbox:a", "export"),
    ("GET", "/mailboxes/a?trace=1", "mailbox:a", "read"),
    ("POST", "/mailboxes/a/batch?do=export", "mailbox:a", "export"),
    ("GET", "/sites/x/files/y/", "file:x/y", "read"),
    ("GET", "/search?mailbox=anna@contoso.example", "mailbox:anna@contoso.example", "read"),
    ("GET", "/search?mailbox=a%2Bb", "mailbox:a+b", "read"),
    ("GET", "/search?mailbox=a%3Db%26c", "mailbox:a=b&c", "read"),
    ("GET", f"/mailboxes/{'a' * 220}", f"mailbox:{'a' * 220}", "read"),
]
MALFORMED = [
    ("", "begins with /"),
    ("*", "begins with /"),
    ("mailboxes/a", "begins with /"),
    ("http://mail.example/mailboxes/a", "begins with /"),
    ("HTTPS://contoso.mail.example/mailboxes/a", "begins with /"),
    ("contoso.mail.example:443", "begins with /"),
    ("?mailbox=a", "begins with /"),
    ("\\mailboxes\\a", "begins with /"),
    (" /mailboxes/a", "begins with /"),
    ("//mailboxes/a", "one / between"),
    ("//evil.example/mailboxes/a", "one / between"),
    ("/mailboxes//a", "one / between"),
    ("/mailboxes/a//", "one / between"),
    ("/./mailboxes/a", ". or .."),
    ("/mailboxes/./a", ". or .."),
    ("/mailboxes/.", ". or .."),
    ("/mailboxes/..", ". or .."),
    ("/mailboxes/a/..", ". or .."),
    ("/mailboxes/../mailboxes/a", ". or .."),
    ("/mailboxes/a/../b", ". or .."),
    ("/mailboxes/a/../b/", ". or .."),
    ("/mailboxes/...", "end with a dot"),
    ("/mailboxes/a.", "end with a dot"),
    ("/mailboxes./a", "end with a dot"),
    ("/mailboxes/a..?trace=1", "end with a dot"),
    ("/mailboxes/%2e%2e/b", "%2E in capitals"),
    ("/mailboxes/%2E%2E/b", "write . instead of %2E"),
    ("/mailboxes/.%2E/b", "write . instead of %2E"),
    ("/mailboxes/a%2Fb", "leave out %2F"),
    ("/mailboxes/a%2fb", "leave out %2F"),
    ("/mailboxes%2Fa", "leave out %2F"),
    ("/mailboxes/a%5Cb", "leave out %5C"),
    ("/mailboxes/a%5cb", "leave out %5C"),
    ("/mailboxes/a\\b", "backslash"),
    ("/mailboxes/a%00", "leave out %00"),
    ("/mailboxes/a%00.example", "leave out %00"),
    ("/mailboxes/a%0d%0aX: 1", "U+0020"),
    ("/mailboxes/a%0D%0A", "leave out %0D"),
    ("/mailboxes/a%7F", "leave out %7F"),
    ("/mailboxes/a%C2%85", "control character U+0085"),
    ("/mailboxes/a\x00", "U+0000"),
    ("/mailboxes/a\r\nX: 1", "U+000D"),
    ("/mailboxes/a\tb", "U+0009"),
    ("/mailboxes/a\x7f", "U+007F"),
    ("/mailboxes/a b", "U+0020"),
    ("/mailboxes/a ", "U+0020"),
    ("/mailboxes/jos\u00e9", "percent-encode U+00E9"),
    ("/mailboxes/\uff0e\uff0e/a", "percent-encode U+FF0E"),
    ("/mailboxes/a;b", "semicolon"),
    ("/mailboxes/a;x=1/messages/7?part=all", "semicolon"),
    ("/mailboxes/..;/b", "semicolon"),
    ("/mailboxes/a%3Bb", "leave out %3B"),
    ("/mailboxes/a?trace=1;trace=2", "semicolon"),
    ("/mailboxes/a%252Fb", "leave out %25"),
    ("/mailboxes/a%25", "leave out %25"),
    ("/mailboxes/a%25%32%46b", "leave out %25"),
    ("/mailboxes/a%", "two hexadecimal digits"),
    ("/mailboxes/a%4", "two hexadecimal digits"),
    ("/mailboxes/a%zz", "two hexadecimal digits"),
    ("/mailboxes/a%u002F", "two hexadecimal digits"),
    ("/mailboxes/%41", "write A instead of %41"),
    ("/mailboxes/%7Ea", "write ~ instead of %7E"),
    ("/mailboxes/a%40b", "write @ instead of %40"),
    ("/mailboxes/a%c3%a9", "%C3 in capitals"),
    ("/mailboxes/a%3Fpart=all", "leave out %3F"),
    ("/mailboxes/a%23b", "leave out %23"),
    ("/mailboxes/a#b", "fragment"),
    ("/mailboxes/a?trace=1#b", "fragment"),
    ("/mailboxes/%2A", "leave out %2A"),
    ("/mailboxes/*", "leave out the *"),
    ("/mailboxes/%FF", "percent-encode UTF-8"),
    ("/mailboxes/%C3", "percent-encode UTF-8"),
    ("/mailboxes/%C0%AE%C0%AE", "percent-encode UTF-8"),
    ("/mailboxes/%C0%AF", "percent-encode UTF-8"),
    ("/mailboxes/%E0%80%AF", "percent-encode UTF-8"),
    ("/mailboxes/%ED%A0%80", "percent-encode UTF-8"),
    ("/mailboxes/%F4%90%80%80", "percent-encode UTF-8"),
    ("/mailboxes/%C3/%A9", "percent-encode UTF-8"),
    ("/mailboxes/{a}", "write %7B instead of {"),
    ('/mailboxes/a"b', "write %22 instead of"),
    ("/mailboxes/a|b", "write %7C instead of |"),
    ("/mailboxes/[a]", "write %5B instead of ["),
    ("/mailboxes/a%20b", "the resource is refused"),
    ("/mailboxes/a%E2%80%8Bb", "the resource is refused"),
    ("/mailboxes/a%E2%80%AEb", "the resource is refused"),
    ("/mailboxes/jose%CC%81", "the resource is refused"),
    ("/mailboxes/a%C2%A0b", "the resource is refused"),
    (f"/mailboxes/{'a' * 221}", "the resource is refused"),
    (f"/mailboxes/{LONG}", "at most 2,048"),
    ("/mailboxes/a?", "name=value"),
    ("/mailboxes/a?trace", "name=value"),
    ("/mailboxes/a?trace=", "name=value"),
    ("/mailboxes/a?=1", "name=value"),
    ("/mailboxes/a?trace=1&", "name=value"),
    ("/mailboxes/a?&trace=1", "name=value"),
    ("/mailboxes/a?trace=1&&trace=2", "name=value"),
    ("/mailboxes/a??trace=1", "letters, digits"),
    ("/mailboxes/a?trace=1?2", "leave ? out"),
    ("/mailboxes/a?trace=1&trace=2", "each parameter once"),
    ("/mailboxes/a/messages/7?part=all&part=all", "each parameter once"),
    ("/mailboxes/a/messages/7?part=headers&part=all", "each parameter once"),
    ("/mailboxes/a/messages/7?part=headers&p%61rt=all", "write a instead of %61"),
    ("/mailboxes/a/messages/7?part=headers&part[]=all", "letters, digits"),
    ("/mailboxes/a/messages/7?part=headers&part%5B%5D=all", "letters, digits"),
    ("/mailboxes/a/messages/7?part=all%00", "leave out %00"),
    ("/search?mailbox=a+b", "write %2B instead of +"),
    ("/search?mailbox=a=b", "write %3D instead of ="),
    ("/search?mailbox=a/b", "leave / out"),
    ("/search?mailbox=a%2Fb", "leave out %2F"),
    ("/search?mailbox=%61", "write a instead of %61"),
    ("/search?mailbox=a%26mailbox=b", "write %3D instead of ="),
]
UNMAPPED = [
    ("GET", "/mailboxes", "no path"),
    ("GET", "/mailboxes/", "no path"),
    ("GET", "/mailboxes/a/", "no path"),
    ("GET", "/Mailboxes/a", "no path"),
    ("GET", "/mailboxes/a/b", "no path"),
    ("GET", "/sites/x/files/y", "no path"),
    ("GET", "/x/mailboxes/a", "no path"),
    ("POST", "/mailboxes/a", "no path"),
    ("HEAD", "/mailboxes/a", "the method 'HEAD'"),
    ("get", "/mailboxes/a", "the method 'get'"),
    ("GET ", "/mailboxes/a", "the method 'GET '"),
    ("", "/mailboxes/a", "the method ''"),
    ("TRACE", "/mailboxes/a", "the method"),
    ("CONNECT", "/mailboxes/a", "the method"),
    ("G\u0395T", "/mailboxes/a", "the method 'G\\u0395T'"),
    ("GET", "/mailboxes/a?x=1", "the parameter x"),
    ("GET", "/mailboxes/a?Trace=1", "the parameter Trace"),
    ("GET", "/mailboxes/a?part=all", "the parameter part"),
    ("GET", "/mailboxes/a/messages/7", "takes part"),
    ("GET", "/mailboxes/a/messages/7?part=some", "takes part"),
    ("GET", "/mailboxes/a/messages/7?part=All", "takes part"),
    ("GET", "/mailboxes/a/messages/7?part=all&to=b", "the parameter to"),
    ("POST", "/mailboxes/a/batch?do=destroy", "none of the service's actions"),
    ("POST", "/mailboxes/a/batch?do=Read", "none of the service's actions"),
    ("GET", "/search", "takes mailbox"),
]


@each(("method", "target", "resource", "action"), TAKEN)
def test_a_mapped_http_request_uses_one_resource_and_one_action(
    method: str, target: str, resource: str, action: str
) -> None:
    assert mapped(MAIL, target, method) == ("contoso", resource, action)


@each(("target", "words"), MALFORMED)
def test_an_ambiguous_http_request_is_malformed_for_the_gate(target: str, words: str) -> None:
    code, reason = refused(MAIL, target)

    assert code == "malformed"
    assert words in reason
    assert reason.isascii()
    assert reason.isprintable()


@each(("method", "target", "words"), UNMAPPED)
def test_an_http_request_not_in_the_catalogue_is_unmapped(method: str, target: str, words: str) -> None:
    code, reason = refused(MAIL, target, method)

    assert code == "unmapped"
    assert words in reason
    assert reason.isascii()


def test_characters_that_clients_escape_are_accepted_in_escaped_spelling_only() -> None:
    escaping = mapping(escaped="@:")

    assert mapped(escaping, "/mailboxes/a%40b")[1] == "mailbox:a@b"
    assert mapped(escaping, "/search?mailbox=a%40b%3A")[1] == "mailbox:a@b:"
    assert refused(escaping, "/mailboxes/a@b")[0] == "malformed"
    assert "%40" in refused(escaping, "/mailboxes/a@b")[1]
    assert refused(escaping, "/search?mailbox=a@b")[0] == "malformed"
    assert refused(escaping, "/mailboxes/a%2Bb")[0] == "malformed"


@each(
    ("host", "code"),
    [
        ("Contoso.mail.example", "malformed"),
        ("contoso.mail.EXAMPLE", "malformed"),
        ("contoso.mail.example.", "malformed"),
        ("contoso.mail.example:443", "malformed"),
        ("contoso.mail.example.:443", "malformed"),
        ("contoso.mail.example:", "malformed"),
        (".mail.example", "malformed"),
        ("a.contoso.mail.example", "malformed"),
        ("-contoso.mail.example", "malformed"),
        ("con_toso.mail.example", "malformed"),
        (" contoso.mail.example", "malformed"),
        ("contoso@fabrikam.mail.example", "malformed"),
        ("contoso.mail.example, x", "unmapped"),
        ("contoso.mail.example.evil.example", "unmapped"),
        ("contoso-mail.example", "unmapped"),
        ("mail.example", "unmapped"),
        ("", "unmapped"),
        ("\u212aontoso.mail.example", "malformed"),
    ],
)
def test_a_host_identifies_its_tenant_in_one_spelling_only(host: str, code: str) -> None:
    assert refused(MAIL, "/mailboxes/a", host=host)[0] == code


def test_a_port_is_part_of_the_host_template_for_a_tenant() -> None:
    made = mapping(tenant=TenantSource(host="{tenant}.mail.example:8443"))

    assert mapped(made, "/mailboxes/a", host="contoso.mail.example:8443")[0] == "contoso"
    assert refused(made, "/mailboxes/a", host="contoso.mail.example")[0] == "unmapped"


def test_the_tenant_of_a_gate_may_be_fixed_in_the_catalogue() -> None:
    assert mapped(mapping(tenant=TenantSource(fixed="contoso")), "/mailboxes/a", host="any")[0] == "contoso"


def test_the_tenant_of_a_gated_call_may_be_a_path_segment() -> None:
    made = mapping(rule("/orgs/{org}/mailboxes/{a}", "mailbox:{a}"), tenant=TenantSource(path="org"))

    assert mapped(made, "/orgs/contoso/mailboxes/x") == ("contoso", "mailbox:x", "read")
    assert refused(made, "/orgs/Contoso/mailboxes/x")[0] == "malformed"
    assert refused(made, "/orgs/%C3%A9/mailboxes/x")[0] == "malformed"


@each(
    ("headers", "code"),
    [
        ((), "malformed"),
        (((b"lockbox-tenant", b"contoso"), (b"lockbox-tenant", b"contoso")), "malformed"),
        (((b"lockbox-tenant", b"contoso"), (b"lockbox-tenant", b"fabrikam")), "malformed"),
        (((b"lockbox-tenant", b"contoso, fabrikam"),), "malformed"),
        (((b"lockbox-tenant", b" contoso"),), "malformed"),
        (((b"lockbox-tenant", b""),), "malformed"),
        (((b"x-tenant", b"contoso"),), "malformed"),
    ],
)
def test_the_tenant_header_of_a_gateway_must_be_present_exactly_once(headers: Any, code: str) -> None:
    made = mapping(tenant=TenantSource(header="Lockbox-Tenant"))

    assert refused(made, "/mailboxes/a", headers=SentHeaders(headers))[0] == code
    given = ((b"accept", b"x"), (b"lockbox-tenant", b"contoso"))
    assert mapped(made, "/mailboxes/a", headers=SentHeaders(given))[0] == "contoso"


def test_mapped_paths_with_a_common_beginning_are_distinguished() -> None:
    made = mapping(
        rule("/a/{x}/c", "one:{x}"),
        rule("/a/b/d", "two:b"),
        rule("/a/{x}/e", "three:{x}", n="1"),
        rule("/a/b/e", "four:b"),
    )

    assert mapped(made, "/a/b/c")[1] == "one:b"
    assert mapped(made, "/a/b/d")[1] == "two:b"
    assert mapped(made, "/a/b/e?n=1")[1] == "three:b"
    assert mapped(made, "/a/b/e")[1] == "four:b"
    assert refused(made, "/a/x/d")[0] == "unmapped"


def test_a_service_without_a_gate_has_no_mapping() -> None:
    with pytest.raises(ValueError, match="add `gate`"):
        ServiceMapping("mail", Service(title="Mail"))


def test_the_table_of_malformed_request_targets_has_enough_rows() -> None:
    assert len({target for target, _ in MALFORMED}) == len(MALFORMED) >= 60
    assert HOST.startswith("contoso.")


@each(
    ("method", "target", "path"),
    [
        ("GET", "/mailboxes/anna", "/mailboxes/{address}"),
        ("GET", "/mailboxes/a/messages/7?trace=9&part=all", "/mailboxes/{address}/messages/{}?part"),
        ("GET", "/search?mailbox=anna", "/search?mailbox"),
    ],
)
def test_a_mapped_http_request_is_returned_with_the_catalogue_path_it_matched(
    method: str, target: str, path: str
) -> None:
    assert MAIL.map(GateCall(method, target, HOST)).path == path


SECRET = "eyJhbGciOiJSUzI1NiJ9"


@each(
    ("target", "outline"),
    [
        ("/mailboxes/anna@contoso.example/export", "/mailboxes/{}/export"),
        ("/mailboxes/a/messages/7?part=all&page=2", "/mailboxes/{}/messages/{}?page&part"),
        ("/admin/getUser/4711/", "/admin/getUser/{}/"),
        ("/admin/batch-jobs/list_all", "/admin/batch-jobs/list_all"),
        (f"/reset/{SECRET}?token={SECRET}&{SECRET}=1", "/reset/{}?token&{}"),
        ("/reset/ABCDEFGH", "/reset/{}"),
        (f"/reset/{'a' * 25}", "/reset/{}"),
        ("/jos%C3%A9", "/{}"),
        ("/search?trace=1&$top=5", "/search?$top&trace"),
        ("/a/b/c/d/e/f/g/h/i/j/k/l/m/n", "/a/b/c/d/e/f/g/h/i/j/k/l/…"),
        ("/?a=1&b=1&c=1&d=1&e=1&f=1&g=1&h=1&i=1&j=1", "/?a&b&c&d&e&f&g&h"),
    ],
)
def test_the_outline_of_a_path_has_no_names_values_or_secrets(target: str, outline: str) -> None:
    assert MAIL.outline(GateCall("GET", target, HOST)) == outline


def of_type(*types: str) -> SentHeaders:
    """Return the headers of a question about a call with these content types."""
    return SentHeaders([(b"content-type", one.encode()) for one in types])


@each(
    "kind",
    [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc-web-text; charset=utf-8",
        "Application/GRPC",
        "application/json, application/grpc",
        "application/graphql",
        "application/graphql+json",
        "application/connect+proto",
        "application/json-rpc",
        "application/jsonrpc",
        "application/soap+xml; charset=utf-8",
        'multipart/mixed; boundary="b"',
    ],
)
def test_the_mapping_refuses_a_call_whose_action_depends_on_its_body(kind: str) -> None:
    code, reason = refused(MAIL, "/mailboxes/anna", "PUT", headers=of_type(kind))

    assert code == "unmapped"
    assert "stands in its body, which the gate does not read" in reason


@each(
    "kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "text/x", ""]
)
def test_the_mapping_accepts_a_form_body_for_a_mapped_path(kind: str) -> None:
    assert mapped(MAIL, "/mailboxes/anna", "PUT", headers=of_type(kind))[1] == "mailbox:anna"


def test_the_mapping_refuses_two_content_types() -> None:
    code, reason = refused(MAIL, "/mailboxes/anna", "PUT", headers=of_type("application/json", "application/grpc"))

    assert (code, reason) == ("malformed", "send one Content-Type")


RULES = (
    rule("/mailboxes/{address}", "mailbox:{address}"),
    rule("/sites/{site}/files/{file}/", "file:{site}/{file}", "change"),
    rule("/search", "found:{word}", "{verb}", word="{word}", do="{verb}"),
)
PLAIN = mapping(*RULES, ignored=())
ESCAPING = mapping(*RULES, ignored=(), escaped="@:+")
WORDS = (
    "/ // mailboxes sites files search a B @ : + = & ? # ; * . .. word= do=read do=change { "
    "% %2F %2f %41 %40 %20 %25 %C3%A9 %c3 %00 %3A %2B"
)
PIECES = st.sampled_from([*WORDS.split(), '"', "\\", " ", "\x00", "\u00e9"])
TARGETS = st.one_of(
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(PIECES, max_size=6).map(lambda parts: "/mailboxes/" + "".join(parts)),
    st.lists(PIECES, max_size=6).map(lambda parts: "/search?do=read&word=" + "".join(parts)),
    st.text(max_size=30).map(lambda text: f"/mailboxes/{quote(text, safe=PATH_MARKS)}"),
    st.text(max_size=30),
)
MADE = st.sampled_from([(PLAIN, ""), (ESCAPING, "@:+")])


def taken(made: ServiceMapping, target: str) -> MappedCall | None:
    """Return what a request is mapped to; None if it is refused."""
    try:
        return made.map(GateCall("GET", target, HOST))
    except MappingRefused:
        return None


def again(call: MappedCall, escaped: str, order: str) -> str:
    """Return the only target that is mapped to this call, with its parameters in the order of the target `order`."""
    in_path = "".join(mark for mark in PATH_MARKS if mark not in escaped)
    in_query = "".join(mark for mark in QUERY_MARKS if mark not in escaped)
    kind, _, name = call.resource.partition(":")
    if kind == "mailbox":
        return f"/mailboxes/{quote(name, safe=in_path)}"
    if kind == "file":
        site, _, file = name.partition("/")
        return f"/sites/{quote(site, safe=in_path)}/files/{quote(file, safe=in_path)}/"
    pairs = [f"word={quote(name, safe=in_query)}", f"do={call.action}"]
    return f"/search?{'&'.join(pairs if order.startswith('/search?word') else pairs[::-1])}"


@settings(deadline=None)
@given(MADE, TARGETS)
def test_exactly_one_request_target_can_be_rebuilt_from_a_mapped_http_request(
    made: tuple[ServiceMapping, str], target: str
) -> None:
    service, escaped = made

    found = taken(service, target)

    assert found is None or again(found, escaped, target) == target


@settings(deadline=None)
@given(MADE, TARGETS, TARGETS)
def test_no_two_request_targets_map_to_the_same_resource(
    made: tuple[ServiceMapping, str], one: str, other: str
) -> None:
    first, second = taken(made[0], one), taken(made[0], other)

    if first is not None and first == second:
        assert sorted(one.partition("?")[2].split("&")) == sorted(other.partition("?")[2].split("&"))
        assert one.partition("?")[0] == other.partition("?")[0]


@settings(deadline=None)
@given(MADE, st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zs"], exclude_characters="/\\;%?#*")))
def test_a_canonical_request_target_maps_to_itself(made: tuple[ServiceMapping, str], address: str) -> None:
    service, escaped = made
    safe = "".join(mark for mark in PATH_MARKS if mark not in escaped)

    found = taken(service, f"/mailboxes/{quote(address, safe=safe)}")

    assert found is None or found.resource == f"mailbox:{address}"
    if address.isascii() and address and not address.endswith(".") and len(address) <= 220 and " " not in address:
        assert found is not None


@settings(deadline=None)
@given(st.sampled_from(["", "@:+"]), TARGETS)
def test_each_refused_request_target_has_a_specific_reason(escaped: str, target: str) -> None:
    if target_pattern(escaped).fullmatch(target) is None:
        said = explain(target, escaped)

        assert not said.startswith("write the target as a path"), "only what nobody thought of is told that"
        assert said.isascii()


def test_a_variable_in_a_path_template_matches_one_segment_literally() -> None:
    found = taken(PLAIN, "/mailboxes/mailboxes")

    assert found is not None
    assert found.resource == "mailbox:mailboxes"
