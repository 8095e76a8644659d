"""Health check: `python -m worker.health core` exits with 0 if this machine's worker answers, else with 1.

The worker answers through Redis. Without Redis it continues from Postgres but cannot answer: a 1 means "check", never
"kill".
"""

import argparse
import socket
import sys

from celery import Celery
from kombu.exceptions import OperationalError

from worker.app import app

REPLY_SECONDS = 5.0
KINDS = ("core", "notifications", "connectors")


def answers(celery: Celery, node: str, seconds: float = REPLY_SECONDS) -> bool:
    try:
        replies = celery.control.ping(destination=[node], timeout=seconds, limit=1)
    except OperationalError:
        return False
    return any(node in reply for reply in replies or ())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.health", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    node = f"{parser.parse_args().kind}@{socket.gethostname()}"
    if answers(app, node):
        return 0
    sys.stderr.write(f"lockbox: {node} does not answer\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
