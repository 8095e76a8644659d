"""Merkle tree roots and proofs of RFC 6962 section 2 and RFC 9162; pure.

No tree is held in memory: callers pass a `Subtree` function that returns the hash of any complete subtree.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
Subtree = Callable[[int, int], bytes]
"""The hash of the complete subtree of 2^level leaves with this number at its level: (level, number) → 32 bytes."""
WIDTH_BITS = 8
WIDTH = 1 << WIDTH_BITS
Place = tuple[int, int]
"""Level and number of a tile."""


class BadProof(Exception):  # noqa: N818 - it names what was found
    pass


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactRange:
    """The root of a growing tree, computed from the hashes of its complete subtrees (at most log2 of its size)."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if len(peaks) != size.bit_count():
            raise ValueError("a tree has one peak for each bit of its size")
        self.size = size
        self._peaks = list(peaks)

    def add(self, hashed: bytes, level: int = 0) -> None:
        """Append the hash of one leaf, or of a complete subtree of 2^level leaves."""
        if self.size & (1 << level) - 1:
            raise ValueError(f"no complete subtree of 2^{level} leaves begins at {self.size}")
        self._peaks.append(hashed)
        full = self.size >> level
        while full & 1:
            right = self._peaks.pop()
            self._peaks[-1] = node_hash(self._peaks[-1], right)
            full >>= 1
        self.size += 1 << level

    @property
    def root(self) -> bytes:
        if not self._peaks:
            return EMPTY_ROOT
        *rest, root = self._peaks
        for peak in reversed(rest):
            root = node_hash(peak, root)
        return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    row = list(leaves)
    while len(row) > 1:
        # A node without a sibling moves up unchanged, as the split at the largest power of two requires.
        alone = row[-1:] if len(row) % 2 else []
        row = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=False)] + alone
    return row[0] if row else EMPTY_ROOT


def range_hash(subtree: Subtree, start: int, end: int) -> bytes:
    """Return the hash of the node above the leaves from `start` to before `end`."""
    if start == end:
        return EMPTY_ROOT
    parts = [subtree(level, number) for level, number in complete(start, end)]
    *rest, hashed = parts
    for part in reversed(rest):
        hashed = node_hash(part, hashed)
    return hashed


def complete(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the complete subtrees, as (level, number), of the leaves from `start` to before `end`.

    `start` must be a multiple of the largest power of two that is at most `end - start`.
    """
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def inclusion(subtree: Subtree, index: int, size: int) -> list[bytes]:
    """Return the audit path of a leaf (RFC 6962 section 2.1.1), the lowest node first."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has none with the index {index}")
    path = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_hash(subtree, middle, end))
            end = middle
        else:
            path.append(range_hash(subtree, start, middle))
            start = middle
    return path[::-1]


def consistency(subtree: Subtree, old: int, new: int) -> list[bytes]:
    """Return the proof that the tree of size `new` extends the tree of size `old` (RFC 6962 section 2.1.2)."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not extend one of {old}")
    if old in {0, new}:
        return []
    path: list[bytes] = []
    start, end = 0, new
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(range_hash(subtree, middle, end))
            end = middle
        else:
            path.append(range_hash(subtree, start, middle))
            start = middle
    if start:
        path.append(range_hash(subtree, start, end))
    return path[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check an audit path (RFC 9162 section 2.1.3.2); raises BadProof."""
    if not 0 <= index < size:
        raise BadProof("the leaf is not in a tree of that size")
    hashed = leaf
    for node, is_left in _sides(index, size - 1, path):
        hashed = node_hash(node, hashed) if is_left else node_hash(hashed, node)
    if hashed != root:
        raise BadProof("the path does not lead to the root")


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that the new tree extends the old one (RFC 9162 section 2.1.4.2); raises BadProof."""
    if not 0 <= old <= new:
        raise BadProof("the older tree is the larger one")
    if old in {0, new}:
        if path or (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY_ROOT):
            raise BadProof("trees of these sizes differ")
        return
    nodes = list(path) if old & (old - 1) else [old_root, *path]
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    older = newer = nodes[0] if nodes else b""
    for node, is_left in _sides(number, last, nodes[1:]):
        older = node_hash(node, older) if is_left else older
        newer = node_hash(node, newer) if is_left else node_hash(newer, node)
    if older != old_root or newer != new_root:
        raise BadProof("the newer tree does not extend the older one")


def _sides(number: int, last: int, path: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each node of a path, and whether it is a left sibling; `last` is the index of the tree's last leaf."""
    for node in path:
        if last == 0:
            raise BadProof("the path is too long")
        is_left = bool(number & 1) or number == last
        yield node, is_left
        while is_left and number and not number & 1:
            number, last = number >> 1, last >> 1
        number, last = number >> 1, last >> 1
    if last:
        raise BadProof("the path is too short")


def _split(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


def of_subtree(level: int, number: int) -> Place:
    tile_level, within = divmod(level, WIDTH_BITS)
    return tile_level, (number << within) >> WIDTH_BITS


def subtree(tiles: Mapping[Place, bytes], level: int, number: int) -> bytes:
    """Return the hash of a complete subtree, computed from its tile; raises KeyError if the tile is missing."""
    within = level % WIDTH_BITS
    hashes = tiles[of_subtree(level, number)]
    first = (number << within) % WIDTH * HASH_BYTES
    return root_of(split(hashes[first : first + (HASH_BYTES << within)]))


def split(hashes: bytes) -> list[bytes]:
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]


def edge(size: int) -> list[Place]:
    """Return the partial tiles of a tree; these tiles hold the tree's peaks and change as it grows."""
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
    """`tiles` holds the tree's partial tiles, and all tiles that have changed while the tree grew."""

    size: int
    tiles: dict[Place, bytes]
    changed: set[Place] = field(default_factory=set)

    @property
    def root(self) -> bytes:
        return range_hash(partial(subtree, self.tiles), 0, self.size)

    def extend(self, leaves: Sequence[bytes]) -> None:
        self._fill(0, self.size, leaves)
        self.size += len(leaves)

    def _fill(self, level: int, count: int, hashes: Sequence[bytes]) -> None:
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
