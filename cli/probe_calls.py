"""The harmless calls by which a deployed gateway is probed: each of them must be refused."""

from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class ProbeCall:
    """A GET without a body; `target` is sent as it is written here.

    `is_odd`: a gateway may refuse it as a bad request without asking Lockbox; `is_plain`: only the window is missing.
    """

    name: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    is_odd: bool = False
    is_plain: bool = False


def probe_calls(target: str, token: str | None) -> Iterator[ProbeCall]:
    """Yield the calls, plain ones first; with a token of a probe engineer each is made with it too."""
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
