"""Loads over HTTP, the same for Lockbox, the floor and the peers: submissions, whole lives, and access checks."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import psutil
from sqlalchemy import Engine, text

from bench.costs import cpu_seconds
from bench.customers import Customers, resource
from bench.figures import medians, quantile
from bench.sinks import SinkPorts
from harness.load import play
from harness.people import question

CLIENTS = (1, 8, 64)
A_FEW = 8
SUBMITS_A_SECOND = 40
CHECKING = 16
CHECKS_A_SECOND = 200
FLOOD, CHECKING_BESIDE = 400, 4
WINDOWS = 64
WARM_UP_SECONDS = 1.0
LIFE_SECONDS = 10
EVEN_SECONDS = 1.0
SHARES = {"p50_ms": 0.5, "p99_ms": 0.99}

Calls = list[dict[str, object]]


class MailsOfLife(NamedTuple):
    """How many mails Lockbox sends when a request is submitted, when it is approved, and when its window ends."""

    submitted: int = 1
    approved: int = 2
    ended: int = 2


MAILS = MailsOfLife()


@dataclass(frozen=True)
class Subject:
    """What is put under load: its port, the prefix of each path, its processes and its sinks.

    `requests` returns how many of the given ids it stores.
    """

    port: int
    processes: Callable[[], Mapping[str, psutil.Process]]
    sinks: SinkPorts
    requests: Callable[[Sequence[str]], int]
    prefix: str = ""

    def under(self, prefix: str) -> Self:
        """Return the same subject with another prefix."""
        return replace(self, prefix=prefix)

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each part has taken so far."""
        return {name: cpu_seconds([root]) for name, root in self.processes().items()}

    def play(
        self, stories: Iterable[Calls], clients: int, seconds: float | None = None, rate: float | None = None
    ) -> dict[str, Any]:
        """Play stories; see `harness.load`."""
        ours = [[{**call, "path": f"{self.prefix}{call['path']}"} for call in story] for story in stories]
        return play(self.port, ours, clients, seconds, rate)


def counter(engine: Engine, *tables: str) -> Callable[[Sequence[str]], int]:
    """Return a function that counts the rows of these tables whose id is given."""
    rows = " UNION ALL ".join(f"SELECT id FROM {table} WHERE id = ANY(CAST(:ids AS uuid[]))" for table in tables)
    query = text(f"SELECT count(*) FROM ({rows}) AS rows")

    def count(ids: Sequence[str]) -> int:
        with engine.connect() as connection:
            return int(connection.execute(query, {"ids": list(ids)}).scalar_one())

    return count


def submits(subject: Subject, customers: Customers, seconds: float, rounds: int) -> dict[int, dict[str, float]]:
    """Return how many submissions a second were accepted from one client and from more, and how soon.

    Raises:
        RuntimeError: a request that was accepted is not there.
    """
    stories = [[call] for call in customers.filings(3600)]
    _accepted(subject, subject.play(stories, max(CLIENTS), WARM_UP_SECONDS))
    return {
        clients: several([_accepted(subject, subject.play(stories, clients, seconds)) for _ in range(rounds)])
        for clients in CLIENTS
    }


def paced_submits(subject: Subject, customers: Customers, seconds: float) -> dict[str, float]:
    """Return how soon submissions at a fixed rate are answered, whether earlier ones were answered or not."""
    stories = [[call] for call in customers.filings(3600)]
    return _accepted(subject, subject.play(stories, 0, seconds, SUBMITS_A_SECOND))


def lives(subject: Subject, customers: Customers, count: int) -> dict[str, float]:
    """Let requests be submitted, approved and ended; return the cost of each for all processes, mails included.

    Raises:
        RuntimeError: a mail is missing, or there are too many.
    """
    stories = list(islice(cycle(customers.lives(LIFE_SECONDS)), count))
    spent, began, mails = subject.cpu(), time.monotonic(), subject.sinks.mails
    ids = subject.play([[submission] for submission, _ in stories], A_FEW)["ids"]
    # Wait for these mails: an approval before the mail to the approver has left would make that mail obsolete.
    subject.sinks.wait_for(mails + count * MAILS.submitted)
    subject.play([_named(approval, one) for (_, approval), one in zip(stories, ids, strict=True)], A_FEW)
    subject.sinks.wait_for(mails + count * sum(MAILS))
    seconds = time.monotonic() - began
    of_each = {name: 1000 * (taken - spent[name]) / count for name, taken in subject.cpu().items()}
    time.sleep(EVEN_SECONDS)
    subject.sinks.wait_for(mails + count * sum(MAILS))
    return {
        "cpu_ms": sum(of_each.values()),
        **{f"{name}_cpu_ms": each for name, each in of_each.items()},
        "mails": float(sum(MAILS)),
        "seconds": seconds,
    }


