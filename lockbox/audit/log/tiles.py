"""Tiles: a tree's hashes in runs of 256, eight levels at a time (after C2SP's tlog-tiles); pure.

The tile of level L with number N holds the hashes of the complete subtrees of 256^L leaves with the numbers from
256 · N on; the last tile of a level may be partial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from lockbox.audit.log.merkle import HASH_BYTES, range_hash, root_of

WIDTH_BITS = 8
WIDTH = 1 << WIDTH_BITS

Place = tuple[int, int]
"""Level and number of a tile."""


def of_subtree(level: int, number: int) -> Place:
    """Return the tile that the hash of a complete subtree is computed from."""
    tile_level, within = divmod(level, WIDTH_BITS)
    return tile_level, (number << within) >> WIDTH_BITS


def subtree(tiles: Mapping[Place, bytes], level: int, number: int) -> bytes:
    """Return the hash of a complete subtree, from its tile.

    Raises:
        KeyError: the tile is not there.
    """
    within = level % WIDTH_BITS
    hashes = tiles[of_subtree(level, number)]
    first = (number << within) % WIDTH * HASH_BYTES
    return root_of(split(hashes[first : first + (HASH_BYTES << within)]))


def split(hashes: bytes) -> list[bytes]:
    """Return the hashes of a tile one by one."""
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]


def edge(size: int) -> list[Place]:
    """Return the partial tiles of a tree of that size, which grow with it, and those that its peaks are in."""
    places = []
    level = 0
    while size:
        if size % WIDTH:
            places.append((level, size // WIDTH))
        size //= WIDTH
        level += 1
    return places


@dataclass
class Edge:
    """The growing edge of a tree; `tiles` are its partial ones, and all that change as it grows."""

    size: int
    tiles: dict[Place, bytes]
    changed: set[Place] = field(default_factory=set)

    @property
    def root(self) -> bytes:
        """The root of the tree as it is now: its peaks are all in partial tiles, or just filled."""
        return range_hash(partial(subtree, self.tiles), 0, self.size)

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Append the hashes of further leaves."""
        self._fill(0, self.size, leaves)
        self.size += len(leaves)

    def _fill(self, level: int, count: int, hashes: Sequence[bytes]) -> None:
        """Put hashes behind the `count` that a level holds, and the roots of full tiles onto the next level."""
        full = []
        done = 0
        while done < len(hashes):
            place = (level, (count + done) // WIDTH)
            room = WIDTH - (count + done) % WIDTH
            part = hashes[done : done + room]
            self.tiles[place] = self.tiles.get(place, b"") + b"".join(part)
            self.changed.add(place)
            done += len(part)
            if len(part) == room:
                full.append(root_of(split(self.tiles[place])))
        if full:
            self._fill(level + 1, count // WIDTH, full)
