"""Which call a gateway's question is about, in each dialect, and the questions that are refused."""

import pytest

from gate import dialects
from gate.dialects import AskedCall, Dialect, GateQuestion, MalformedQuestion
from gate.sent_headers import SentHeaders
from tests.each import each

Headers = list[tuple[bytes, bytes]]

ORIGINAL: Headers = [(b"x-original-method", b"GET"), (b"x-original-uri", b"/mailboxes/a%2Fb?x=1")]
FORWARDED: Headers = [
    (b"x-forwarded-method", b"GET"),
    (b"x-forwarded-uri", b"/mailboxes/a%2Fb?x=1"),
    (b"x-forwarded-host", b"mail.example"),
]
HOST: Headers = [(b"host", b"lockbox.example")]
OF_HEADERS = (Dialect.NGINX, Dialect.HAPROXY, Dialect.CADDY, Dialect.TRAEFIK)


def own(dialect: Dialect) -> Headers:
    """Return good headers of a dialect."""
    return [*HOST, *(ORIGINAL if dialect in {Dialect.NGINX, Dialect.HAPROXY} else FORWARDED)]


def asked(
    dialect: Dialect, headers: Headers, *, method: str = "GET", rest: bytes = b"", query: bytes = b""
) -> AskedCall:
    """Return the call that is asked about."""
    return dialects.read(dialect, GateQuestion(method, "mail", rest, query, SentHeaders(headers)))


@pytest.mark.parametrize("dialect", OF_HEADERS)
def test_the_call_stands_in_the_headers_as_it_was_sent(dialect: Dialect) -> None:
    found = asked(dialect, own(dialect))

    assert (found.method, found.target) == ("GET", "/mailboxes/a%2Fb?x=1")


def test_envoys_question_is_the_call_itself() -> None:
    found = asked(Dialect.ENVOY, HOST, method="DELETE", rest=b"/../a%2fb", query=b"x=1&x=2")

    assert found == AskedCall("DELETE", "/../a%2fb?x=1&x=2", "lockbox.example")


@each(
    ("dialect", "more", "named"),
    [
        (Dialect.NGINX, FORWARDED[0], "x-forwarded-method"),
        (Dialect.NGINX, FORWARDED[1], "x-forwarded-uri"),
        (Dialect.NGINX, FORWARDED[2], "x-forwarded-host"),
        (Dialect.HAPROXY, FORWARDED[1], "x-forwarded-uri"),
        (Dialect.CADDY, ORIGINAL[0], "x-original-method"),
        (Dialect.CADDY, ORIGINAL[1], "x-original-uri"),
        (Dialect.TRAEFIK, ORIGINAL[1], "x-original-uri"),
        (Dialect.NGINX, (b"x-original-url", b"/evil"), "x-original-url"),
        (Dialect.CADDY, (b"x-rewrite-url", b"/evil"), "x-rewrite-url"),
        (Dialect.CADDY, (b"x-http-method-override", b"DELETE"), "x-http-method-override"),
        (Dialect.NGINX, (b"x-method-override", b"DELETE"), "x-method-override"),
        (Dialect.NGINX, ORIGINAL[1], "x-original-uri"),
        (Dialect.CADDY, FORWARDED[0], "x-forwarded-method"),
        (Dialect.CADDY, (b"x-forwarded-uri", b""), "x-forwarded-uri"),
        (Dialect.NGINX, HOST[0], "host"),
        (Dialect.NGINX, (b"content-length", b"1"), "body"),
        (Dialect.NGINX, (b"transfer-encoding", b"chunked"), "body"),
    ],
)
def test_a_header_of_another_dialect_or_twice_is_refused(
    dialect: Dialect, more: tuple[bytes, bytes], named: str
) -> None:
    for headers in ([*own(dialect), more], [more, *own(dialect)]):
        with pytest.raises(MalformedQuestion, match=named):
            asked(dialect, headers)


@pytest.mark.parametrize("header", [*ORIGINAL[:2], *FORWARDED[:2], (b"x-rewrite-url", b"/evil")])
def test_a_guards_question_has_no_header_of_a_gateway_nor_a_body(header: tuple[bytes, bytes]) -> None:
    name, value = header

    dialects.check_direct(GateQuestion("GET", "mail", b"/check", b"", SentHeaders([*HOST, (name, b"")])))
    for more in ([header], [header, (name, b"")], [(name, b""), (name, value)]):
        with pytest.raises(MalformedQuestion, match=name.decode()):
            dialects.check_direct(GateQuestion("GET", "mail", b"/check", b"", SentHeaders([*HOST, *more])))
    for length in ([b"1"], [b"1", b"0"], [b"0", b"1"]):
        body = SentHeaders([(b"content-length", one) for one in length])
        with pytest.raises(MalformedQuestion, match="body"):
            dialects.check_direct(GateQuestion("GET", "mail", b"/check", b"", body))


@pytest.mark.parametrize("header", [*ORIGINAL, *FORWARDED, (b"x-http-method", b"PUT")])
def test_envoy_sends_none_of_the_headers_of_others(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(MalformedQuestion, match=header[0].decode()):
        asked(Dialect.ENVOY, [*HOST, header], rest=b"/a")


@pytest.mark.parametrize("dialect", OF_HEADERS)
def test_a_header_that_the_gateway_empties_is_as_good_as_none(dialect: Dialect) -> None:
    others = FORWARDED if dialect in {Dialect.NGINX, Dialect.HAPROXY} else ORIGINAL

    assert asked(dialect, [*own(dialect), *((name, b"") for name, _ in others)]).method == "GET"


@pytest.mark.parametrize("dialect", OF_HEADERS)
@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_header_is_refused(dialect: Dialect, missing: int) -> None:
    headers = own(dialect)
    name, _ = headers.pop(missing)

    for sent in (headers, [*headers, (name, b"")]):
        with pytest.raises(MalformedQuestion, match=f"{name.decode()} is missing"):
            asked(dialect, sent)


@pytest.mark.parametrize("dialect", OF_HEADERS)
def test_the_question_itself_is_a_get_of_the_service_alone(dialect: Dialect) -> None:
    with pytest.raises(MalformedQuestion, match="GET"):
        asked(dialect, own(dialect), method="POST")
    for part in ({"rest": b"/"}, {"rest": b"/mailboxes/b"}, {"query": b"x=1"}):
        with pytest.raises(MalformedQuestion, match="name of the service"):
            asked(dialect, own(dialect), **part)  # type: ignore[arg-type]


def test_haproxy_may_ask_with_head_and_no_other_does() -> None:
    assert asked(Dialect.HAPROXY, own(Dialect.HAPROXY), method="HEAD").method == "GET"
    with pytest.raises(MalformedQuestion, match="GET"):
        asked(Dialect.NGINX, own(Dialect.NGINX), method="HEAD")


def test_envoy_without_the_path_of_the_call_is_refused() -> None:
    with pytest.raises(MalformedQuestion, match="path_prefix"):
        asked(Dialect.ENVOY, HOST)


def test_the_service_stands_in_the_path() -> None:
    assert dialects.service_in(b"/gate/v1/mail") == ("mail", b"")
    assert dialects.service_in(b"/gate/v1/mail/a/b%2f") == ("mail", b"/a/b%2f")
    for path in (b"/gate/v1/", b"/gate/v1//a", b"/gate/v1/m\xc3\xa4il"):
        with pytest.raises(MalformedQuestion, match="names no service"):
            dialects.service_in(path)
