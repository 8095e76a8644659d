"""`python -m bench.gate_checks`: checks a second at the gate, beside a FastAPI route that does nothing."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from bench.figures import quantile
from harness import gateway_world
from harness.gateway_world import PATIENCE, GatewayWorld, serving
from harness.load import play
from harness.people import SETTINGS, World
from harness.stage import fresh_database, migrated_servers
from harness.wait import wait_for
from lockbox.database import Database, make_engine
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule

CLIENTS = 16
A_SECOND = 200
WINDOWS = 64
WARM_UP_SECONDS = 1.0
IN_PRODUCTION = SETTINGS.model_copy(update={"gate_compare_every": 1000})
OUT = Console()


def addresses() -> list[str]:
    """Return the mailboxes that are asked about."""
    return [f"person-{number}@contoso.example" for number in range(WINDOWS)]


@contextmanager
def gate() -> Iterator[GatewayWorld]:
    """Serve a gate with open windows in its memory."""
    with migrated_servers("bench-gate") as servers, fresh_database(servers) as urls:
        db = Database(make_engine(urls.api, role="bench", pool_size=4, overflow=16), Schedule(urls.redis))
        world = World.make(db)
        for one in addresses():
            request = world.submit(resources=[f"mailbox:{one}"])
            world.act("ann", Action.APPROVE, request.id)
        with gateway_world.gate_before(world, db, IN_PRODUCTION, GatewayWorld) as found:
            wait_for("all windows are in memory", lambda: len(found.gateway.memory) == WINDOWS, PATIENCE)
            yield found
        db.dispose()


@contextmanager
def nothing() -> Iterator[int]:
    """Serve a route of FastAPI that does nothing, and yield its port."""
    app = FastAPI()

    @app.get("/nothing")
    async def answer() -> dict[str, bool]:
        return {"open": True}

    with serving(app) as port:
        yield port


def _question(world: GatewayWorld, address: str) -> list[dict[str, Any]]:
    headers = {name: value for name, value in world.question("nginx", world.path(address)) if name != "Host"}
    return [{"method": "GET", "path": "/gate/v1/exchange-online", "headers": headers, "status": 200}]


def _measured(port: int, stories: list[list[dict[str, Any]]], seconds: float) -> tuple[float, float, float, float]:
    """Return how many a second 16 clients got, their p50 and p99 in ms, and the p99 of 200 a second, open-loop."""
    play(port, stories, CLIENTS, WARM_UP_SECONDS)
    crowd = play(port, stories, CLIENTS, seconds)
    paced = play(port, stories, 0, seconds, A_SECOND)
    taken, paced_taken = sorted(crowd["taken"][0]), sorted(paced["taken"][0])
    times = [1000 * quantile(taken, 0.5), 1000 * quantile(taken, 0.99), 1000 * quantile(paced_taken, 0.99)]
    return len(taken) / crowd["seconds"], times[0], times[1], times[2]


def main() -> None:
    """Measure both, one after the other, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate_checks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    table = Table("what", "a second", "p50 ms", "p99 ms", f"p99 ms at {A_SECOND}/s")
    with nothing() as port:
        rows = [
            ("FastAPI, nothing", _measured(port, [[{"method": "GET", "path": "/nothing", "status": 200}]], seconds))
        ]
    with gate() as world:
        stories = [_question(world, one) for one in addresses()]
        rows.append(("the gate", _measured(world.port, stories, seconds)))
    for name, (rate, *times) in rows:
        table.add_row(name, f"{rate:,.0f}", *(f"{one:.1f}" for one in times))
    OUT.print(table)


if __name__ == "__main__":
    main()
