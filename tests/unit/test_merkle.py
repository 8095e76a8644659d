"""Merkle trees: the published vectors of RFC 6962's reference implementation, and every small tree."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from lockbox.audit.log import merkle
from lockbox.audit.log.merkle import BadProof, CompactRange, leaf_hash, root_of
from tests import second_verifier
from tests.each import each
from tests.examples import examples
from tests.logs import subtree_of

ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SECOND = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
NEXT_TWO = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
RIGHT_HALF = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
FIFTH = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
SEVENTH_AND_EIGHTH = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
FIFTH_AND_SIXTH = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
INCLUSION = {
    (0, 1): [],
    (0, 8): [SECOND, NEXT_TWO, RIGHT_HALF],
    (5, 8): [FIFTH, SEVENTH_AND_EIGHTH, ROOTS[4]],
    (2, 3): [ROOTS[2]],
    (1, 5): [ROOTS[1], NEXT_TWO, FIFTH],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [SECOND, NEXT_TWO, RIGHT_HALF],
    (6, 8): [FIFTH_AND_SIXTH, SEVENTH_AND_EIGHTH, ROOTS[4]],
    (2, 5): [NEXT_TWO, FIFTH],
}
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
MANY = [leaf_hash(str(number).encode()) for number in range(40)]


@each("size", range(len(ROOTS)))
def test_merkle_roots_match_the_reference(size: int) -> None:
    assert root_of(LEAVES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_merkle_audit_paths_match_the_reference(index: int, size: int) -> None:
    path = merkle.inclusion(subtree_of(LEAVES), index, size)

    assert [node.hex() for node in path] == INCLUSION[index, size]
    merkle.check_inclusion(LEAVES[index], index, size, path, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_merkle_consistency_proofs_match_the_reference(old: int, new: int) -> None:
    path = merkle.consistency(subtree_of(LEAVES), old, new)

    assert [node.hex() for node in path] == CONSISTENCY[old, new]
    merkle.check_consistency(old, new, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]), path)


@each("size", range(1, len(MANY) + 1))
def test_a_second_implementation_agrees_on_every_leaf_of_small_merkle_trees(size: int) -> None:
    root = second_verifier.tree(MANY[:size])
    assert root_of(MANY[:size]) == root

    for index in range(size):
        path = merkle.inclusion(subtree_of(MANY), index, size)

        merkle.check_inclusion(MANY[index], index, size, path, root)
        assert second_verifier.root_by_path(MANY[index], index, size, path) == root


@each("new", range(1, len(MANY) + 1))
def test_a_second_implementation_agrees_on_the_growth_of_small_merkle_trees(new: int) -> None:
    for old in range(1, new + 1):
        roots = root_of(MANY[:old]), root_of(MANY[:new])
        path = merkle.consistency(subtree_of(MANY), old, new)

        merkle.check_consistency(old, new, *roots, path)
        assert second_verifier.roots_by_proof(old, new, path, roots[0]) == roots


@pytest.mark.parametrize("size", [2, 3, 7, 8, 11])
def test_a_wrong_merkle_audit_path_proves_nothing(size: int) -> None:
    root = root_of(MANY[:size])

    for index in range(size):
        path = merkle.inclusion(subtree_of(MANY), index, size)
        for leaf, place, way in (
            (MANY[index], index, [*path, path[0]]),
            (MANY[index], index, path[:-1]),
            (MANY[index], (index + 1) % size, path),
            (MANY[index], size, path),
            (MANY[-1], index, path),
        ):
            with pytest.raises(BadProof):
                merkle.check_inclusion(leaf, place, size, way, root)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (3, 7), (4, 8), (6, 8), (7, 11)])
def test_no_proof_shows_a_rewritten_merkle_tree_as_an_extension(old: int, new: int) -> None:
    rewritten = [MANY[-1], *MANY[1:]]
    path = merkle.consistency(subtree_of(rewritten), old, new)

    for way in (path, path[:-1], [*path, path[-1]]):
        with pytest.raises(BadProof):
            merkle.check_consistency(old, new, root_of(MANY[:old]), root_of(rewritten[:new]), way)


def test_adding_a_whole_merkle_subtree_equals_adding_its_leaves() -> None:
    growing = CompactRange()

    for level, start in ((4, 0), (2, 16), (0, 20)):
        growing.add(root_of(MANY[start : start + (1 << level)]), level)

    assert (growing.size, growing.root) == (21, root_of(MANY[:21]))
    with pytest.raises(ValueError, match="no complete subtree"):
        growing.add(MANY[0], 1)


@pytest.mark.parametrize("levels", [(0, 0, 1, 2, 3), (3, 3), (4, 3, 3), (2, 1, 0, 0), (1, 1, 0, 0, 1)])
def test_adjacent_equal_merkle_subtrees_merge(levels: tuple[int, ...]) -> None:
    growing, start = CompactRange(), 0

    for level in levels:
        growing.add(root_of(MANY[start : start + (1 << level)]), level)
        start += 1 << level

        assert (growing.size, growing.root) == (start, root_of(MANY[:start]))


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(st.binary(max_size=8), max_size=300))
def test_an_independent_library_computes_the_same_merkle_roots(entries: list[bytes]) -> None:
    library = InmemoryTree(algorithm="sha256")
    growing = CompactRange()

    for entry in entries:
        library.append_entry(entry)
        growing.add(leaf_hash(entry))

        assert library.get_root() == growing.root


@each("size", range(len(MANY)))
def test_a_merkle_tree_grows_from_its_peaks_only(size: int) -> None:
    peaks = [subtree_of(MANY)(level, number) for level, number in merkle.complete(0, size)]

    growing = CompactRange(size, peaks)

    assert (growing.size, growing.root) == (size, root_of(MANY[:size]))
    growing.add(MANY[size])
    assert (growing.size, growing.root) == (size + 1, root_of(MANY[: size + 1]))


@pytest.mark.parametrize(("size", "peaks"), [(0, 1), (1, 0), (3, 1), (4, 2), (7, 2)])
def test_a_wrong_number_of_merkle_peaks_is_refused(size: int, peaks: int) -> None:
    with pytest.raises(ValueError, match=r"^a tree has one peak for each bit of its size$"):
        CompactRange(size, MANY[:peaks])


@each(("size", "level"), [(1, 1), (1, 2), (2, 2), (3, 1), (4, 3), (5, 1), (6, 2), (12, 3), (13, 2)])
def test_a_merkle_subtree_is_added_only_at_its_boundary(size: int, level: int) -> None:
    growing = CompactRange()
    for leaf in MANY[:size]:
        growing.add(leaf)

    with pytest.raises(ValueError, match=rf"^no complete subtree of 2\^{level} leaves begins at {size}$"):
        growing.add(MANY[0], level)

    assert (growing.size, growing.root) == (size, root_of(MANY[:size]))


@pytest.mark.parametrize(
    ("start", "end", "parts"),
    [
        (0, 0, []),
        (5, 5, []),
        (0, 1, [(0, 0)]),
        (0, 8, [(3, 0)]),
        (0, 7, [(2, 0), (1, 2), (0, 6)]),
        (8, 13, [(2, 2), (0, 12)]),
    ],
)
def test_a_range_of_leaves_consists_of_its_largest_complete_subtrees(
    start: int, end: int, parts: list[tuple[int, int]]
) -> None:
    assert list(merkle.complete(start, end)) == parts
    assert merkle.range_hash(subtree_of(MANY), start, end) == root_of(MANY[start:end])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (4, 3), (-1, 3)])
def test_a_missing_leaf_has_no_merkle_audit_path(index: int, size: int) -> None:
    with pytest.raises(ValueError, match=rf"^a tree of {size} leaves has none with the index {index}$"):
        merkle.inclusion(subtree_of(MANY), index, size)
    with pytest.raises(BadProof, match=r"^the leaf is not in a tree of that size$"):
        merkle.check_inclusion(MANY[0], index, size, [], MANY[0])


@pytest.mark.parametrize(("old", "new"), [(1, 0), (4, 3), (-1, 3)])
def test_a_smaller_merkle_tree_does_not_extend_a_larger_tree(old: int, new: int) -> None:
    with pytest.raises(ValueError, match=rf"^a tree of {new} leaves does not extend one of {old}$"):
        merkle.consistency(subtree_of(MANY), old, new)
    with pytest.raises(BadProof, match=r"^the older tree is the larger one$"):
        merkle.check_consistency(old, new, MANY[0], MANY[0], [])


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 1), (0, 5), (1, 1), (5, 5)])
def test_empty_and_equal_merkle_trees_need_no_proof_and_accept_none(old: int, new: int) -> None:
    roots = root_of(MANY[:old]), root_of(MANY[:new])

    assert merkle.consistency(subtree_of(MANY), old, new) == []
    merkle.check_consistency(old, new, *roots, [])

    for older, newer, path in (
        (*roots, [MANY[0]]),
        (MANY[-1], roots[1], []),
        *([(roots[0], MANY[-1], [])] if old == new else []),
    ):
        with pytest.raises(BadProof, match=r"^trees of these sizes differ$"):
            merkle.check_consistency(old, new, older, newer, path)


def test_a_new_merkle_tree_has_the_root_of_the_empty_tree() -> None:
    with pytest.raises(BadProof, match=r"^trees of these sizes differ$"):
        merkle.check_consistency(0, 0, MANY[0], MANY[0], [])


@pytest.mark.parametrize(("index", "size"), [(0, 2), (1, 3), (2, 3), (6, 7), (7, 8), (8, 11)])
def test_an_invalid_merkle_audit_path_is_reported_with_its_fault(index: int, size: int) -> None:
    root = root_of(MANY[:size])
    path = merkle.inclusion(subtree_of(MANY), index, size)

    for leaf, way, why in (
        (MANY[index], [*path, path[0]], "the path is too long"),
        (MANY[index], path[:-1], "the path is too short"),
        (MANY[-1], path, "the path does not lead to the root"),
        (MANY[index], [*path[:-1], MANY[-1]], "the path does not lead to the root"),
    ):
        with pytest.raises(BadProof, match=f"^{why}$"):
            merkle.check_inclusion(leaf, index, size, way, root)


@each(("old", "new"), [(1, 2), (2, 3), (3, 4), (3, 7), (4, 8), (6, 8), (7, 11), (8, 11)])
def test_an_invalid_merkle_consistency_proof_is_reported_with_its_fault(old: int, new: int) -> None:
    older, newer = root_of(MANY[:old]), root_of(MANY[:new])
    path = merkle.consistency(subtree_of(MANY), old, new)

    for roots, way, why in (
        ((older, newer), [*path, path[0]], "the path is too long"),
        ((older, newer), path[:-1], "the path is too short"),
        ((older, newer), [], "the path is too short"),
        ((MANY[-1], newer), path, "the newer tree does not extend the older one"),
        ((older, MANY[-1]), path, "the newer tree does not extend the older one"),
    ):
        with pytest.raises(BadProof, match=f"^{why}$"):
            merkle.check_consistency(old, new, *roots, way)
