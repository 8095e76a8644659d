"""`lockbox gate probe`: test that a deployed gateway refuses calls."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.text import Text

from cli.client import at, call, stop, warn
from cli.route_command import PAGE, TENANT, RouteCommand, TableOf, group, moment_of
from cli.terminal import Listing, Output, OutputFormat, show

SECONDS = 10.0
REASON = "lockbox-reason"
NO_ANSWER = "no_answer"
NO_WINDOW = "no_window"
BAD_REQUEST = 400
PORTS = {"http": 80, "https": 443}
COLOURS = {"refused": "green", "no answer": "yellow", "HOLE": "bold red"}

FORGED = (
    *("X-Original-URI", "X-Original-URL", "X-Original-Method", "X-Original-Host"),
    *("X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Host", "X-Forwarded-Path"),
    *("X-Rewrite-URL", "X-HTTP-Method-Override", "X-Envoy-Original-Path", "Forwarded"),
    *(
        "Lockbox-Gateway",
        "Lockbox-Decision",
        "Lockbox-Request",
        "Lockbox-Engineer",
        "Lockbox-Until",
        "Lockbox_Decision",
    ),
)
"""Headers that a client must not be able to set."""
HEADER_VALUE = "lockbox-probe"
UNSIGNED = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJsb2NrYm94LXByb2JlIn0."

PROBES = RouteCommand(
    "GET /v1/tenants/{slug}/gate-probes",
    (TENANT, *PAGE),
    TableOf(
        {
            "Recorded": moment_of("at"),
            "Service": "service",
            "Gateway": "gateway",
            "Refused": "refused",
            "Let through": "let_through",
        }
    ),
    "List what probes found, as a member of the tenant.",
)

app = group("", {"probes": PROBES}, {})


@dataclass(frozen=True)
class ProbeCall:
    """A GET without a body; `target` is sent exactly as written.

    `is_odd`: a gateway may refuse the call as a bad request without asking Lockbox. `is_plain`: the call lacks only
    an open window.
    """

    name: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    is_odd: bool = False
    is_plain: bool = False


def probe_calls(target: str, token: str | None) -> Iterator[ProbeCall]:
    """`token` is a token of a probe engineer."""
    yield ProbeCall("no token", target)
    yield ProbeCall("a token that is none", target, _bearer("lockbox-probe"))
    yield ProbeCall("an unsigned token", target, _bearer(UNSIGNED))
    yield ProbeCall("a password", target, (("Authorization", "Basic bG9ja2JveDpwcm9iZQ=="),))
    for shown, name in ((None, ""), (token, ", with the token"))[: 2 if token else 1]:
        bearer = _bearer(shown) if shown else ()
        if shown:
            yield ProbeCall("the token twice", target, bearer + bearer, is_odd=True)
            yield ProbeCall("no window", target, bearer, is_plain=True)
        for spelling, spelled in _spellings(target).items():
            yield ProbeCall(f"{spelling}{name}", spelled, bearer, is_odd=True)
        for header in FORGED:
            yield ProbeCall(f"{header}{name}", target, (*bearer, (header, HEADER_VALUE)), is_odd="_" in header)


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("Authorization", f"Bearer {token}"),)


def _spellings(target: str) -> dict[str, str]:
    before, _, last = target.rpartition("/")
    return {
        "two slashes": f"/{target}",
        "dot segments": f"/x/..{target}",
        "encoded dots": f"/x/%2e%2e{target}",
        "above the root": f"/..{target}",
        "encoded slash": f"{before}%2F{last}",
        "double encoding": f"{before}%252F{last}",
        "backslash": f"{before}\\{last}",
        "semicolon": f"{target};a=b",
        "encoded zero": f"{target}%00",
        "slash at the end": f"{target}/",
        "unknown parameter": f"{target}?lockbox-probe=1",
        "repeated parameter": f"{target}?lockbox-probe=1&lockbox-probe=2",
        "fragment": f"{target}#lockbox-probe",
        "unmapped path": "/lockbox-probe",
        "root": "/",
        "the gate's own path": "/gate/v1/lockbox-probe",
    }


@dataclass(frozen=True)
class GatewayUrl:
    is_secure: bool
    address: str
    port: int
    host: str


@dataclass(frozen=True)
class ProbeAnswer:
    call: ProbeCall
    status: int
    reason: str

    @property
    def is_refused(self) -> bool:
        """Whether the gate refused the call, or the gateway itself refused an odd call.

        Any other status, also 404, is a hole: a server behind the gate has answered.
        """
        return (self.status in {401, 403} and bool(self.reason)) or (self.call.is_odd and self.status == BAD_REQUEST)

    @property
    def result(self) -> str:
        return (
            "refused" if self.is_refused else "no answer" if self.reason == NO_ANSWER or not self.status else "HOLE"
        )


@app.command("probe")
def probe_gateway(
    url: Annotated[str, typer.Argument(help="the gateway's address, such as https://support.mail.example")],
    target: Annotated[
        str,
        typer.Option(
            help="a path that the catalogue maps, of a resource that does not exist, such as /mailboxes/nobody"
        ),
    ],
    *,
    host: Annotated[str, typer.Option(help="the host that calls are for, if not the address's own")] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(help="a file with a token of a probe engineer who has no window", show_default=False),
    ] = None,
    record: Annotated[
        list[str] | None,
        typer.Option(
            help="a tenant at which the result is recorded, as an operator; again for more", show_default=False
        ),
    ] = None,
    service: Annotated[str, typer.Option(help="the service behind the gateway, for --record")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Call a deployed gateway in ways that must all be refused.

    Each call is a GET without a body, for a resource that should not exist; no answer's body is read. With
    --token-file, calls are also made with the engineer's token. The call with nothing but that token must be refused
    as `no_window`: otherwise the token proves nothing, and no result is recorded. The exit code is 1 in that case, or
    if any call is not refused.
    """
    gateway = _gateway(url, host)
    if bool(record) != bool(service):
        raise stop("--record and --service belong together: name the tenants, and the service behind the gateway")
    if not target.startswith("/") or set(target) & set(" ?#") or target == "/" or not target.isascii():
        raise stop("write a path that the catalogue maps, without a query, such as /mailboxes/nobody")
    answers = []
    for probe in probe_calls(target, _token(token_file)):
        answers.append(_asked(gateway, probe))
        if output is OutputFormat.TABLE and len(answers) % 10 == 0:
            warn(f"{len(answers)} calls made ...")
    holes = [answer for answer in answers if not answer.is_refused]
    # Calls that were not refused come last, directly above the sentence that counts them.
    rows = map(_row, sorted(answers, key=lambda one: not one.is_refused))
    calls = Listing.of(("Call", "Status", "Reason", "Result"), rows)
    show(output, _summary(url, answers, holes), calls, f"{len(answers) - len(holes)} of {len(answers)} refused.")
    proves_nothing = _proves_nothing(answers)
    for tenant in record or () if not proves_nothing else ():
        body = {"service": service, "gateway": url, "refused": len(answers) - len(holes), "let_through": len(holes)}
        call("POST", at("tenants", tenant, "gate-probes"), body=body)
        warn(f"Recorded in the log of {tenant}.")
    if proves_nothing:
        warn(f"{proves_nothing}{' Nothing was recorded.' if record else ''}")
    if holes:
        raise stop(f"{len(holes)} calls were not refused, the first: {holes[0].call.name}")
    if proves_nothing:
        raise stop("the calls with the token were refused for another reason than that there is no window")


