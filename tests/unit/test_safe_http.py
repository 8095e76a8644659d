"""Guarded outgoing calls: no internal network, no redirect, no proxy, and never longer or larger than allowed."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness.webhook_receiver import ScriptedAnswer
from lockbox.safe_http import LOOK_UPS, MOST_LOOK_UPS, UNDER_WAY, FetchFailed, fetch
from tests.oidc_issuer import BROKEN, DRIP, DRIPPING_HEADERS, HTML, HUGE, REDIRECT, ZIPPED, LocalIssuer, local_issuer

# fmt: off
INNER = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",  # noqa: S104
    "100.64.0.1", "192.0.0.8", "192.88.99.1", "198.18.0.1", "224.0.1.1", "240.0.0.1", "255.255.255.255",
    "::1", "::", "::8.8.8.8", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
    "2001:db8::1", "2002:7f00:1::1", "3fff::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff0e::1",
]
# fmt: on


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Make names resolve to one answer after the other, and return the list of the names asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_safe_http_returns_the_answer_of_a_valid_server(issuer: LocalIssuer) -> None:
    said = fetch(f"{issuer.url}/jwks", allow_loopback=True)

    assert said.startswith(b'{"keys": [')
    assert issuer.heard[-1]["accept-encoding"] == "identity"


ON_LOOPBACK = ("127.", "::1")
INWARD = {
    **{f"a name at {address}": ("https://sso.example/jwks", False, [address]) for address in INNER},
    **{
        f"a name at {address} where loopback is allowed": ("https://sso.example/jwks", True, [address])
        for address in INNER
        if not address.startswith(ON_LOOPBACK)
    },
    "a name at a public address and an inner one": ("https://sso.example/jwks", False, ["8.8.8.8", "10.0.0.1"]),
    "plain HTTP to a public address": ("http://sso.example/jwks", True, ["8.8.8.8"]),
}


@pytest.mark.parametrize(("url", "allow_loopback", "addresses"), INWARD.values(), ids=INWARD)
def test_safe_http_calls_only_public_addresses_and_loopback_where_allowed(
    monkeypatch: pytest.MonkeyPatch, url: str, addresses: list[str], *, allow_loopback: bool
) -> None:
    resolve_to(monkeypatch, addresses)

    with pytest.raises(FetchFailed, match="not a public one"):
        fetch(url, allow_loopback=allow_loopback)


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.1", "127.1", "localhost", "[::1]", "[::ffff:7f00:1]"]
)
def test_safe_http_refuses_unusual_spellings_of_loopback(host: str) -> None:
    with pytest.raises(FetchFailed):
        fetch(f"https://{host}/jwks")


@pytest.mark.parametrize(
    "url",
    [
        "http://sso.example/jwks",
        "ftp://sso.example/jwks",
        "file:///etc/passwd",
        "gopher://sso.example/",
        "https:///jwks",
        "https://user:password@sso.example/jwks",
        "https://sso.example:22/jwks",
        "https://sso.example:0/jwks",
        "https://sso.example:x/jwks",
        "https://sso.example/\r\nHost: other",
        "sso.example",
        "",
    ],
)
def test_safe_http_refuses_malformed_or_disallowed_urls_before_any_dns_lookup(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    asked = resolve_to(monkeypatch, ["8.8.8.8"])

    with pytest.raises(FetchFailed):
        fetch(url)

    assert asked == []


def test_safe_http_looks_up_a_name_once(monkeypatch: pytest.MonkeyPatch, issuer: LocalIssuer) -> None:
    asked = resolve_to(monkeypatch, ["127.0.0.1"], ["10.0.0.1"])
    url = issuer.url.replace("127.0.0.1", "sso.example")

    assert fetch(f"{url}/jwks", allow_loopback=True)

    assert asked == ["sso.example"]
    assert issuer.heard[-1]["host"] == url.removeprefix("http://")


def test_a_hanging_resolver_costs_safe_http_no_more_than_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(10) and [])
    started = time.monotonic()

    with pytest.raises(FetchFailed, match="in time"):
        fetch("https://slow.example/jwks", seconds=0.1)

    assert time.monotonic() - started < 9
    answered.set()


@pytest.mark.far
def test_safe_http_looks_up_a_hanging_name_once_for_all_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, asked = threading.Event(), []

    def hang(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        answered.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    for _ in range(MOST_LOOK_UPS + 1):
        with pytest.raises(FetchFailed, match="in time"):
            fetch("https://hangs.example/jwks", seconds=0.02)
    with pytest.raises(FetchFailed, match="in time"):
        fetch("https://other.example/jwks", seconds=0.02)

    assert asked == ["hangs.example", "other.example"]
    answered.set()
    until = time.monotonic() + 5
    while UNDER_WAY and time.monotonic() < until:
        time.sleep(0.01)
    assert not UNDER_WAY


def test_hanging_resolvers_use_only_a_few_threads() -> None:
    taken = [LOOK_UPS.acquire(timeout=10) for _ in range(MOST_LOOK_UPS)]
    try:
        with pytest.raises(FetchFailed, match="too many names"):
            fetch("https://sso.example/jwks")
    finally:
        for _ in taken:
            LOOK_UPS.release()


def test_environment_variables_cannot_set_a_proxy_for_safe_http(
    monkeypatch: pytest.MonkeyPatch, issuer: LocalIssuer
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert fetch(f"{issuer.url}/jwks", allow_loopback=True)


@pytest.mark.far
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (BROKEN, "it answered 500"),
        (REDIRECT, "it answered 302"),
        (ScriptedAnswer(status=201), "it answered 201"),
        (HUGE, "answer is too long"),
        (ZIPPED, "encoding"),
        (HTML, "other than JSON"),
        (DRIP, "took too long"),
        (DRIPPING_HEADERS, "took too long"),
    ],
)
def test_safe_http_refuses_a_bad_answer_in_time_and_does_not_quote_it(
    issuer: LocalIssuer, answer: ScriptedAnswer, reason: str
) -> None:
    issuer.troubles["/jwks"] = answer
    started = time.monotonic()

    with pytest.raises(FetchFailed, match=reason) as failed:
        fetch(f"{issuer.url}/jwks", allow_loopback=True, seconds=1.5 if answer.drops else 5)

    assert time.monotonic() - started < 10
    assert issuer.fetched == {"/jwks": 1}
    assert failed.value.__cause__ is None
    assert "stack trace" not in str(failed.value)


def test_safe_http_reports_a_refused_connection_at_once(issuer: LocalIssuer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))

        with pytest.raises(FetchFailed, match="no connection"):
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/jwks", allow_loopback=True)

    assert issuer.fetched == {}


def test_safe_http_checks_the_certificate_for_the_name_though_it_calls_the_address(tmp_path: Path) -> None:
    serving, trusting = certified(tmp_path, "localhost")

    with local_issuer(name="localhost", tls=serving) as issuer:
        assert fetch(f"{issuer.url}/jwks", allow_loopback=True, tls=trusting)


@pytest.mark.parametrize(("name", "is_trusted"), [("other.example", True), ("localhost", False)])
def test_safe_http_refuses_a_certificate_for_another_name_or_by_an_unknown_authority(
    tmp_path: Path, name: str, *, is_trusted: bool
) -> None:
    serving, trusting = certified(tmp_path, name)

    with local_issuer(name="localhost", tls=serving) as issuer, pytest.raises(FetchFailed, match="certificate"):
        fetch(f"{issuer.url}/jwks", allow_loopback=True, tls=trusting if is_trusted else None)


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's TLS context with a certificate for that name, and a client's that trusts it."""
    key, own = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    at = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder(own, own, key.public_key(), x509.random_serial_number())
        .not_valid_before(at - timedelta(days=3650))
        .not_valid_after(at + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    return serving, ssl.create_default_context(cadata=certificate.public_bytes(Encoding.PEM).decode())
