"""A uvicorn server that ends live streams before it shuts down."""

import socket

import uvicorn

from api.live import LiveUpdates


class ApiServer(uvicorn.Server):
    """End the streams when told to stop: they would go on until the timeout."""

    def __init__(self, config: uvicorn.Config, live_updates: LiveUpdates) -> None:
        super().__init__(config)
        self._live_updates = live_updates

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything else."""
        self._live_updates.shut()
        await super().shutdown(sockets)
