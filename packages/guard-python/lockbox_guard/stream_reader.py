"""Reads Lockbox's change stream, and connects again whenever it breaks."""

import asyncio
import logging
import random
from typing import Any

import httpx

from lockbox_guard.connection import CREDENTIAL, GuardToken, LockboxAddress
from lockbox_guard.knowledge import Knowledge
from lockbox_guard.stream_events import EventDecoder, MalformedStream

log = logging.getLogger("lockbox_guard")
PATH = "/gate/v1/stream"
SILENCE_SECONDS = 3.0
"""Heartbeats come each half second: a connection that is silent for longer is dead."""
MOST_USELESS = 5
"""If nothing may be allowed after more heartbeats, the guard reconnects: this bounds the database's time better."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
SENT = "http11.send_request_headers.started"


class StreamRefused(Exception):  # noqa: N818 - the name says what went wrong
    """Lockbox does not give this service the stream."""


class StreamReader:
    def __init__(self, address: LockboxAddress, credential: GuardToken, knowledge: Knowledge) -> None:
        self._address = address
        self._credential = credential
        self._knowledge = knowledge
        self._failures = 0

    async def run(self) -> None:
        """Read until cancelled. Failures are logged, and retried after a pause of random length."""
        async with self._address.client(connections=1) as client:
            while True:
                try:
                    await self._read(client)
                except MalformedStream as malformed:
                    self._knowledge.lose()
                    self._note(str(malformed))
                except (StreamRefused, ValueError) as refused:
                    self._note(str(refused))
                except (httpx.HTTPError, TimeoutError, OSError) as error:
                    self._note(type(error).__name__)
                except Exception:
                    self._knowledge.lose()
                    log.exception("lockbox-guard: the stream cannot be read")
                self._failures += 1
                longest = min(FIRST_PAUSE * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE)
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - it only spreads clients

    async def _read(self, client: httpx.AsyncClient) -> None:
        knowledge = self._knowledge
        knowledge.begin()
        headers = {CREDENTIAL: self._credential.read(), "accept": "text/event-stream"}
        if knowledge.last_id is not None:
            headers["last-event-id"] = knowledge.last_id
        request = client.build_request("GET", PATH, headers=headers, extensions={"trace": self._note_sent})
        async with asyncio.timeout(SILENCE_SECONDS):
            response = await client.send(request, stream=True)
        try:
            kind = response.headers.get("content-type", "")
            if response.status_code != httpx.codes.OK or not kind.startswith("text/event-stream"):
                reason = response.headers.get("lockbox-reason", "no reason given")
                raise StreamRefused(f"Lockbox gives no stream: {response.status_code}, {reason[:40]!a}")
            decoder, chunks, useless = EventDecoder(), response.aiter_raw(), 0
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    raise StreamRefused("Lockbox has ended the stream")
                for event in decoder.feed(chunk):
                    knowledge.take(event)
                    useless += event.kind == "heartbeat" and knowledge.clock.is_quiet
                if not knowledge.clock.is_quiet:
                    useless = 0
                    self._succeed()
                elif useless > MOST_USELESS:
                    raise StreamRefused("its clock cannot be told by a connection that began so slowly")
        finally:
            await response.aclose()

    async def _note_sent(self, name: str, _: dict[str, Any]) -> None:
        if name == SENT:
            self._knowledge.clock.note_sent()

    def _succeed(self) -> None:
        if self._failures > 1:
            log.info("lockbox-guard: Lockbox is heard again")
        self._failures = 0

    def _note(self, error: str) -> None:
        if self._failures in {1, 5} or self._failures % 60 == 0:
            log.warning("lockbox-guard: the stream broke, nothing is allowed while it is away: %s", error)
