"""A real issuer on loopback, with rotating keys, people who sign in, and every misbehaviour that a test requests."""

import base64
import hashlib
import hmac
import json
import secrets
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, generate_key

from catalogue.issuers import IdentityProvider
from harness.webhook_receiver import ScriptedAnswer

NOON = datetime(2026, 12, 31, 12, tzinfo=UTC)
AT = int(NOON.timestamp())
CLIENT_ID = "lockbox:web"
CLIENT_SECRET = "a secret with: spaces & signs"
AUDIENCE = "https://lockbox.example/api"
CLIENT_CLAIMS = ("azp", "client_id", "cid", "appid")
"""The claims by which providers name a token's client: written out, so that no test asks the code for them."""
REDIRECT_URI = "https://lockbox.example/signed-in"
DISCOVERY = "/.well-known/openid-configuration"

BROKEN = ScriptedAnswer(status=500, body=b'{"secret": "stack trace"}')
REDIRECT = ScriptedAnswer(status=302, headers={"Location": "/jwks"})
HUGE = ScriptedAnswer(padding=300_000)
HELD = ScriptedAnswer(is_held=True)
ZIPPED = ScriptedAnswer(headers={"Content-Encoding": "gzip"})
HTML = ScriptedAnswer(headers={"Content-Type": "text/html"})
NOT_JSON = ScriptedAnswer(body=b"[" * 100_000)
NOT_AN_OBJECT = ScriptedAnswer(body=b'["keys"]')
DRIP = ScriptedAnswer(headers={"Content-Length": "100000"}, drops=b" ")
DRIPPING_HEADERS = ScriptedAnswer(status=0, drops=b"HTTP/1.0 200 OK\r\nX-Slow: " + b"a" * 1000)


@cache
def rsa_key(number: int = 0) -> RSAKey:
    """Return one of a few RSA keys that all tests share, because making a key takes long."""
    return generate_key("RSA", 2048, {"kid": f"rsa-{number}", "use": "sig"})


@cache
def ec_key(number: int = 0) -> ECKey:
    return generate_key("EC", "P-256", {"kid": f"ec-{number}", "use": "sig", "alg": "ES256"})


@cache
def ed_key() -> OKPKey:
    return generate_key("OKP", "Ed25519", {"kid": "ed-0", "use": "sig"})


