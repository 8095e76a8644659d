"""A uvicorn server that ends live streams before it shuts down, and ends when its parent has gone."""

import asyncio
import socket
from collections.abc import Callable, Sequence

import uvicorn

from config import traces


class ApiServer(uvicorn.Server):
    """End the streams when told to stop: they would go on until the timeout.

    `shut` are calls that end them, those of live pages and of guards. `lifeline` is a descriptor that becomes
    readable when the parent has gone; None where there is no parent.
    """

    def __init__(
        self, config: uvicorn.Config, shut: Sequence[Callable[[], None]], lifeline: int | None = None
    ) -> None:
        super().__init__(config)
        self._shut = shut
        self._lifeline = lifeline

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, and to watch the parent."""
        await super().startup(sockets)
        if self._lifeline is not None:
            asyncio.get_running_loop().add_reader(self._lifeline, self._end)

    def _end(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything else, and send the last spans: the signal ends the process after this."""
        for end in self._shut:
            end()
        await super().shutdown(sockets)
        traces.stop()
