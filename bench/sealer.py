"""A sealer for the benchmark: `python -m bench.sealer URL NAME KEY` seals each second until its input ends."""

import select
import sys
from pathlib import Path

from lockbox.audit.log import sealer, signing_keys
from lockbox.audit.log.sealer import Signer
from lockbox.database import Database, make_engine
from lockbox.schedule import Schedule

REST_SECONDS = 1.0


def main() -> None:
    """Seal, rest, and repeat."""
    db = Database(make_engine(sys.argv[1], role="bench"), Schedule("redis://127.0.0.1:1"))
    signer = Signer(sys.argv[2], signing_keys.read([Path(sys.argv[3])]))
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], REST_SECONDS)[0]:
        for _ in sealer.seal(db, signer):
            pass


if __name__ == "__main__":
    main()
