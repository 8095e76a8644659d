"""Count what each client has open (connections, streams, files), over all processes of one server."""

import hashlib
import mmap
import os
from collections.abc import Iterator

CELLS = 1 << 16
HASHES = 4
CELL_BYTES = 4


class ClientCounts:
    """How many items each client has open, in memory that the processes of one server share.

    Each client is counted in four cells, chosen by a keyed hash: the memory contains no names. Each process writes
    only its own part of the memory, so that no process waits for another. A count is never too low. It is too high
    only if other clients share all four cells: with 10,000 clients at once, about four clients are affected.
    """

    def __init__(self, processes: int = 1) -> None:
        memory = mmap.mmap(-1, processes * HASHES * CELLS * CELL_BYTES)
        self._cells = memoryview(memory).cast("I")
        self._processes = processes
        self._own = 0
        self._key = os.urandom(32)

    def begin(self, process: int) -> None:
        """Call this in the process itself, after the fork."""
        self._own = process
        self.forget(process)

    def forget(self, process: int) -> None:
        """Give back all items of a process that has ended."""
        size = HASHES * CELLS
        first = process * size
        self._cells[first : first + size] = memoryview(bytes(size * CELL_BYTES)).cast("I")

    def take(self, client: str, most: int) -> bool:
        """Count one more item, unless the client has `most` already; return whether the item was counted.

        If two processes take the last free item at the same time, it is possible that neither gets it.
        """
        self._add(client, 1)
        if self.held(client) <= most:
            return True
        self._add(client, -1)
        return False

    def give_back(self, client: str) -> None:
        """Call this once for each item that was taken."""
        self._add(client, -1)

    def held(self, client: str) -> int:
        return min(
            sum(self._cells[self._place(process, row, cell)] for process in range(self._processes))
            for row, cell in self._hashes(client)
        )

    def _add(self, client: str, number: int) -> None:
        for row, cell in self._hashes(client):
            self._cells[self._place(self._own, row, cell)] += number

    def _hashes(self, client: str) -> Iterator[tuple[int, int]]:
        digest = hashlib.blake2b(client.encode(), key=self._key, digest_size=2 * HASHES).digest()
        for row in range(HASHES):
            yield row, int.from_bytes(digest[2 * row : 2 * row + 2])

    @staticmethod
    def _place(process: int, row: int, cell: int) -> int:
        return (process * HASHES + row) * CELLS + cell
