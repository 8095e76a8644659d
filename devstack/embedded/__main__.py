"""Start and stop the embedded servers: `python -m devstack.embedded start|stop|status [--folder F]`."""

import argparse
import os
import sys
from pathlib import Path

from devstack.embedded import EmbeddedRefused, ServerAddresses, default_folder, find, start
from devstack.embedded.folder import find_home, read_state

CHECKOUT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devstack.embedded", description=__doc__)
    parser.add_argument("action", choices=["start", "stop", "status"])
    parser.add_argument("--folder", type=Path, default=default_folder(CHECKOUT), help="default: %(default)s")
    asked = parser.parse_args(arguments)
    # The environment may be read here, as in config/.
    environment = os.environ.get("LOCKBOX_ENVIRONMENT", "development")
    try:
        starts = asked.action == "start"
        servers = start(asked.folder, environment=environment) if starts else find(asked.folder)
        if asked.action == "stop":
            servers.stop()
        sys.stdout.write(_described(servers))
    except (EmbeddedRefused, OSError) as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    return 0


def _described(servers: ServerAddresses) -> str:
    ports, pids = read_state(find_home(servers.folder)).ports, servers.pids
    lines = [f"folder    {servers.folder}"]
    for name, port in ports.items():
        lines.append(f"{name:<9} 127.0.0.1:{port} " + (f"pid {pids[name]}" if name in pids else "stopped"))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
