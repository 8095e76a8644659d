"""Read all settings of a process from the environment once, and refuse unsafe values."""

from ipaddress import ip_address
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import SettingsError

from catalogue.unsafe_settings import UnsafeSettings
from config.outbound import OutboundProxy, OutboundRoute
from config.server_urls import has_password
from config.setting_fields import DEVELOPMENT_KEY, SettingFields

SECRETS_FOLDER = Path("/run/secrets")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Settings(SettingFields):
    @model_validator(mode="after")
    def _safe_in_production(self) -> Self:
        if self.environment == "production":
            found = [line for line, unsafe in self._dangers() if unsafe]
            if found:
                raise ValueError("unsafe in production: " + "; ".join(found))
        return self

    @model_validator(mode="after")
    def _plays_here_alone(self) -> Self:
        if self.playground and self.environment != "production":
            if not self.embedded:
                raise ValueError("LOCKBOX_PLAYGROUND: only on embedded servers; `make run` sets it")
            if urlsplit(self.public_url).hostname not in LOOPBACK:
                raise ValueError(
                    "LOCKBOX_PLAYGROUND: only under an address of this machine, such as http://localhost:8000"
                )
        return self

    def _dangers(self) -> list[tuple[str, object]]:
        redis = urlsplit(self.redis_url.get_secret_value()) if self.redis_url else None
        smtp = urlsplit(self.smtp_url.get_secret_value()) if self.smtp_url else None
        return [
            ("LOCKBOX_EMBEDDED: embedded servers are for development", self.embedded),
            ("LOCKBOX_PLAYGROUND: unset it; it lets anybody in as anybody", self.playground),
            (
                "LOCKBOX_SECRET_KEYS: make your own key",
                DEVELOPMENT_KEY in self.secret_keys and (self.database_url is not None or self.smtp_url is not None),
            ),
            (
                "LOCKBOX_APPROVAL_PUBLIC_KEYS: name them; see `lockbox operate public-keys --of-approvals`",
                self.connectors_database_url is not None and not self.approval_public_keys,
            ),
            ("LOCKBOX_FAILPOINT: unset it; it ends the process on purpose, to test", self.failpoint),
            (
                "LOCKBOX_APPROVAL_KEY_FILES: the API signs approvals by a key; make one by `lockbox operate new-key`",
                self.database_url is not None and not self.approval_key_files,
            ),
            (
                "LOCKBOX_CREDENTIAL_KEY_FILES: sign-ins need a key; make it by `lockbox operate new-credential-key`",
                self.database_url is not None and not self.credential_key_files,
            ),
            (
                "LOCKBOX_MARK_KEY_FILES: rows are checked by a key; make it by `lockbox operate mark-key`",
                self.connectors_database_url is not None and not self.mark_key_files,
            ),
            (
                "LOCKBOX_CREDENTIAL_KEY_FILES: the connector worker has the key of marks instead; unset it here",
                self.connectors_database_url is not None and self.database_url is None and self.credential_key_files,
            ),
            (
                "LOCKBOX_CODE_KEY_FILES: mailed codes are made by a key; make it by `lockbox operate code-key`",
                self.smtp_url is not None and not self.code_key_files,
            ),
            (
                "LOCKBOX_AUDIT_PUBLIC_KEYS: checkpoints are checked by them; see `lockbox operate public-keys`",
                (
                    self.database_url is not None
                    or self.smtp_url is not None
                    or self.connectors_database_url is not None
                )
                and not self.audit_public_keys,
            ),
            (
                "LOCKBOX_CHECKPOINT_FOLDER: without it nobody sees that the database was rolled back",
                (self._judges or self.audit_key_files) and self.checkpoint_folder is None,
            ),
            (
                'LOCKBOX_TRUSTED_PROXIES: name the proxies before the API, such as ["10.0.0.7/32"], or none',
                self.database_url is not None and "trusted_proxies" not in self.model_fields_set,
            ),
            (
                "LOCKBOX_CATALOGUE: name the file of your services and plans; see docs/catalogue.md",
                (self._judges or self.notifications_database_url is not None)
                and "catalogue" not in self.model_fields_set,
            ),
            (
                "LOCKBOX_CASE_ADAPTER_SECRET: it is for the notifications worker alone; unset it here",
                self.case_adapter_secret is not None and self.notifications_database_url is None,
            ),
            (
                "LOCKBOX_CASE_ADAPTER_SECRET: the catalogue names an adapter, whose calls it signs",
                self.case_adapter_secret is None
                and self.notifications_database_url is not None
                and any(system.adapter for system in self.catalogue.case_systems.values()),
            ),
            ("LOCKBOX_CATALOGUE: issuers and adapters must be https", self.catalogue.is_plain_http),
            ("LOCKBOX_PUBLIC_URL: must be https", not self.is_https),
            ("LOCKBOX_ISSUERS: must be https", any(issuer.is_plain_http for issuer in self.issuers)),
            ("LOCKBOX_WEBHOOKS_ALLOW_HTTP: must be off", self.webhooks_allow_http),
            ("LOCKBOX_REDIS_URL: needs a password", redis is not None and not redis.password),
            (
                "LOCKBOX_SMTP_URL: use smtps:// or smtp+starttls://",
                smtp is not None and smtp.scheme == "smtp" and smtp.hostname not in LOOPBACK,
            ),
            (
                "LOCKBOX_FLOWER_PASSWORD: at least 12 characters",
                self.flower_password is not None and len(self.flower_password.get_secret_value()) < 12,  # noqa: PLR2004
            ),
            (
                "LOCKBOX_METRICS_TOKEN: at least 24 characters",
                self.metrics_token is not None and len(self.metrics_token.get_secret_value()) < 24,  # noqa: PLR2004
            ),
            *(
                (
                    f"{name}: needs a password",
                    url is not None and not has_password(url.get_secret_value()),
                )
                for name, url in (
                    ("LOCKBOX_DATABASE_URL", self.database_url),
                    ("LOCKBOX_WORKER_DATABASE_URL", self.worker_database_url),
                    ("LOCKBOX_NOTIFICATIONS_DATABASE_URL", self.notifications_database_url),
                    ("LOCKBOX_CONNECTORS_DATABASE_URL", self.connectors_database_url),
                    ("LOCKBOX_DATABASE_DIRECT_URL", self.database_direct_url),
                )
            ),
        ]

    @property
    def _judges(self) -> bool:
        return self.database_url is not None or self.connectors_database_url is not None

    @property
    def is_https(self) -> bool:
        return urlsplit(self.public_url).scheme == "https"

    @property
    def origin(self) -> str:
        """The origin of our pages in the form that browsers send (RFC 6454): lower case, no default port."""
        parts = urlsplit(self.public_url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        usual = {"https": 443, "http": 80}[parts.scheme]
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in {None, usual} else "")

    @property
    def outbound(self) -> OutboundRoute:
        proxy = OutboundProxy.of(self.outbound_proxy.get_secret_value()) if self.outbound_proxy else None
        return OutboundRoute(self.private_networks, proxy)

    @property
    def log_name(self) -> str:
        return self.audit_name or urlsplit(self.public_url).hostname or "lockbox"

    @property
    def passkey_domain(self) -> str | None:
        """The host that passkeys are bound to; None for an IP address, which browsers refuse."""
        host = urlsplit(self.public_url).hostname or ""
        try:
            ip_address(host)
        except ValueError:
            return host
        return None

    def require(self, field: str) -> str:
        """Return the text of a setting. Raises UnsafeSettings if it is not set."""
        value = getattr(self, field)
        if value is None:
            raise UnsafeSettings(f"LOCKBOX_{field.upper()} is not set; this process needs it to start")
        return str(value.get_secret_value()) if isinstance(value, SecretStr) else str(value)


def load() -> Settings:
    """Read the settings from the environment and `/run/secrets`.

    Raises:
        UnsafeSettings: a value is malformed, or unsafe in production; no value is quoted.
    """
    try:
        return Settings(_secrets_dir=SECRETS_FOLDER if SECRETS_FOLDER.is_dir() else None)
    except SettingsError as error:
        # The error's text names the field; the exceptions that caused it contain the value.
        field = str(error).split('"')[1]
        raise UnsafeSettings(f"LOCKBOX_{field.upper()}: write it as JSON") from None
    except ValidationError as error:
        lines = [
            _named(item["loc"], item["msg"])
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        raise UnsafeSettings("\n".join(lines)) from None


def _named(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    names_itself = not location or location == ("catalogue",)
    return message if names_itself else f"LOCKBOX_{'.'.join(map(str, location)).upper()}: {message}"
