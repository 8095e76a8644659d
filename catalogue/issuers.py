"""Settings of OpenID Connect identity providers."""

import re
from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

MOST_PARTIES = 50
VISIBLE = re.compile(r"[!-~]{1,1000}")

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"
]
"""Signatures by a private key (RFC 7518 section 3.1, RFC 8037, RFC 9864): never `none`, never a shared secret."""


Claim = Annotated[str, Field(min_length=1, max_length=255)]
Party = Annotated[str, Field(min_length=1, max_length=255)]


class IdentityProvider(BaseModel):
    """The `iss` of the provider's tokens equals `issuer` exactly.

    Bearer tokens are for `audience`; ID tokens of browsers are for `client_id`. The client that a token names must be
    `client_id`, `audience` or, for bearer tokens, one of `authorized_parties`. A token that names no client must have
    `client_id` (else `audience`) as its only audience. `tenant` is the slug of the only tenant that the provider
    serves, or None for the vendor; no claim overrides it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    issuer: str
    audience: str = Field(min_length=1, max_length=255)
    client_id: str | None = Field(default=None, min_length=1, max_length=255)
    client_secret: SecretStr | None = Field(default=None, min_length=1)
    authorized_parties: tuple[Party, ...] = Field(default=(), max_length=MOST_PARTIES)
    jwks_url: str | None = None
    tenant: str | None = Field(default=None, max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "ES256", "EdDSA", "Ed25519"), min_length=1)
    title: str = Field(default="single sign-on", min_length=1, max_length=100)
    employing_entity_claim: Claim | None = None
    office_country_claim: Claim | None = None
    physical_country_claim: Claim | None = None

    @field_validator("issuer")
    @classmethod
    def _names_an_issuer(cls, url: str) -> str:
        if check_url(url).query:
            raise ValueError("leave out the query: an issuer has none")
        return url

    @field_validator("jwks_url")
    @classmethod
    def _holds_keys(cls, url: str | None) -> str | None:
        if url is not None:
            check_url(url)
        return url

    @model_validator(mode="after")
    def _has_a_client_for_its_secret(self) -> Self:
        if self.client_secret is not None and self.client_id is None:
            raise ValueError("client_secret needs client_id beside it")
        return self

    @model_validator(mode="after")
    def _is_the_vendors_directory(self) -> Self:
        if self.tenant is not None and any(self.directory_claims.values()):
            raise ValueError("leave out the claims of the directory: only the vendor's own provider says them")
        return self

    @property
    def directory_claims(self) -> dict[str, str | None]:
        return {
            "employing_entity": self.employing_entity_claim,
            "office_country": self.office_country_claim,
            "physical_country": self.physical_country_claim,
        }

    @property
    def is_plain_http(self) -> bool:
        return any(url.startswith("http:") for url in self._urls())

    @property
    def is_on_loopback(self) -> bool:
        """Loopback addresses may be called only for such a provider."""
        return any(_is_loopback(urlsplit(url).hostname or "") for url in self._urls())

    def _urls(self) -> tuple[str, ...]:
        return (self.issuer,) if self.jwks_url is None else (self.issuer, self.jwks_url)


def distinct(issuers: tuple[IdentityProvider, ...]) -> tuple[IdentityProvider, ...]:
    """Refuse an issuer that is listed twice, because its tokens must lead to only one tenant."""
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise ValueError("name each issuer once: its tokens can lead to one tenant only")
    return issuers


IssuerList = Annotated[tuple[IdentityProvider, ...], AfterValidator(distinct)]


def check_url(url: str) -> SplitResult:
    if not VISIBLE.fullmatch(url):
        raise ValueError("use visible ASCII characters only, at most 1000 of them")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("use a URL such as https://sso.example.com, with a port from 1 to 65535") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname or port == 0:
        raise ValueError("use a URL such as https://sso.example.com")
    if not url.startswith(("https:", "http:")):
        raise ValueError("write https in small letters: issuers are compared to the letter")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError("use https; plain http is for an issuer on this machine, in development")
    if "@" in parts.netloc:
        raise ValueError("leave out the user and the password: a client's secret has a field of its own")
    if "#" in url:
        raise ValueError("leave out the fragment, from # on")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
