"""The address of Lockbox, and the token by which it knows this service."""

import os
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import httpx

VARIABLE = "LOCKBOX_GUARD_TOKEN"
CREDENTIAL = "Lockbox-Gateway"
IDLE_SECONDS = 2.0
"""Shorter than Lockbox keeps an idle connection open, so that no request is sent on one that is being closed."""


@dataclass(frozen=True)
class GuardToken:
    """A token with the scope `gate:guard`, read each time from a file or a variable."""

    file: Path | None = None
    variable: str = VARIABLE

    def read(self) -> str:
        """Raises ValueError if there is no token; the message says what to do."""
        try:
            text = self.file.read_text(encoding="ascii") if self.file else os.environ.get(self.variable, "")
        except (OSError, UnicodeError) as error:
            raise ValueError(f"the token's file {self.file} cannot be read: {type(error).__name__}") from None
        token = text.strip()
        if not token.isprintable() or not token:
            raise ValueError(f"put a token with the scope gate:guard into {self.file or self.variable}")
        return token


@dataclass(frozen=True)
class LockboxAddress:
    """The address uses TLS, except on this machine; `ca_file` is for a CA of your own.

    Raises:
        ValueError: the address is not accepted.
    """

    url: str
    ca_file: Path | None = None
    _base: httpx.URL = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            base = httpx.URL(self.url)
        except httpx.InvalidURL:
            base = httpx.URL("")
        if base.scheme != "https" and not (base.scheme == "http" and _is_loopback(base.host)):
            raise ValueError("give the address of Lockbox as https://…; http:// is for this machine alone")
        if base.userinfo or base.query or base.fragment:
            raise ValueError("give the address of Lockbox without a user, query or fragment")
        object.__setattr__(self, "_base", base)

    def client(self, *, connections: int) -> httpx.AsyncClient:
        """The client follows no redirects and reads no settings of the environment."""
        return httpx.AsyncClient(
            base_url=self._base,
            verify=ssl.create_default_context(cafile=self.ca_file) if self._base.scheme == "https" else False,
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=IDLE_SECONDS
            ),
            timeout=None,  # noqa: S113 - callers limit the whole answer; a time-out of httpx begins again with each byte
            trust_env=False,
            follow_redirects=False,
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