@dataclass
class LocalIssuer:
    """An issuer: what it publishes, whom it signs in, how it misbehaves, and the headers of calls that it `heard`."""

    url: str
    keys: list[Key] = field(default_factory=lambda: [ec_key()])
    subject: str = "anne"
    heard: list[Message] = field(default_factory=list)
    fetched: Counter[str] = field(default_factory=Counter)
    troubles: dict[str, ScriptedAnswer] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    id_token: dict[str, Any] = field(default_factory=dict)
    strange_keys: list[Any] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def configured(self, **changes: Any) -> IdentityProvider:
        facts = {"issuer": self.url, "audience": AUDIENCE, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        return IdentityProvider.model_validate(facts | changes)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return valid claims of an access token, with changes; None omits a claim."""
        claims = {"iss": self.url, "sub": self.subject, "aud": AUDIENCE, "iat": AT, "exp": AT + 300} | changes
        if claims["aud"] == AUDIENCE:
            claims = {"azp": AUDIENCE} | claims
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, key: Key | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return a token signed by the newest key or another; the header can be changed, and None omits a part."""
        key = key or self.keys[0]
        algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519"}[key.key_type]
        named = {"alg": algorithm, "kid": key.kid, "typ": "JWT"} | (header or {})
        named = {name: value for name, value in named.items() if value is not None}
        # Not by jwt.encode, which is too polite for what some tests put into a header.
        signed = unsigned(named, self.claims(**changes))
        signature = jws.JWSRegistry.algorithms[str(named["alg"])].sign(signed.encode(), key)
        return f"{signed}.{encoded(signature)}"

    def unsigned_token(self, algorithm: str = "none") -> str:
        """Return a token without a signature (RFC 7518 section 3.6)."""
        return unsigned({"alg": algorithm, "kid": self.keys[0].kid}, self.claims()) + "."

    def confused_token(self, key: RSAKey | ECKey) -> str:
        """Return a token signed by HMAC with a public key as the secret (RFC 8725 section 2.1)."""
        signed = unsigned({"alg": "HS256", "kid": key.kid}, self.claims())
        return f"{signed}.{encoded(hmac.digest(key.as_pem(private=False), signed.encode(), 'sha256'))}"

    def documents(self) -> dict[str, dict[str, Any]]:
        about = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "authorization_endpoint": f"{self.url}/authorize?theme=dark",
            "token_endpoint": f"{self.url}/token",
            "authorization_response_iss_parameter_supported": True,
        }
        keys = [*self.strange_keys, *(key.as_dict(private=False) for key in self.keys)]
        return {DISCOVERY: about | self.published, "/jwks": {"keys": keys}}

    def authorize(self, asked: dict[str, str]) -> str:
        """Sign the subject in at once, and return the URL to which the browser is sent back."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        back = {"code": code, "state": asked["state"], "iss": self.url}
        return f"{asked['redirect_uri']}?{urlencode(back)}"

    def exchange(self, form: dict[str, str], authorization: str | None) -> dict[str, Any] | None:
        """Return the tokens for a code, once; None if anything differs from the authorization request."""
        asked = self.codes.pop(form.get("code", ""), None)
        secret = base64.b64decode((authorization or "").removeprefix("Basic ")).decode()
        client = (
            [unquote_plus(part) for part in secret.split(":")] if authorization else [form.get("client_id"), None]
        )
        challenge = encoded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        good = (
            asked is not None
            and form.get("grant_type") == "authorization_code"
            and client in ([CLIENT_ID, CLIENT_SECRET], ["public", None])
            and asked["client_id"] == client[0]
            and asked["redirect_uri"] == form.get("redirect_uri")
            and asked["code_challenge_method"] == "S256"
            and asked["code_challenge"] == challenge
        )
        if asked is None or not good:
            return None
        claims = {"aud": client[0], "nonce": asked["nonce"], "auth_time": AT - 5}
        return {"access_token": "opaque", "token_type": "Bearer", "id_token": self.token(**claims | self.id_token)}


class IssuerHandler(BaseHTTPRequestHandler):
    """The issuer's HTTP interface; it uses HTTP/1.0, so that no connection outlives its answer."""

    issuer: LocalIssuer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.issuer.fetched[parts.path] += 1
        self.issuer.heard.append(self.headers)
        documents = self.issuer.documents()
        if parts.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self._answer(ScriptedAnswer(status=302, headers={"Location": self.issuer.authorize(asked)}), b"")
        elif parts.path in documents:
            self._answer(
                self.issuer.troubles.get(parts.path, ScriptedAnswer()), json.dumps(documents[parts.path]).encode()
            )
        else:
            self._answer(ScriptedAnswer(status=404), b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        tokens = self.issuer.exchange(form, self.headers["authorization"])
        how = self.issuer.troubles.get(self.path, ScriptedAnswer() if tokens else ScriptedAnswer(status=400))
        self._answer(how, json.dumps(tokens or {"error": "invalid_grant"}).encode())

    def _answer(self, how: ScriptedAnswer, truth: bytes) -> None:
        if how.is_held:
            self.issuer.released.wait(60)
        body = (truth if how.body is None else how.body) + b" " * how.padding
        if how.status:
            self.send_response(how.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | how.headers
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        for number in range(1000 if how.drops else 0):
            if self.issuer.stopped.wait(0.01):
                return
            self.wfile.write(how.drops[number % len(how.drops) :][:1])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class IssuerServer(ThreadingHTTPServer):
    """Waits for its threads when it closes, and logs nothing about callers that hang up midway."""

    daemon_threads = False

    def handle_error(self, *_: object) -> None:
        """Log nothing: some tests are about callers that hang up."""


@contextmanager
def local_issuer(*, name: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[LocalIssuer]:
    """Run an issuer on a port of its own until the end of the block; with a context, over TLS."""
    handler = type("OwnHandler", (IssuerHandler,), {})
    server = IssuerServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    issuer = LocalIssuer(f"{'https' if tls else 'http'}://{name}:{server.server_port}")
    handler.issuer = issuer  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002}, name="issuer-server")
    thread.start()
    try:
        yield issuer
    finally:
        issuer.stopped.set()
        issuer.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return the parts of a token that are signed (RFC 7515 section 5.1)."""
    return ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))


def encoded(part: bytes) -> str:
    """Return a part of a token, encoded as base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
