"""The gateway of the demo: Caddy with deploy/gateways/Caddyfile. It names Erin in place of an identity provider."""

import sys
from pathlib import Path
from uuid import UUID

import httpx

from catalogue.load import SAMPLE as CATALOGUE
from devstack import stack
from devstack.embedded.folder import write_private
from devstack.stack import Processes
from gate.identity_map import HEADER
from harness.network import HOST
from harness.people import SERVICE
from harness.ports import own_port
from harness.sample_files import replaced

SAMPLE = stack.CHECKOUT / "deploy" / "gateways" / "Caddyfile"
CADDY_PLACES = (stack.CHECKOUT / ".venv-demo" / "bin", Path(sys.executable).parent)
ENGINEER = "erin"
ENGINEER_HEADER = "Lockbox-Engineer"
COMMENTED = f"# engineer_header: {ENGINEER_HEADER}"
SECONDS = 10


class CaddyMissing(Exception):  # noqa: N818 - the name says what went wrong
    """Neither the demo's own environment nor this one has Caddy."""


def find_caddy() -> Path:
    """Return the path of the program.

    Raises:
        CaddyMissing: neither environment has Caddy; the message says what to do.
    """
    for place in CADDY_PLACES:
        if (place / "caddy").exists():
            return place / "caddy"
    raise CaddyMissing("Caddy, the gateway of the demo, is not installed: `make demo` installs it")


def write_catalogue(folder: Path) -> Path:
    """Write the shipped catalogue, plus the header in which the gateway names the engineer."""
    written = folder / "catalogue.yaml"
    written.write_text(replaced(CATALOGUE.read_text(), {COMMENTED: COMMENTED.removeprefix("# ")}))
    return written


def start_gateway(processes: Processes, folder: Path, token: str) -> str:
    """Start the service and Caddy before it, and return Caddy's address."""
    service, entrance = own_port(), own_port()
    write_private(folder / "gateway-token", token)
    sent = "header_up Lockbox-Gateway {file./etc/lockbox/gateway-token}"
    told = f"header_up Lockbox-Gateway {{file.{folder}/gateway-token}}"
    changes = {
        sent: f"{told}\n\t\t\theader_up {ENGINEER_HEADER} {ENGINEER}",
        "exchange-online?": f"{SERVICE}?",
        "http://127.0.0.1:8000": f"http://{HOST}:{processes.plan.api_port}",
        "http://127.0.0.1:9000": f"http://{HOST}:{service}",
        "http://:8080": f"http://:{entrance}",
    }
    written = folder / "Caddyfile"
    written.write_text(replaced(SAMPLE.read_text(), changes))
    processes.launch("mailboxes", [sys.executable, "-m", "demo.mailboxes", str(service)])
    processes.launch("gateway", [str(find_caddy()), "run", "--config", str(written), "--adapter", "caddyfile"])
    return f"http://{HOST}:{entrance}"


def map_engineer(api: str, operator: str, gateway: UUID, engineer: UUID) -> None:
    """Map the name that this gateway uses to the engineer, as an operator.

    Raises:
        httpx.HTTPError: the API refuses it.
    """
    body = {"issuer": f"{HEADER}{gateway}", "subject": ENGINEER, "person_id": str(engineer)}
    bearer = {"authorization": f"Bearer {operator}"}
    answer = httpx.post(f"{api}/v1/gate/identities", json=body, headers=bearer, timeout=SECONDS, trust_env=False)
    if answer.status_code != httpx.codes.CONFLICT:  # an earlier demo has mapped it
        answer.raise_for_status()


def host_of(tenant: str) -> str:
    """Return the host by which the gate knows the tenant."""
    return f"{tenant}.mail.example"