def notified(subject: Subject, customers: Customers, count: int) -> dict[str, float]:
    """Return how many requests a second a few clients submitted, with the mails to the approvers delivered."""
    stories = [[call] for call in islice(cycle(customers.filings(3600)), count)]
    began, mails = time.monotonic(), subject.sinks.mails
    subject.play(stories, A_FEW)
    subject.sinks.wait_for(mails + count * MAILS.submitted, look=0.02)
    return {"a_second": count / (time.monotonic() - began)}


def checks(subject: Subject, customers: Customers, gate: str, seconds: float) -> dict[str, dict[str, float]]:
    """Return how soon access checks of open and closed windows are answered, by clients in turn and at a fixed rate.

    For clients in turn, the result also has the CPU time of a check, by process.
    """
    _open_doors(subject, customers)
    found = {}
    for name, stories in _doors(customers, gate).items():
        subject.play(stories, CHECKING, WARM_UP_SECONDS)
        spent = subject.cpu()
        played = subject.play(stories, CHECKING, seconds)
        done = len(played["taken"][0])
        cost = {f"{part}_cpu_ms": 1000 * (taken - spent[part]) / done for part, taken in subject.cpu().items()}
        found[name] = rate(played) | cost
        found[f"{name}_paced"] = rate(subject.play(stories, 0, 2 * seconds, CHECKS_A_SECOND))
    return found


def _open_doors(subject: Subject, customers: Customers) -> None:
    """Open some windows, and submit as many further requests that nobody answers."""
    stories = list(islice(customers.lives(3600), 2 * WINDOWS))
    subject.play([*stories[:WINDOWS], *([submission] for submission, _ in stories[WINDOWS:])], 1)


def idle_checks(subject: Subject, customers: Customers, gate: str, seconds: float) -> dict[str, dict[str, float]]:
    """Make the same calls to a route that does nothing."""
    stories = _doors(customers, gate)["open"]
    subject.play(stories, CHECKING, WARM_UP_SECONDS)
    in_turn, paced = subject.play(stories, CHECKING, seconds), subject.play(stories, 0, 2 * seconds, CHECKS_A_SECOND)
    return {"open": rate(in_turn), "open_paced": rate(paced)}


def flooded_checks(subject: Subject, customers: Customers, gate: str, seconds: float) -> dict[str, float]:
    """Check windows while 400 connections submit as fast as they can; return how soon checks were answered, in ms."""
    _open_doors(subject, customers)
    stories = _doors(customers, gate)["open"]
    filings = [[call] for call in customers.filings(3600)]
    with ThreadPoolExecutor(1) as beside:
        flood = beside.submit(subject.play, filings, FLOOD, seconds + 2 * WARM_UP_SECONDS)
        subject.play(stories, CHECKING_BESIDE, WARM_UP_SECONDS)
        found = rate(subject.play(stories, CHECKING_BESIDE, seconds))
        accepted = rate(flood.result())
    return {**found, "submitted_a_second": accepted["a_second"], "submits_refused": accepted["busy"]}


def _doors(customers: Customers, gate: str) -> dict[str, list[Calls]]:
    return {
        "open": [[_question(customers, number, gate, 200)] for number in range(WINDOWS)],
        "closed": [[_question(customers, number, gate, 403)] for number in range(WINDOWS, 2 * WINDOWS)],
    }


def _question(customers: Customers, number: int, gate: str, status: int) -> dict[str, object]:
    asked = question(customers.slugs[number], customers.engineers[number], resource(number))
    return {"method": "GET", "path": f"/v1/access?{urlencode(asked)}", "token": gate, "status": status}


def rate(played: Mapping[str, Any]) -> dict[str, float]:
    """Return how many stories of one call were accepted a second, how long they took, and how many got a 503."""
    taken = played["taken"][0]
    return {
        "a_second": len(taken) / played["seconds"],
        "busy": float(played["busy"]),
        **{name: 1000 * quantile(taken, share) if taken else math.inf for name, share in SHARES.items()},
    }


def several(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the medians of several rates, and the largest number of calls answered 503 in any of them."""
    return {**medians(runs), "busy": max(run["busy"] for run in runs)}


def _accepted(subject: Subject, played: Mapping[str, Any]) -> dict[str, float]:
    there, accepted = subject.requests(played["ids"]), len(played["taken"][0])
    if not there == accepted == len(played["ids"]):
        raise RuntimeError(f"{accepted} were accepted and {there} are there")
    return rate(played)


def _named(call: Mapping[str, object], id_: str) -> Calls:
    return [{**call, "path": str(call["path"]).replace("{id}", id_)}]
