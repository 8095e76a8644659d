"""Query Flower as an operator does."""

import time
from collections import Counter
from collections.abc import Collection
from typing import Self

import httpx

from devstack.stack import StackPlan

ANSWER_SECONDS, SEEN_SECONDS = 10, 20
CONTROL_CALLS = (
    "worker/shutdown/any",
    "worker/pool/restart/any",
    "worker/pool/grow/any",
    "worker/pool/shrink/any",
    "worker/pool/autoscale/any",
    "worker/queue/add-consumer/any",
    "worker/queue/cancel-consumer/any",
    "task/apply/lockbox.expire",
    "task/async-apply/lockbox.expire",
    "task/send-task/lockbox.expire",
    "task/abort/any",
    "task/timeout/lockbox.expire",
    "task/rate-limit/lockbox.expire",
    "task/revoke/any",
)
"""Everything in Flower's HTTP API that would change something."""


class Flower:
    def __init__(self, plan: StackPlan) -> None:
        self._http = httpx.Client(
            base_url=plan.flower_url,
            auth=(plan.flower_user, plan.flower_password),
            timeout=ANSWER_SECONDS,
            trust_env=False,
        )

    def sees(self, workers: set[str]) -> bool:
        """`workers` are named without the host."""
        try:
            known = self._http.get("/api/workers", params={"status": 1}).raise_for_status().json()
        except httpx.HTTPError:
            return False
        return workers <= {name.partition("@")[0] for name in known}

    def is_up(self) -> bool:
        try:
            return self._http.get("/healthcheck").is_success
        except httpx.HTTPError:
            return False

    def page(self, path: str) -> str:
        return self._http.get(path).text

    def tasks(self, expected: Collection[str]) -> dict[str, int]:
        until = time.monotonic() + SEEN_SECONDS
        seen: Counter[str] = Counter()
        while not set(expected) <= set(seen) and time.monotonic() < until:
            answer = self._http.get("/api/tasks", params={"limit": 1000}).raise_for_status()
            seen = Counter(task["name"] for task in answer.json().values() if task["name"])
            time.sleep(0.1)
        return dict(seen)

    def control(self) -> dict[str, int]:
        return {call: self._http.post(f"/api/{call}").status_code for call in CONTROL_CALLS}

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
