"""Define all settings, with types, bounds and defaults; docs/reference/settings.md is made from this module."""

import json
from base64 import b64decode
from collections.abc import Callable
from email.policy import SMTP
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cryptography.fernet import Fernet
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from catalogue.issuers import IssuerList
from catalogue.load import CatalogueUnreadable, read_catalogue, sample_catalogue
from catalogue.service_catalogue import Catalogue
from config.brand import check_colour, check_logo
from config.outbound import Network, OutboundProxy, check_private
from config.public_keys import ApprovalKey, PublicKey
from config.server_urls import (
    check_case_url,
    check_collector,
    check_origin,
    check_page,
    check_redis_url,
    check_smtp_url,
    postgres_url,
)

Text = TypeVar("Text", str | None, SecretStr | None)
DEVELOPMENT_KEY = SecretStr("aW5zZWN1cmUtZGV2ZWxvcG1lbnQta2V5LTMyLWJ5dGU=")


def _from_file(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return read_catalogue(Path(value))
    except CatalogueUnreadable as unreadable:
        raise ValueError(f"LOCKBOX_CATALOGUE: {unreadable}") from None


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        networks = [] if value.strip().lower() == "none" else json.loads(value)
    except ValueError:
        networks = None
    # Without this check, a number would be read as an IP address.
    if not isinstance(networks, list) or not all(isinstance(network, str) for network in networks):
        raise ValueError('write it as JSON, such as ["10.0.0.7/32"], or none')
    return networks


def _check_proxies(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("name the networks of your proxies: of these, everybody could claim any address")
    return networks


def _postgres(value: SecretStr | None) -> SecretStr | None:
    return SecretStr(postgres_url(value.get_secret_value())) if value else None


def _if_set(check: Callable[[str], object]) -> AfterValidator:
    def checked(value: Text) -> Text:
        if value:
            check(value.get_secret_value() if isinstance(value, SecretStr) else value)
        return value

    return AfterValidator(checked)


def _check_mailbox(value: str) -> str:
    # The email package fails in many ways on malformed input.
    try:
        _, header = SMTP.header_store_parse("From", value)
        mailboxes = header.addresses
    except Exception:  # noqa: BLE001
        mailboxes = ()
    if len(mailboxes) != 1 or not mailboxes[0].username or not mailboxes[0].domain:
        raise ValueError("use one address, such as Lockbox <lockbox@vendor.example>")
    return value


def _check_webhook_secret(value: SecretStr) -> SecretStr:
    kind, _, encoded = value.get_secret_value().partition("_")
    size = len(b64decode(encoded, validate=True))
    if kind != "whsec" or not 24 <= size <= 64:  # noqa: PLR2004 - as Standard Webhooks says
        raise ValueError("use `whsec_` and 24 to 64 random bytes in base64: `openssl rand -base64 32`")
    return value


def _check_fernet_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not keys:
        raise ValueError("name at least one key, the newest first")
    for key in keys:
        Fernet(key.get_secret_value())
    return keys


def _check_sendable(value: str) -> None:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("use letters, digits and signs without spaces, such as `openssl rand -hex 32` prints")


def _check_flower_password(value: str) -> None:
    if "," in value:
        raise ValueError("leave out commas: Flower takes them for the end of the password")


PostgresUrl = Annotated[SecretStr | None, AfterValidator(_postgres)]
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)]


