"""What an operator sees in Flower: the tasks by name, and that nothing can be changed there."""

import time
from collections import Counter

import httpx

from cli.demo.story import CONTROL_CALLS, TASKS
from cli.stack import StackPlan

SECONDS = 5


class Flower:
    """Asks Flower's HTTP API, signed in."""

    def __init__(self, plan: StackPlan) -> None:
        self._http = httpx.Client(
            base_url=plan.flower_url,
            auth=(plan.flower_user, plan.flower_password),
            timeout=SECONDS,
            trust_env=False,
        )

    def sees(self, workers: set[str]) -> bool:
        """Whether it answers and has heard of all these workers; their names without the host."""
        try:
            known = self._http.get("/api/workers", params={"status": 1}).raise_for_status().json()
        except httpx.HTTPError:
            return False
        return workers <= {name.partition("@")[0] for name in known}

    def tasks(self) -> dict[str, int]:
        """Return how often each task was seen; waits a little for those that must come."""
        until = time.monotonic() + SECONDS
        seen: Counter[str] = Counter()
        while not set(TASKS) <= set(seen) and time.monotonic() < until:
            answer = self._http.get("/api/tasks", params={"limit": 1000}).raise_for_status()
            seen = Counter(task["name"] for task in answer.json().values() if task["name"])
            time.sleep(0.1)
        return dict(seen)

    def control(self) -> dict[str, int]:
        """Try everything that would change something, and return the answers' statuses."""
        return {call: self._http.post(f"/api/{call}").status_code for call in CONTROL_CALLS}

    def close(self) -> None:
        """Hang up."""
        self._http.close()
