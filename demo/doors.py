"""Probe the gateway again and again: does it serve each story's own mailbox now?"""

import threading
import time
from collections.abc import Mapping, Sequence

import httpx

from demo.evidence import Probe

REST_SECONDS = 0.15
ANSWER_SECONDS = 4


class AccessProber(threading.Thread):
    """Probes every mailbox a few times a second until stopped.

    Args:
        url: the gateway before the guarded service.
        host: the host by which the gate knows the tenant.
        mailboxes: an address by the number of its story.
        ahead: the database's clock is at least this many seconds ahead of ours.
    """

    def __init__(self, url: str, host: str, mailboxes: Mapping[int, str], ahead: float) -> None:
        super().__init__(name="doors", daemon=True)
        self._mailboxes = mailboxes
        self._ahead = ahead
        self._seen: dict[int, list[Probe]] = {number: [] for number in mailboxes}
        self._stopping = threading.Event()
        self._http = httpx.Client(base_url=url, headers={"host": host}, timeout=ANSWER_SECONDS, trust_env=False)

    @property
    def seen(self) -> dict[int, Sequence[Probe]]:
        """The answers so far, by the number of the story."""
        return {number: tuple(probes) for number, probes in self._seen.items()}

    def run(self) -> None:
        """Probe all mailboxes in turn."""
        while not self._stopping.wait(REST_SECONDS):
            for number, mailbox in self._mailboxes.items():
                self._seen[number].append(self._probe(mailbox))

    def stop(self) -> None:
        """Send no more probes; a probe that waits for its answer may get it first."""
        self._stopping.set()
        if self.is_alive():
            self.join()
        self._http.close()

    def _probe(self, mailbox: str) -> Probe:
        sent = time.time() + self._ahead
        try:
            status = self._http.get(f"/mailboxes/{mailbox}").status_code
        except httpx.HTTPError:
            status = 0
        return Probe(sent, time.time() + self._ahead, status)
