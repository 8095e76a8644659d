"""A sealer for the benchmark: `python -m bench.sealer URL` seals each second until its standard input ends."""

import select
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lockbox.audit import sealing
from lockbox.audit.sealing import Signer
from lockbox.database import Database, make_engine
from lockbox.schedule import Schedule

REST_SECONDS = 1.0


def main() -> None:
    """Seal, rest, and again."""
    house = Database(make_engine(sys.argv[1], role="bench"), Schedule("redis://127.0.0.1:1"))
    signer = Signer("bench", [Ed25519PrivateKey.generate()])
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], REST_SECONDS)[0]:
        for _ in sealing.seal(house, signer, lambda *_: False):
            pass


if __name__ == "__main__":
    main()
