"""Count what each client has open, over all processes of one server."""

import hashlib
import mmap
import os
from collections.abc import Iterator

CELLS = 1 << 16
HASHES = 4
CELL_BYTES = 4


class ClientCounts:
    """How often something is held by each client, in memory that the processes of one server share.

    It holds hashes under a key of its own, no names. Each process writes a row of its own and reads all, so none
    waits for another. A count is never too low. It is too high where all four cells of a client are taken by others
    too: with 10,000 clients at once for four of them.
    """

    def __init__(self, processes: int = 1) -> None:
        memory = mmap.mmap(-1, processes * HASHES * CELLS * CELL_BYTES)
        self._cells = memoryview(memory).cast("I")
        self._processes = processes
        self._own = 0
        self._key = os.urandom(32)

    def begin(self, process: int) -> None:
        """Call it in the process itself, after the fork."""
        self._own = process
        self.forget(process)

    def forget(self, process: int) -> None:
        """Give back all that an ended process held."""
        size = HASHES * CELLS
        first = process * size
        self._cells[first : first + size] = memoryview(bytes(size * CELL_BYTES)).cast("I")

    def take(self, client: str, most: int) -> bool:
        """Hold one more if all processes then hold at most `most`; return whether it is held.

        Of two processes that take the last one at once, neither may get it.
        """
        self._add(client, 1)
        if self.held(client) <= most:
            return True
        self._add(client, -1)
        return False

    def give_back(self, client: str) -> None:
        """Call it once for each that was held."""
        self._add(client, -1)

    def held(self, client: str) -> int:
        """By all processes together."""
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
