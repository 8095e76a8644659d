"""Settings: what is unsafe is refused with a line that names the variable, and no secret is ever quoted."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from catalogue.unsafe_settings import UnsafeSettings
from config.children import given
from config.setting_fields import DEVELOPMENT_KEY
from config.settings import Settings, load
from devstack.passed_settings import FILES, PASSED, REFUSED, TAKEN, sort_settings
from devstack.stack import commands
from tests.each import each

SECRET = "hunter2-hunter2-hunter2"
KEY = "5gwSJ-ElMIWEDZ496xR9jv9WQR2Le1ymPVl18MewFss="
AUDIT_KEY = "lockbox.local+3d5b522f+AToOnYvnRgNhaBMNmUT/5VS/qMqNj3Qo+9/ORxYwwjl4"
APPROVAL_KEY = "lockbox/approvals+1e2bf31c+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
PRODUCTION = {
    "LOCKBOX_ENVIRONMENT": "production",
    "LOCKBOX_DATABASE_URL": f"postgresql://lockbox_api:{SECRET}@db.example/lockbox",
    "LOCKBOX_WORKER_DATABASE_URL": f"postgresql://lockbox_worker:{SECRET}@db.example/lockbox",
    "LOCKBOX_NOTIFICATIONS_DATABASE_URL": f"postgresql://lockbox_notifications:{SECRET}@db.example/lockbox",
    "LOCKBOX_OWNER_DATABASE_URL": f"postgresql://lockbox_owner:{SECRET}@db.example/lockbox",
    "LOCKBOX_REDIS_URL": f"rediss://:{SECRET}@redis.example/0",
    "LOCKBOX_SMTP_URL": f"smtp+starttls://relay:{SECRET}@mail.example",
    "LOCKBOX_PUBLIC_URL": "https://lockbox.example",
    "LOCKBOX_SECRET_KEYS": f'["{KEY}"]',
    "LOCKBOX_APPROVAL_KEY_FILES": '["/run/secrets/lockbox_approval_key"]',
    "LOCKBOX_CREDENTIAL_KEY_FILES": '["/run/secrets/lockbox_credential_key"]',
    "LOCKBOX_CODE_KEY_FILES": '["/run/secrets/lockbox_code_key"]',
    "LOCKBOX_AUDIT_PUBLIC_KEYS": f'["{AUDIT_KEY}"]',
    "LOCKBOX_CHECKPOINT_FOLDER": "/var/lib/lockbox/checkpoints",
    "LOCKBOX_FLOWER_USER": "ops",
    "LOCKBOX_FLOWER_PASSWORD": SECRET,
    "LOCKBOX_TRUSTED_PROXIES": '["10.0.0.7/32"]',
    "LOCKBOX_CATALOGUE": str(Path(__file__).parents[2] / "deploy" / "catalogue.yaml"),
}
UNSAFE = [
    ("LOCKBOX_EMBEDDED", "true"),
    ("LOCKBOX_FAILPOINT", "clock.after_lock"),
    ("LOCKBOX_SECRET_KEYS", f'["{DEVELOPMENT_KEY.get_secret_value()}"]'),
    ("LOCKBOX_SECRET_KEYS", f'["{KEY}", "{DEVELOPMENT_KEY.get_secret_value()}"]'),
    ("LOCKBOX_SECRET_KEYS", None),
    ("LOCKBOX_TRUSTED_PROXIES", None),
    ("LOCKBOX_CATALOGUE", None),
    ("LOCKBOX_APPROVAL_KEY_FILES", None),
    ("LOCKBOX_APPROVAL_KEY_FILES", "[]"),
    ("LOCKBOX_CREDENTIAL_KEY_FILES", None),
    ("LOCKBOX_CODE_KEY_FILES", None),
    ("LOCKBOX_AUDIT_PUBLIC_KEYS", None),
    ("LOCKBOX_AUDIT_PUBLIC_KEYS", "[]"),
    ("LOCKBOX_CHECKPOINT_FOLDER", None),
    ("LOCKBOX_PUBLIC_URL", "http://lockbox.example"),
    ("LOCKBOX_PUBLIC_URL", None),
    ("LOCKBOX_ISSUERS", '[{"issuer": "http://127.0.0.1:8080", "audience": "lockbox"}]'),
    ("LOCKBOX_ISSUERS", '[{"issuer": "https://a.example", "audience": "x", "jwks_url": "http://localhost/jwks"}]'),
    ("LOCKBOX_WEBHOOKS_ALLOW_HTTP", "true"),
    ("LOCKBOX_REDIS_URL", "redis://redis.example/0"),
    ("LOCKBOX_REDIS_URL", "redis://user@redis.example/0"),
    ("LOCKBOX_SMTP_URL", f"smtp://relay:{SECRET}@mail.example"),
    ("LOCKBOX_FLOWER_PASSWORD", "hunter2"),
    ("LOCKBOX_DATABASE_URL", "postgresql://lockbox_api@db.example/lockbox"),
    ("LOCKBOX_WORKER_DATABASE_URL", "postgresql://lockbox_worker@db.example/lockbox"),
    ("LOCKBOX_NOTIFICATIONS_DATABASE_URL", "postgresql://lockbox_notifications@db.example/lockbox"),
]
CONNECTORS = {
    name: PRODUCTION[name]
    for name in (
        *("LOCKBOX_ENVIRONMENT", "LOCKBOX_REDIS_URL", "LOCKBOX_PUBLIC_URL", "LOCKBOX_AUDIT_PUBLIC_KEYS"),
        *("LOCKBOX_CHECKPOINT_FOLDER", "LOCKBOX_CATALOGUE"),
    )
} | {
    "LOCKBOX_CONNECTORS_DATABASE_URL": f"postgresql://lockbox_connectors:{SECRET}@db.example/lockbox",
    "LOCKBOX_APPROVAL_PUBLIC_KEYS": f'["{APPROVAL_KEY}"]',
    "LOCKBOX_MARK_KEY_FILES": '["/run/secrets/lockbox_mark_key"]',
}
MALFORMED = [
    ("LOCKBOX_ENVIRONMENT", "staging"),
    ("LOCKBOX_AUDIT_PUBLIC_KEYS", f'["{SECRET}"]'),
    ("LOCKBOX_AUDIT_PUBLIC_KEYS", f'["{AUDIT_KEY.replace("lockbox.local", "lockbox.other")}"]'),
    ("LOCKBOX_AUDIT_PUBLIC_KEYS", f'["{AUDIT_KEY[:-4]}"]'),
    ("LOCKBOX_AUDIT_PUBLIC_KEYS", AUDIT_KEY),
    ("LOCKBOX_DATABASE_URL", f"mysql://root:{SECRET}@db.example/lockbox"),
    ("LOCKBOX_DATABASE_URL", SECRET),
    ("LOCKBOX_WORKER_DATABASE_URL", "postgresql://"),
    ("LOCKBOX_OWNER_DATABASE_URL", f"sqlite:///{SECRET}"),
    ("LOCKBOX_REDIS_URL", f"http://:{SECRET}@redis.example"),
    ("LOCKBOX_SMTP_URL", f"http://{SECRET}@mail.example"),
    # A password that is not encoded is read as a host, a port or a database.
    ("LOCKBOX_DATABASE_URL", f"postgresql://lockbox_api:x@{SECRET}@db.example/lockbox"),
    ("LOCKBOX_DATABASE_URL", f"postgresql://db.example:{SECRET}/lockbox"),
    ("LOCKBOX_DATABASE_URL", "postgresql://db.example:0/lockbox"),
    ("LOCKBOX_DATABASE_DIRECT_URL", "postgresql://db.example:70000/lockbox"),
    ("LOCKBOX_REDIS_URL", f"redis://:{SECRET}/x@redis.example:6379/0"),
    ("LOCKBOX_REDIS_URL", f"redis://:{SECRET}#x@redis.example:6379/0"),
    ("LOCKBOX_REDIS_URL", f"redis://redis.example:6379/{SECRET}"),
    ("LOCKBOX_REDIS_URL", "redis://redis.example:0/0"),
    ("LOCKBOX_REDIS_URL", f"redis://:[{SECRET}]@redis.example:6379/0"),
    ("LOCKBOX_SMTP_URL", f"smtps://relay:[{SECRET}]@mail.example"),
    ("LOCKBOX_SMTP_URL", f"smtps://relay:{SECRET}/x@mail.example"),
    ("LOCKBOX_SMTP_URL", "smtps://mail.example:65536"),
    ("LOCKBOX_SECRET_KEYS", f'["{SECRET}"]'),
    ("LOCKBOX_SECRET_KEYS", "[]"),
    ("LOCKBOX_SECRET_KEYS", SECRET),
    ("LOCKBOX_CATALOGUE", "/no/such/catalogue.yaml"),
    ("LOCKBOX_PUBLIC_URL", f"https://user:{SECRET}@lockbox.example"),
    ("LOCKBOX_PUBLIC_URL", "https://lockbox.example/portal"),
    ("LOCKBOX_PUBLIC_URL", "https://lockbox.example?x"),
    ("LOCKBOX_PUBLIC_URL", "https://lockbox.example:0"),
    ("LOCKBOX_PUBLIC_URL", "ftp://lockbox.example"),
    ("LOCKBOX_PUBLIC_URL", "lockbox.example"),
    ("LOCKBOX_ISSUERS", SECRET),
    ("LOCKBOX_ISSUERS", f'[{{"issuer": "https://a.example", "audience": "x", "authorized_parties": "{SECRET}"}}]'),
    ("LOCKBOX_ISSUERS", f'[{{"issuer": "https://a.example", "audience": "{SECRET}", "authorized_parties": [""]}}]'),
    ("LOCKBOX_ISSUERS", f'[{{"issuer": "https://{SECRET}@a.example", "audience": "x"}}]'),
    ("LOCKBOX_ISSUERS", f'[{{"issuer": "https://a.example", "audience": "x", "client_secret": "{SECRET}"}}]'),
    ("LOCKBOX_TRUSTED_PROXIES", '["everybody"]'),
    ("LOCKBOX_TRUSTED_PROXIES", "10.0.0.7"),
    ("LOCKBOX_TRUSTED_PROXIES", "[10]"),
    ("LOCKBOX_TRUSTED_PROXIES", '"10.0.0.7/32"'),
    ("LOCKBOX_TRUSTED_PROXIES", '["0.0.0.0/0"]'),
    ("LOCKBOX_TRUSTED_PROXIES", '["::/0"]'),
    ("LOCKBOX_SESSION_SECONDS", "0"),
    ("LOCKBOX_SESSION_IDLE_SECONDS", "forever"),
    ("LOCKBOX_SIGN_INS_PER_ACCOUNT", "0"),
    ("LOCKBOX_DELIVERIES_KEPT_DAYS", "1"),
    ("LOCKBOX_DELIVERIES_KEPT_DAYS", "for ever"),
    ("LOCKBOX_FLOWER_PORT", "0"),
    ("LOCKBOX_FLOWER_PORT", "http"),
    ("LOCKBOX_EMBEDDED", "perhaps"),
    ("LOCKBOX_LOG_LEVEL", "loud"),
    ("LOCKBOX_FLOWER_URL", "javascript:alert(1)"),
    ("LOCKBOX_FLOWER_URL", "flower.example"),
    ("LOCKBOX_FLOWER_URL", "https://flower.example:0"),
    ("LOCKBOX_FLOWER_URL", "https://flower.example:65536"),
    ("LOCKBOX_PUBLIC_URL", "https://lockbox.example:65536"),
    ("LOCKBOX_MAIL_FROM", "a@b.example\nBcc: c@d.example"),
    ("LOCKBOX_MAIL_FROM", "a@b.example\rBcc: c@d.example"),
    ("LOCKBOX_MAIL_FROM", "a@b.example, c@d.example"),
    ("LOCKBOX_MAIL_FROM", "Lockbox"),
    ("LOCKBOX_MAIL_FROM", '"'),
    ("LOCKBOX_MAIL_FROM", ""),
    ("LOCKBOX_VENDOR_NAME", "Fabrikam\nSupport"),
    ("LOCKBOX_VENDOR_NAME", "F" * 61),
    ("LOCKBOX_VENDOR_COLOUR", "red"),
    ("LOCKBOX_VENDOR_COLOUR", "#27a"),
    ("LOCKBOX_VENDOR_COLOUR", "#27a;}*{"),
    ("LOCKBOX_VENDOR_COLOUR", "#ffcc00"),
    ("LOCKBOX_VENDOR_LOGO", "/nowhere/logo.svg"),
    ("LOCKBOX_VENDOR_LOGO", "/dev/zero"),
    ("LOCKBOX_VENDOR_LOGO", "/etc/hostname"),
    ("LOCKBOX_CASE_URL", "javascript:alert('{case}')"),
    ("LOCKBOX_CASE_URL", "http://desk.example/{case}"),
    ("LOCKBOX_CASE_URL", "https://desk.example/"),
    ("LOCKBOX_CASE_URL", "https://{case}.desk.example/"),
    ("LOCKBOX_CASE_URL", "https://desk.example/{case}/{case}"),
    ("LOCKBOX_CASE_URL", "https://desk.example/{other}"),
    ("LOCKBOX_CASE_URL", "https://anna:secret@desk.example/{case}"),
]


def set_up(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    """Make the environment that of a safe production setup, with changes, and undo those of earlier cases."""
    monkeypatch.undo()
    for name, value in (PRODUCTION | changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def test_a_safe_production_setup_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch)

    settings = load()

    assert settings.environment == "production"
    assert settings.require("database_url") == f"postgresql+psycopg://lockbox_api:{SECRET}@db.example/lockbox"
    assert set(settings.catalogue.services) == {"exchange-online", "sharepoint-online", "onedrive"}


@each(("name", "value"), UNSAFE)
def test_unsafe_production_settings_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    set_up(monkeypatch, **{name: value})

    with pytest.raises(UnsafeSettings, match=name) as refused:
        load()

    assert str(refused.value).count("LOCKBOX_") == 1
    assert "Value error" not in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert KEY not in str(refused.value)


PLAYING = {"LOCKBOX_PLAYGROUND": "/var/playground.json", "LOCKBOX_PUBLIC_URL": "http://localhost:8000"}


def test_production_settings_refuse_the_playground(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, LOCKBOX_PLAYGROUND="/var/playground.json")

    with pytest.raises(UnsafeSettings, match="LOCKBOX_PLAYGROUND: unset it; it lets anybody in as anybody"):
        load()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"LOCKBOX_EMBEDDED": "false"}, "only on embedded servers"),
        ({"LOCKBOX_PUBLIC_URL": "http://lockbox.example:8000"}, "only under an address of this machine"),
        ({"LOCKBOX_PUBLIC_URL": "http://192.168.0.7:8000"}, "only under an address of this machine"),
        ({"LOCKBOX_PUBLIC_URL": "http://localhost.evil.example"}, "only under an address of this machine"),
    ],
)
@pytest.mark.parametrize("environment", ["development", "test"])
def test_a_playground_needs_embedded_servers_and_a_loopback_address(
    monkeypatch: pytest.MonkeyPatch, environment: str, changes: dict[str, str], words: str
) -> None:
    set_up(monkeypatch, **PLAYING | {"LOCKBOX_ENVIRONMENT": environment, "LOCKBOX_EMBEDDED": "true"} | changes)

    with pytest.raises(UnsafeSettings, match=f"LOCKBOX_PLAYGROUND: {words}"):
        load()


@pytest.mark.parametrize("url", ["http://localhost:8000", "http://127.0.0.1:8000", "http://[::1]:8000"])
def test_a_playground_is_allowed_on_local_embedded_servers(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    changes = {"LOCKBOX_ENVIRONMENT": "development", "LOCKBOX_EMBEDDED": "true", "LOCKBOX_PUBLIC_URL": url}
    set_up(monkeypatch, **PLAYING | changes)

    assert load().playground


def test_all_unsafe_settings_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, LOCKBOX_EMBEDDED="true", LOCKBOX_PUBLIC_URL="http://x", LOCKBOX_REDIS_URL="redis://x")

    with pytest.raises(UnsafeSettings) as refused:
        load()

    for name in ("LOCKBOX_EMBEDDED", "LOCKBOX_PUBLIC_URL", "LOCKBOX_REDIS_URL"):
        assert name in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("LOCKBOX_MARK_KEY_FILES", None), ("LOCKBOX_CREDENTIAL_KEY_FILES", PRODUCTION["LOCKBOX_CREDENTIAL_KEY_FILES"])],
)
def test_the_connector_worker_needs_the_row_mac_key_and_refuses_the_credential_key(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    given = dict.fromkeys(PRODUCTION) | CONNECTORS
    set_up(monkeypatch, **given)
    assert load().mark_key_files

    set_up(monkeypatch, **given | {name: value})
    with pytest.raises(UnsafeSettings, match=name) as refused:
        load()
    assert str(refused.value).count("LOCKBOX_") == 1


@each(("name", "value"), UNSAFE)
def test_settings_unsafe_in_production_are_allowed_in_development(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    set_up(monkeypatch, LOCKBOX_ENVIRONMENT="development", **{name: value})

    assert load().environment == "development"


@each("environment", ["development", "production"])
@each(("name", "value"), MALFORMED)
def test_a_malformed_setting_is_refused_by_name_without_being_quoted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, environment: str
) -> None:
    set_up(monkeypatch, **{"LOCKBOX_ENVIRONMENT": environment, name: value})

    with pytest.raises(UnsafeSettings, match=name) as refused:
        load()

    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_an_unencrypted_mail_relay_on_loopback_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, LOCKBOX_SMTP_URL="smtp://127.0.0.1:25")

    assert load().require("smtp_url") == "smtp://127.0.0.1:25"


def test_printed_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch)

    settings = load()

    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter2" not in shown
        assert KEY not in shown


@pytest.mark.parametrize(
    ("url", "origin", "domain"),
    [
        ("https://Lockbox.Example", "https://lockbox.example", "lockbox.example"),
        ("https://lockbox.example:443/", "https://lockbox.example", "lockbox.example"),
        ("https://lockbox.example:8443", "https://lockbox.example:8443", "lockbox.example"),
        ("http://localhost:8000", "http://localhost:8000", "localhost"),
        ("http://127.0.0.1:80", "http://127.0.0.1", None),
        ("https://[::1]:8443", "https://[::1]:8443", None),
    ],
)
def test_the_public_origin_is_normalised_and_an_ip_address_allows_no_passkeys(
    url: str, origin: str, domain: str | None
) -> None:
    settings = Settings(public_url=url)

    assert (settings.origin, settings.passkey_domain) == (origin, domain)
    assert not settings.public_url.endswith("/")


def test_sign_ins_are_limited_by_default() -> None:
    settings = Settings()

    assert (settings.session_seconds, settings.session_idle_seconds) == (12 * 3600, 30 * 60)
    assert settings.sign_ins_per_account_and_network == 10
    assert (settings.sign_ins_per_account, settings.sign_ins_per_address) == (30, 300)
    assert settings.mail_sign_in
    assert settings.issuers == settings.trusted_proxies == ()


@pytest.mark.parametrize(
    ("said", "known"), [("none", ()), ("None", ()), ("[]", ()), ('["10.0.0.0/8"]', ("10.0.0.0/8",))]
)
def test_the_trusted_proxies_setting_is_a_list_of_networks_or_none(
    monkeypatch: pytest.MonkeyPatch, said: str, known: tuple[str, ...]
) -> None:
    set_up(monkeypatch, LOCKBOX_TRUSTED_PROXIES=said)

    assert tuple(map(str, load().trusted_proxies)) == known


def test_only_the_api_needs_the_trusted_proxies_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, LOCKBOX_TRUSTED_PROXIES=None, LOCKBOX_DATABASE_URL=None)

    assert load().trusted_proxies == ()


def test_settings_are_immutable(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch)
    settings = load()

    with pytest.raises(ValidationError, match="frozen"):
        settings.embedded = True  # type: ignore[misc]


def test_a_missing_required_setting_is_named() -> None:
    with pytest.raises(UnsafeSettings, match="LOCKBOX_DATABASE_URL is not set"):
        Settings(environment="test").require("database_url")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOCKBOX_FLOWER_PASSWORD", "long-enough,but-cut-there"),
        ("LOCKBOX_FLOWER_USER", "admin,other"),
        ("LOCKBOX_FLOWER_USER", "admin:x"),
    ],
)
def test_a_setting_that_another_program_would_misread_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(UnsafeSettings, match=name):
        load()


@pytest.mark.parametrize(
    "called",
    [
        "issuers: [{issuer: 'https://a.example', audience: x, jwks_url: 'http://localhost/keys'}]",
        "case_systems: {desk: {title: Desk, address: 'https://a.example/', adapter: 'http://localhost/cases'}}",
    ],
)
def test_production_requires_https_for_addresses_in_the_catalogue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, called: str
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"services: {{mail: {{title: Mail}}}}\nplans: {{standard: {{}}}}\n{called}\n")
    set_up(monkeypatch, LOCKBOX_CATALOGUE=str(own))

    with pytest.raises(UnsafeSettings, match="LOCKBOX_CATALOGUE: issuers and adapters must be https"):
        load()


def test_make_run_passes_on_every_setting_or_uses_it_itself_or_refuses_it_with_a_reason() -> None:
    assert sorted([*PASSED, *TAKEN, *REFUSED]) == sorted(Settings.model_fields)
    assert set(FILES) <= set(PASSED)
    assert set().union(*PASSED.values()) == set(commands())


def test_a_setting_reaches_the_processes_that_need_it() -> None:
    passed = sort_settings({"LOCKBOX_LOG_LEVEL": "debug", "LOCKBOX_METRICS_TOKEN": "a-token"})

    assert passed.of("api") == {"LOCKBOX_LOG_LEVEL": "debug", "LOCKBOX_METRICS_TOKEN": "a-token"}
    assert passed.of("flower") == passed.of("worker") == {"LOCKBOX_LOG_LEVEL": "debug"}
    assert passed.refused == {}


def test_a_relative_file_in_settings_is_found_from_another_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    passed = sort_settings({"LOCKBOX_CATALOGUE": "mine.yaml"})

    assert passed.of("api") == passed.of("notifications") == {"LOCKBOX_CATALOGUE": str(tmp_path / "mine.yaml")}
    assert passed.of("worker") == {}


def test_the_targets_folder_reaches_the_connector_worker_only(tmp_path: Path) -> None:
    passed = sort_settings({"LOCKBOX_CONNECTOR_TARGETS": str(tmp_path)})

    assert passed.of("connectors") == {"LOCKBOX_CONNECTOR_TARGETS": str(tmp_path)}
    assert {name: passed.of(name) for name in ("api", "worker", "notifications", "flower")} == {
        name: {} for name in ("api", "worker", "notifications", "flower")
    }


@pytest.mark.parametrize(
    ("variable", "why"),
    [
        ("LOCKBOX_PUBLIC_URL", "make run PORT=N"),
        ("LOCKBOX_API_PORT", "make run PORT=N"),
        ("LOCKBOX_SECRET_KEYS", "keys of its own"),
        ("LOCKBOX_TOKEN", "the command `lockbox`"),
        ("LOCKBOX_CATALOG", "did you mean LOCKBOX_CATALOGUE?"),
        ("LOCKBOX_SERVICES", "there is no such setting"),
        ("lockbox_embedded", "starts a server"),
    ],
)
def test_a_setting_not_passed_on_is_reported_without_its_value(variable: str, why: str) -> None:
    passed = sort_settings({variable: "hunter2"})

    assert passed.values == {}
    assert why in passed.refused[variable]
    assert "hunter2" not in passed.refused[variable]


def test_settings_used_by_the_stack_are_not_refused() -> None:
    assert sort_settings({"LOCKBOX_REDIS_URL": "redis://:x@localhost/0"}).refused == {}


def test_environment_variables_of_settings_ignore_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("lockbox_log_level", "debug")
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")

    assert given()["lockbox_log_level"] == "debug"
    assert all(name.upper().startswith("LOCKBOX_") for name in given())