def _proves_nothing(answers: Sequence[ProbeAnswer]) -> str:
    plain = next((answer for answer in answers if answer.call.is_plain), None)
    if plain is None or plain.reason == NO_WINDOW:
        return ""
    said = f"refused as {plain.reason}" if plain.is_refused else f"answered with {plain.status or 'nothing'}"
    return (
        f"The token proves nothing: the plain call with it must be refused as {NO_WINDOW}, and was {said}. Show a "
        "good token of a mapped engineer without a window, and a path that the catalogue maps."
    )


def _summary(url: str, answers: Sequence[ProbeAnswer], holes: Sequence[ProbeAnswer]) -> dict[str, object]:
    found = [{"call": hole.call.name, "status": hole.status, "reason": hole.reason} for hole in holes]
    return {"url": url, "refused": len(answers) - len(holes), "calls": len(answers), "holes": found}


def _row(answer: ProbeAnswer) -> tuple[object, ...]:
    result = Text(answer.result, COLOURS[answer.result])
    return answer.call.name, answer.status or None, answer.reason, result


def _gateway(url: str, host: str) -> GatewayUrl:
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS[parts.scheme]
    except (KeyError, ValueError):
        raise stop("write the gateway's address as https://name or http://name:port") from None
    if not parts.hostname or parts.path not in {"", "/"} or parts.query or parts.username:
        raise stop("write the gateway's address alone: https://name, without a path or a password")
    return GatewayUrl(parts.scheme == "https", parts.hostname, port, host or parts.netloc)


def _token(file: Path | None) -> str | None:
    if file is None:
        warn("Without --token-file no call carries an engineer's token: half of the calls are not made.")
        return None
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise stop(f"{file} cannot be read: write the token alone into it") from None
    if not token or not token.isascii() or len(token.split()) != 1:
        raise stop(f"{file} holds no token: write the token alone into it")
    return token


def _asked(gateway: GatewayUrl, probe: ProbeCall) -> ProbeAnswer:
    headers = [("Host", gateway.host), ("User-Agent", "lockbox-probe"), *probe.headers, ("Connection", "close")]
    head = [f"GET {probe.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    try:
        with socket.create_connection((gateway.address, gateway.port), timeout=SECONDS) as plain:
            if not gateway.is_secure:
                return _answer(plain, probe, head)
            with ssl.create_default_context().wrap_socket(plain, server_hostname=gateway.address) as secure:
                return _answer(secure, probe, head)
    except ssl.SSLCertVerificationError as unverified:
        raise stop(f"the certificate of {gateway.address} is not accepted: {unverified.verify_message}") from None
    except (OSError, HTTPException):
        return ProbeAnswer(probe, 0, "")


def _answer(connection: socket.socket, probe: ProbeCall, head: Sequence[str]) -> ProbeAnswer:
    connection.sendall(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
    with HTTPResponse(connection) as response:
        response.begin()
        return ProbeAnswer(probe, response.status, response.headers.get(REASON, ""))
