"""The caller's own settings that `make run` passes on to its processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

from config.client import ClientSettings
from config.settings import Settings
from devstack.stack import SERVERS

API = frozenset({"api"})
WORKERS = frozenset({"worker", "notifications", "connectors"})
MAILERS = frozenset({"worker", "notifications"})
ALL = API | WORKERS | {"flower"}
PREFIX = "LOCKBOX_"
PASSED = {
    "catalogue": frozenset({"api", "notifications", "connectors"}),
    "connector_targets": frozenset({"connectors"}),
    "log_level": ALL,
    **dict.fromkeys(("otlp_endpoint", "otlp_share"), API | WORKERS),
    "shutdown_seconds": WORKERS,
    "deliveries_kept_days": WORKERS,
    "digest_hours": frozenset({"worker"}),
    "mail_from": MAILERS,
    "smtp_ca_file": MAILERS,
    "database_direct_url": MAILERS,
    **dict.fromkeys(("issuers", "mail_sign_in", "session_seconds", "session_idle_seconds", "token_days"), API),
    **dict.fromkeys(("most_token_days", "token_overlap_hours", "live_streams", "connections_per_address"), API),
    **dict.fromkeys(("sign_ins_per_account_and_network", "sign_ins_per_account", "sign_ins_per_address"), API),
    **dict.fromkeys(("submissions_per_person", "submissions_per_tenant", "invitations_a_day"), API),
    **dict.fromkeys(("metrics_token", "trusted_proxies", "api_processes", "gate_compare_every"), API),
    **dict.fromkeys(("gate_streams", "gate_streams_per_token", "vendor_name", "vendor_colour"), API),
    **dict.fromkeys(("vendor_logo", "case_url", "retention_days"), API),
    **dict.fromkeys(("private_networks", "outbound_proxy"), frozenset({"api", "notifications", "connectors"})),
    "case_adapter_secret": frozenset({"notifications"}),
}
"""The processes that get each setting."""
FILES = frozenset({"catalogue", "connector_targets", "smtp_ca_file", "vendor_logo"})
TAKEN = frozenset({"environment", "connectors_database_url", *chain.from_iterable(SERVERS.values())})
"""Settings that `devstack.stack` uses itself, and passes to each process that needs them."""
OWN_KEYS = "make run makes keys of its own, or uses those of development"
REFUSED = {
    **dict.fromkeys(
        ("secret_keys", "approval_key_files", "credential_key_files", "code_key_files", "mark_key_files"), OWN_KEYS
    ),
    **dict.fromkeys(("audit_key_files", "audit_public_keys", "approval_public_keys"), OWN_KEYS),
    "audit_name": "the audit log is named after the address of make run",
    "checkpoint_folder": "make run keeps no checkpoints outside of its database",
    "public_url": "it follows from the port; choose one by `make run PORT=N`",
    "flower_port": "choose it by `python -m devstack.run --flower-port N`",
    **dict.fromkeys(("flower_user", "flower_password"), "make run keeps one in var/flower-password"),
    **dict.fromkeys(("flower_address", "flower_url"), "make run keeps Flower on this machine"),
    "flower_unauthenticated_api": "make run keeps Flower behind its password",
    "embedded": "make run starts a server where no URL of one is set",
    "playground": "make run writes that file itself",
    "webhooks_allow_http": "make run allows it",
    "log_format": "make run writes its log for people to read",
    "failpoint": "it ends a process on purpose; only tests set it",
}


@dataclass(frozen=True)
class PassedSettings:
    values: Mapping[str, str]
    refused: Mapping[str, str]

    def of(self, process: str) -> dict[str, str]:
        return {f"{PREFIX}{name.upper()}": value for name, value in self.values.items() if process in PASSED[name]}


def sort_settings(variables: Mapping[str, str]) -> PassedSettings:
    """Paths become absolute."""
    values, refused = {}, {}
    for variable, value in variables.items():
        name = variable.upper().removeprefix(PREFIX).lower()
        if name in PASSED:
            values[name] = str(Path(value).absolute()) if name in FILES else value
        elif name not in TAKEN:
            refused[variable] = _why(name)
    return PassedSettings(values, refused)


def _why(name: str) -> str:
    if name in REFUSED:
        return REFUSED[name]
    if name == "api_port":
        return "choose it by `make run PORT=N`"
    if name in ClientSettings.model_fields:
        return "it is for the command `lockbox`"
    near = get_close_matches(name, Settings.model_fields, n=1)
    return (
        f"there is no such setting; did you mean {PREFIX}{near[0].upper()}?" if near else "there is no such setting"
    )
