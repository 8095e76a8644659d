"""The API's server processes, and the parent that restarts them."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
import uvicorn

from api.client_counts import ClientCounts
from config import traces

log = structlog.get_logger(__name__)

NOT_STARTED = 3
AGAIN_SECONDS = 1.0
ENDS = (signal.SIGTERM, signal.SIGINT)

Serve = Callable[[int], None]


class ApiServer(uvicorn.Server):
    """A server that ends open streams, by the functions in `shut`, when it has to stop.

    `lifeline` is a descriptor that becomes readable when the parent process has ended; None if there is no parent.
    """

    def __init__(
        self, config: uvicorn.Config, shut: Sequence[Callable[[], None]], lifeline: int | None = None
    ) -> None:
        super().__init__(config)
        self._shut = shut
        self._lifeline = lifeline

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._lifeline is not None:
            asyncio.get_running_loop().add_reader(self._lifeline, self._end)

    def _end(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Also send the last spans, because the signal ends the process afterwards."""
        for end in self._shut:
            end()
        await super().shutdown(sockets)
        traces.stop()


class Supervisor:
    """The parent of the server processes.

    `serve` runs in each child, with a descriptor that becomes readable when the parent has ended. A child that ends
    by itself is started again a second later. If a child ends with NOT_STARTED, all processes end. `listener` is the
    socket on which the children accept. It is closed when all processes have to end, because unaccepted connections
    would wait in it.
    """

    def __init__(self, counts: ClientCounts, listener: socket.socket, serve: Serve) -> None:
        self._counts = counts
        self._listener = listener
        self._serve = serve
        self._numbers: dict[int, int] = {}
        self._is_ending = False
        self._code = 0

    def run(self, processes: int) -> int:
        """Run until a signal ends the processes; return the exit code."""
        lifeline, held = os.pipe()
        for name in ENDS:
            signal.signal(name, lambda *_: self._end())
        for number in range(processes):
            self._start(number, lifeline, held)
        while self._numbers:
            pid, status = os.wait()
            if pid in self._numbers:
                number = self._numbers.pop(pid)
                self._counts.forget(number)
                if self._goes_on(pid, os.waitstatus_to_exitcode(status)):
                    self._start(number, lifeline, held)
        return self._code

    def _goes_on(self, pid: int, code: int) -> bool:
        if code == NOT_STARTED:
            self._code = code
            self._end()
        if not self._is_ending:
            log.critical(
                "api.process_ended", pid=pid, code=code, do="look at what it logged last; another one starts"
            )
            time.sleep(AGAIN_SECONDS)
        return not self._is_ending

    def _start(self, number: int, lifeline: int, held: int) -> None:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.close(held)
            self._counts.begin(number)
            self._serve(lifeline)
            raise SystemExit
        self._numbers[pid] = number
        if self._is_ending:
            os.kill(pid, signal.SIGTERM)

    def _end(self) -> None:
        self._is_ending = True
        self._listener.close()
        for pid in list(self._numbers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