class SettingFields(BaseSettings):
    """Each setting is `LOCKBOX_` and the field's name, or a file of that name in `/run/secrets`."""

    model_config = SettingsConfigDict(env_prefix="LOCKBOX_", frozen=True, extra="ignore", hide_input_in_errors=True)

    environment: Literal["development", "test", "production"] = "development"
    """What kind of installation it is. `production` refuses unsafe values; `test` and `development` allow them."""
    embedded: bool = False
    """Whether the servers are embedded ones that `make run` starts. Refused in production."""

    database_url: PostgresUrl = None
    """Postgres with the API's database login, for example `postgresql://lockbox_api:...@db:5432/lockbox`."""
    worker_database_url: PostgresUrl = None
    """Postgres with the core worker's database login."""
    notifications_database_url: PostgresUrl = None
    """Postgres with the notifications worker's database login."""
    connectors_database_url: PostgresUrl = None
    """Postgres with the connector worker's database login."""
    owner_database_url: PostgresUrl = None
    """Postgres with the owner's database login: for migrations and `lockbox operate` only, never for a server."""
    database_direct_url: PostgresUrl = None
    """Postgres itself with the core worker's database login, if the other URLs name a pooler."""
    redis_url: Annotated[SecretStr | None, _if_set(check_redis_url)] = None
    """Redis or Valkey, for example `rediss://:...@redis:6379/0`. Production needs a password."""

    smtp_url: Annotated[SecretStr | None, _if_set(check_smtp_url)] = None
    """The mail relay: `smtps://`, `smtp+starttls://`, or `smtp://` on this machine."""
    smtp_ca_file: Path | None = None
    """The certificates that verify the relay, if they are not the system's."""
    mail_from: Annotated[str, AfterValidator(_check_mailbox)] = "Lockbox <lockbox@localhost>"
    """The sender of all mails."""

    vendor_name: str = Field(default="", max_length=60, pattern=r"^[^\x00-\x1f\x7f]*$")
    """What customers call the vendor, for the pages."""
    vendor_colour: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$"), AfterValidator(check_colour)] | None = None
    """The vendor's colour for the pages, `#rrggbb`: dark enough for text on white."""
    vendor_logo: Annotated[Path, AfterValidator(check_logo)] | None = None
    """The vendor's logo for the pages: an SVG or PNG file of at most 20 kB."""
    case_url: Annotated[str, AfterValidator(check_case_url)] | None = None
    """The pages of cases, such as `https://desk.example/cases/{case}`: a request's case becomes a link."""

    case_adapter_secret: Annotated[SecretStr, AfterValidator(_check_webhook_secret)] | None = None
    """The secret (`whsec_...`) of calls to ticket systems' adapters and of answers; for the notifications worker."""

    public_url: Annotated[str, AfterValidator(check_origin)] = "http://127.0.0.1:8000"
    """The address under which people reach the pages. Production needs https."""
    api_processes: int = Field(default=1, ge=1, le=64)
    """How many API processes share the port: about one for each core."""
    trusted_proxies: Annotated[Networks, AfterValidator(_check_proxies)] = ()
    """The networks of the API's proxies, as a JSON list such as `["10.0.0.7/32"]`, or `none`. Production needs it."""
    private_networks: Annotated[Networks, AfterValidator(check_private)] = ()
    """Private networks in which issuers, adapters, connectors and the vendor's webhooks may be, as a JSON list."""
    outbound_proxy: Annotated[SecretStr | None, _if_set(OutboundProxy.of)] = None
    """The proxy by which public addresses are called, such as `http://proxy.example:3128`; it gets no host names."""
    webhooks_allow_http: bool = False
    """Whether webhooks may use http, to this machine alone. Refused in production."""
    secret_keys: Annotated[tuple[SecretStr, ...], AfterValidator(_check_fernet_keys)] = (DEVELOPMENT_KEY,)
    """Fernet keys that encrypt secrets at rest, as a JSON list, the newest first. Production needs its own."""
    approval_key_files: tuple[Path, ...] = ()
    """Files of the keys that sign approvals, as a JSON list; the first one signs. For the API only."""
    credential_key_files: tuple[Path, ...] = ()
    """Files of the keys behind sessions, tokens and roles, as a JSON list, the newest first."""
    code_key_files: tuple[Path, ...] = ()
    """Files of the keys that make mailed codes, as a JSON list, the newest first. For the notifications worker."""
    mark_key_files: tuple[Path, ...] = ()
    """Files of the keys that check marks of rows, as a JSON list, the newest first. For the connector worker."""
    connector_targets: Path | None = None
    """The folder with a file of secrets for each target. For the connector worker only."""

    issuers: IssuerList = ()
    """The identity providers with which people sign in, as a JSON list (docs/how-to/sign-in.md)."""
    mail_sign_in: bool = True
    """Whether people may sign in by a code that is mailed to them."""
    session_seconds: int = Field(default=12 * 3600, ge=60, le=7 * 24 * 3600)
    """How long a browser stays signed in at most."""
    session_idle_seconds: int = Field(default=30 * 60, ge=60, le=24 * 3600)
    """How long a browser stays signed in without being used."""
    sign_ins_per_account_and_network: int = Field(default=10, ge=1, le=1000)
    """Attempts to sign in to one account from one network in ten minutes."""
    sign_ins_per_account: int = Field(default=30, ge=1, le=1000)
    """Attempts to sign in to one account from anywhere in ten minutes."""
    sign_ins_per_address: int = Field(default=300, ge=1, le=100_000)
    """Attempts to sign in from one network to all accounts in ten minutes."""

    token_days: int = Field(default=90, ge=1, le=365)
    """How many days an API token lasts unless its owner says otherwise."""
    most_token_days: int = Field(default=365, ge=1, le=365)
    """How many days an API token lasts at most."""
    token_overlap_hours: int = Field(default=24, ge=0, le=168)
    """How many hours a token still works after it was rotated."""

    flower_user: str | None = Field(default=None, pattern=r"^[^:,]+$")
    """The user name for Flower."""
    flower_password: Annotated[SecretStr | None, _if_set(_check_flower_password)] = None
    """The password for Flower. Production needs at least 12 characters."""
    flower_address: str = "127.0.0.1"
    """The address on which Flower listens."""
    flower_port: int = Field(default=5555, ge=1, le=65535)
    """The port on which Flower listens."""
    flower_url: Annotated[str | None, _if_set(check_page)] = None
    """Where operators open Flower, for a link on the page *Operations*."""
    flower_unauthenticated_api: str | None = Field(default=None, validation_alias="FLOWER_UNAUTHENTICATED_API")
    """Flower's own switch that opens its API to everybody; if it is set, Lockbox's Flower does not start."""

    audit_name: str | None = Field(default=None, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9./:-]*$")
    """The name under which checkpoints are signed; by default the host of `LOCKBOX_PUBLIC_URL`. Never change it."""
    audit_key_files: tuple[Path, ...] = ()
    """Files of the keys that sign the audit log's checkpoints, as a JSON list. For the core worker only."""
    audit_public_keys: tuple[PublicKey, ...] = ()
    """Public keys of checkpoints, as a JSON list (`lockbox operate public-keys`)."""
    approval_public_keys: tuple[ApprovalKey, ...] = ()
    """Public keys of approvals, as a JSON list (`lockbox operate public-keys --of-approvals`)."""
    checkpoint_folder: Path | None = None
    """A folder outside of the database's back-ups, to which checkpoints are shipped."""
    retention_days: int = Field(default=0, ge=0, le=36_500)
    """For how many days audit logs are kept at most (`lockbox operate retain`); 0 keeps them indefinitely."""
    digest_hours: int = Field(default=24, ge=0, le=24 * 31)
    """How often customers are mailed the newest checkpoint, in hours; 0 disables it."""

    live_streams: int = Field(default=200, ge=0, le=10_000)
    """How many pages one API process keeps up to date at once."""
    connections_per_address: int = Field(default=100, ge=1, le=100_000)
    """How many connections one client address may hold; a trusted proxy is exempt."""
    gate_compare_every: int = Field(default=1000, ge=1, le=1_000_000)
    """Of this many "allow" answers from memory, the gate compares one with Postgres."""
    gate_streams: int = Field(default=200, ge=0, le=10_000)
    """How many streams of guards one API process serves."""
    gate_streams_per_token: int = Field(default=100, ge=0, le=10_000)
    """How many of these streams may share one token."""

    metrics_token: Annotated[SecretStr | None, _if_set(_check_sendable)] = None
    """The bearer token for `/metrics` from other machines. Production needs at least 24 characters."""

    playground: Path | None = None
    """The file of demo users that `make run` writes. Refused in production."""

    shutdown_seconds: float = Field(default=10, gt=0, le=300)
    """How long a worker may take to finish its tasks when it is stopped."""

    log_format: Literal["json", "console"] = "json"
    """How logs are written."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level at which logs are written."""
    otlp_endpoint: Annotated[str | None, _if_set(check_collector)] = None
    """The collector of OpenTelemetry traces, by OTLP/HTTP: `http://collector:4318`. Needs the extra `tracing`."""
    otlp_share: float = Field(default=1.0, ge=0, le=1)
    """The share of traces begun here that is sent; for a trace that a caller began, the caller decides."""

    submissions_per_person: int = Field(default=30, ge=1, le=1_000_000)
    """How many requests one person may submit in a minute."""
    submissions_per_tenant: int = Field(default=120, ge=1, le=1_000_000)
    """How many requests may be submitted to one tenant in a minute."""

    invitations_a_day: int = Field(default=30, ge=1, le=100_000)
    """How many people a tenant, or the vendor, may invite in 24 hours."""

    deliveries_kept_days: int = Field(default=90, ge=2, le=3650)
    """For how many days attempts to deliver notifications are kept."""

    failpoint: str | None = Field(default=None, pattern=r"^[a-z_]+\.[a-z_]+(:[1-9][0-9]{0,5})?$")
    """Ends the process on purpose at a named place, for tests. Refused in production."""

    catalogue: Annotated[Catalogue, NoDecode, BeforeValidator(_from_file)] = Field(default_factory=sample_catalogue)
    """The file of services, actions and plans (docs/catalogue.md); the sample by default. Production needs it."""
