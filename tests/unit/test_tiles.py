"""Tiles: a tree that grows in any steps has the hashes of the whole tree at every edge and in every tile."""

import pytest

from lockbox.audit.log import merkle
from lockbox.audit.log.merkle import WIDTH, Edge, leaf_hash, root_of
from tests.each import each

MANY = [leaf_hash(str(number).encode()) for number in range(2 * WIDTH + 3)]
SIZES = (0, 1, 3, WIDTH - 1, WIDTH, WIDTH + 1, 2 * WIDTH, 2 * WIDTH + 3)


@each("first", SIZES)
@each("then", SIZES)
def test_a_tile_tree_grown_in_two_steps_has_the_same_root_as_one_built_at_once(first: int, then: int) -> None:
    grown = Edge(0, {})
    grown.extend(MANY[:first])
    kept = {place: grown.tiles[place] for place in merkle.edge(first)}

    edge = Edge(first, dict(kept))
    edge.extend(MANY[first : first + then])

    size = len(MANY[: first + then])
    assert edge.size == size
    assert edge.root == root_of(MANY[:size])
    assert edge.changed <= set(edge.tiles)
    assert {place for place in edge.tiles if edge.tiles[place] != kept.get(place)} == edge.changed


def test_each_tile_holds_the_subtree_hashes_of_its_level() -> None:
    edge = Edge(0, {})

    edge.extend(MANY)

    assert set(edge.tiles) == {(0, 0), (0, 1), (0, 2), (1, 0)}
    assert merkle.split(edge.tiles[0, 1]) == MANY[WIDTH : 2 * WIDTH]
    assert merkle.split(edge.tiles[0, 2]) == MANY[2 * WIDTH :]
    assert merkle.split(edge.tiles[1, 0]) == [root_of(MANY[:WIDTH]), root_of(MANY[WIDTH : 2 * WIDTH])]


@pytest.mark.parametrize(
    ("size", "places"),
    [
        (0, []),
        (1, [(0, 0)]),
        (WIDTH - 1, [(0, 0)]),
        (WIDTH, [(1, 0)]),
        (WIDTH + 1, [(0, 1), (1, 0)]),
        (WIDTH**2, [(2, 0)]),
        (WIDTH**2 + 5 * WIDTH + 7, [(0, 261), (1, 1), (2, 0)]),
    ],
)
def test_the_edge_of_a_tile_tree_consists_of_its_partial_tiles(size: int, places: list[tuple[int, int]]) -> None:
    assert merkle.edge(size) == places


@pytest.mark.parametrize(
    ("level", "number", "tile"),
    [(0, 0, (0, 0)), (0, 300, (0, 1)), (3, 32, (0, 1)), (7, 1, (0, 0)), (8, 5, (1, 0)), (9, 200, (1, 1))],
)
def test_a_subtree_hash_is_computed_from_the_tile_that_contains_its_leaves(
    level: int, number: int, tile: tuple[int, int]
) -> None:
    assert merkle.of_subtree(level, number) == tile


@each("level", range(9))
def test_a_subtree_hash_is_the_root_of_its_leaves(level: int) -> None:
    edge = Edge(0, {})
    edge.extend(MANY)

    for number in range(2 * WIDTH >> level):
        leaves = MANY[number << level : (number + 1) << level]
        assert merkle.subtree(edge.tiles, level, number) == root_of(leaves)
