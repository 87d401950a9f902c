"""Scene graphs, compared with a public implementation and with their definitions."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, shortest_path

from anchorsfm.pairing import make_pairs, parse_scene_graph
from anchorsfm.pairing.config import Auto, Complete, FromFile, LogWindow, OneReference, Retrieval, Window
from anchorsfm.pairing.graphs import farthest_point_sampling, retrieval_edges
from anchorsfm.pairing.make import make_edges
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.pairs import PairList


def unordered(edges: np.ndarray | list[list[int]]) -> set[tuple[int, int]]:
    return {(min(i, j), max(i, j)) for i, j in np.asarray(edges, int).reshape(-1, 2).tolist()}


def without_self(edges: set[tuple[int, int]]) -> set[tuple[int, int]]:
    return {(i, j) for i, j in edges if i != j}


def is_proper(pairs: PairList, num_images: int) -> bool:
    index = pairs.index
    distinct = len(unordered(index)) == len(index)
    return distinct and bool((index[:, 0] < index[:, 1]).all() and (index >= 0).all() and (index < num_images).all())


# ------------------------------------------------------------------------------------------------------- reference


def test_agrees_with_the_reference_in_every_case(golden: Path) -> None:
    cases = json.loads((golden / "make_pairs.json").read_text())
    count = 0
    for key, expected in cases.items():
        found = re.fullmatch(r"n=(\d+) graph=(\S+) symmetrize=(True|False) prefilter=(\S+)", key)
        if not found:
            assert key == "retrieval n=12"
            continue
        num_images, graph, symmetrised = int(found[1]), found[2], found[3] == "True"
        prefilter = None if found[4] == "None" else found[4]
        wanted = unordered(expected)
        pairs = make_pairs(num_images, graph, prefilter=prefilter)
        assert is_proper(pairs, num_images), key
        assert unordered(pairs.index) == without_self(wanted), key
        # both directions of a symmetrised list are what iterating over an unordered pair gives
        assert len(expected) == (2 if symmetrised else 1) * len(wanted), key
        edges = unordered(make_edges(num_images, graph, prefilter=prefilter))
        assert without_self(edges) == without_self(wanted), key
        if graph.startswith("swin"):  # the reference keeps pairs of an image with itself here, and only here
            assert edges == wanted, key
        count += 1
    assert count == len(cases) - 1 > 50


def test_retrieval_agrees_with_the_reference(golden: Path) -> None:
    case = json.loads((golden / "make_pairs.json").read_text())["retrieval n=12"]
    similarity = np.array(case["sim_mat"])
    for key, expected in case["cases"].items():
        num_key, num_neighbours = map(int, re.findall(r"\d+", key))
        first = expected["first_keyimage"]
        config = Retrieval(num_key=num_key, num_neighbours=num_neighbours)
        if first is not None:
            assert farthest_point_sampling(1 - similarity, num_key, first).tolist() == expected["keyimages"]
        edges = unordered(retrieval_edges(similarity, config, first or 0))
        assert without_self(edges) == unordered(expected["pairs_sorted"]), key


# -------------------------------------------------------------------------------------------------------- retrieval


def clustered_similarity(num_images: int = 40, seed: int = 0) -> np.ndarray:
    """Images on a closed loop, similar to their neighbours on it, in random order."""
    place = np.random.default_rng(seed).permutation(num_images)
    gap = np.abs(place[:, None] - place)
    return np.exp(-(np.minimum(gap, num_images - gap) ** 2) / 20.0)


def test_retrieval_is_seeded_and_needs_a_similarity() -> None:
    similarity = clustered_similarity()
    pairs = [make_pairs(40, "retrieval-8-5", similarity=similarity, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(pairs[0].index, pairs[1].index)
    assert not np.array_equal(pairs[0].index, pairs[2].index)
    assert all(is_proper(p, 40) and len(p) <= 28 + 32 + 40 * 4 for p in pairs)
    nearest = {(min(i, j), max(i, j)) for i in range(40) for j in np.argsort(-similarity[i])[1:4].tolist()}
    assert nearest <= unordered(pairs[0].index)
    with pytest.raises(InputError, match="needs the similarity"):
        make_pairs(40, "retrieval-8-5")


def test_more_key_images_than_images() -> None:
    assert len(make_pairs(6, "retrieval-20-0", similarity=clustered_similarity(6))) == 15


# ------------------------------------------------------------------------------------------------------------- auto


@pytest.mark.parametrize("num_images", [0, 1, 2, 3, 30])
def test_auto_is_complete_for_small_sets(num_images: int) -> None:
    assert len(make_pairs(num_images, "auto")) == num_images * (num_images - 1) // 2


@pytest.mark.parametrize("num_images", [31, 60, 500])
def test_auto_is_linear_and_well_connected_for_large_sets(num_images: int) -> None:
    pairs = make_pairs(num_images, "auto", seed=3)
    assert is_proper(pairs, num_images)
    assert len(pairs) <= 12 * num_images
    assert {(k, k + d) for d in (1, 2, 3, 4) for k in range(num_images - d)} <= unordered(pairs.index)
    # the random links alone, which is what an unordered set has, still form a tight graph
    far = unordered(pairs.index) - {(k, k + d) for d in (1, 2, 3, 4, 8, 16, 32) for k in range(num_images - d)}
    i, j = np.array(sorted(far)).T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(num_images, num_images)).tocsr()
    assert connected_components(graph, directed=False)[0] == 1
    assert shortest_path(graph, directed=False, unweighted=True).max() <= 6
    assert np.array_equal(pairs.index, make_pairs(num_images, "auto", seed=3).index)
    assert not np.array_equal(pairs.index, make_pairs(num_images, "auto", seed=4).index)


def test_auto_uses_a_similarity() -> None:
    similarity = clustered_similarity(100)
    expected = make_pairs(100, "retrieval", similarity=similarity)
    assert np.array_equal(make_pairs(100, "auto", similarity=similarity).index, expected.index)


# ---------------------------------------------------------------------------------------------------------- strings


@pytest.mark.parametrize(
    "text, config",
    [
        ("complete", Complete()),
        ("auto", Auto()),
        ("swin", Window(size=3)),
        ("swin-10", Window(size=10)),
        ("swin-5-noncyclic", Window(size=5, cyclic=False)),
        ("swin-noncyclic", Window(size=3, cyclic=False)),
        ("logwin-5", LogWindow(num_offsets=5)),
        ("logwin-2-noncyclic", LogWindow(num_offsets=2, cyclic=False)),
        ("oneref", OneReference(reference=0)),
        ("oneref-2", OneReference(reference=2)),
        ("retrieval-20-5", Retrieval(num_key=20, num_neighbours=5)),
        ("pairs:My Pairs.txt", FromFile(path=Path("My Pairs.txt"))),
    ],
)
def test_strings(text: str, config: object) -> None:
    assert parse_scene_graph(text) == config


@pytest.mark.parametrize(
    "text", ["", "full", "swin-x", "swin-0", "swin--1", "oneref-1-2", "retrieval-5", "pairs:", "complete-3"]
)
def test_unknown_strings(text: str) -> None:
    with pytest.raises(InputError, match=r"unknown scene graph .*: use auto, complete"):
        parse_scene_graph(text)


def test_other_errors() -> None:
    with pytest.raises(InputError, match="unknown prefilter 'near3'"):
        make_pairs(4, "complete", prefilter="near3")
    with pytest.raises(InputError, match="only 3 images"):
        make_pairs(3, "oneref-3")


@pytest.mark.parametrize("graph", ["complete", "swin-3", "swin-3-noncyclic", "logwin-4", "auto", "oneref-0"])
def test_one_image_has_no_pairs(graph: str) -> None:
    assert make_pairs(1, graph).index.shape == (0, 2)


# ------------------------------------------------------------------------------------------------------------ files

NAMES = ("a.jpg", "sub/b c.jpg", "sub/d.jpg", "e.jpg", "other/e.jpg", "7")


def test_pairs_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my pairs.txt"
    path.write_text(
        "# comment\n\na.jpg sub/d.jpg\nsub/b c.jpg a.jpg\nd.jpg\tb c.jpg\n a.jpg, other/e.jpg \n0 3\nsub/d.jpg a.jpg\n",
        encoding="utf-8",
    )
    pairs = make_pairs(6, f"pairs:{path}", names=NAMES)
    assert pairs.index.tolist() == [[0, 1], [0, 2], [0, 3], [0, 4], [1, 2]]
    (tmp_path / "indices.txt").write_text("0 2\n1,0\n")
    assert make_pairs(3, f"pairs:{tmp_path / 'indices.txt'}").index.tolist() == [[0, 1], [0, 2]]


@pytest.mark.parametrize(
    "content, pattern",
    [
        ("a.jpg", "line 1: expected two images, found 'a.jpg'"),
        ("\na.jpg x.jpg", "line 2: no image is named 'x.jpg'"),
        ("0 6", "line 1: index 6 of 6 images"),
        ("0 x", "line 1: no image is named 'x'"),
        ("-1 2", "line 1: no image is named '-1'"),
        ("a.jpg a.jpg", "line 1: an image cannot be paired with itself"),
        ("a.jpg e.jpg extra", "line 1: expected two images"),
        ("# nothing\n", "lists no pairs"),
    ],
)
def test_errors_in_files_name_the_line(tmp_path: Path, content: str, pattern: str) -> None:
    path = tmp_path / "p.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"p\.txt.*{pattern}"):
        make_pairs(6, f"pairs:{path}", names=NAMES)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the list of pairs .*gone\.txt: No such file"):
        make_pairs(6, f"pairs:{tmp_path / 'gone.txt'}")
    (tmp_path / "b.bin").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match="not a text file"):
        make_pairs(6, f"pairs:{tmp_path / 'b.bin'}")
