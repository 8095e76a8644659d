"""The server of the API: as uvicorn's own, but that live pages do not keep it from ending."""

import socket

import uvicorn

from api.live import LiveUpdates


class ApiServer(uvicorn.Server):
    """Ends the streams first when it is told to end: they would go on until it had waited for long enough."""

    def __init__(self, config: uvicorn.Config, live_updates: LiveUpdates) -> None:
        super().__init__(config)
        self._live_updates = live_updates

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then all else."""
        self._live_updates.shut()
        await super().shutdown(sockets)
