"""The kinematic tree: poses are chained along well matching pairs (docs/method.md, Kinematic tree).

Unconfirmed pairs (see `pairing.consistency`) are used only between images that confirmed ones do not connect.

`mst` is the maximum spanning tree of the pair scores. `hclust-<linkage>` clusters the images hierarchically by
distance 1 - p with p = min(1, score / (3 min(blocks_i, blocks_j))), 2 where there is no pair; each merge joins the
representatives of the two clusters, and the one with the larger total p represents the merged cluster from then on.

The root is a centre of the tree: with r1 the breadth-first visiting order from a far node and r2 that from the node
furthest from it, the root maximises min(r1, r2).
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import linkage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial.distance import squareform

from anchorsfm.observe.config import KINEMATIC_MODES, LINKAGES, Linkage
from anchorsfm.observe.graph import believed_scores
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.graph import Anchors, KinematicTree, SceneGraph


def build_tree(
    graph: SceneGraph, anchors: Anchors, mode: str = "hclust-ward", *, allow_unmatched_edges: bool = False
) -> KinematicTree:
    """The kinematic tree of a connected scene graph."""
    return tree_of_scores(
        believed_scores(graph), np.diff(anchors.start), mode, allow_unmatched_edges=allow_unmatched_edges
    )


def tree_of_scores(
    score: Float[np.ndarray, "image image"],
    num_blocks: Int[np.ndarray, "image"],
    mode: str = "hclust-ward",
    *,
    allow_unmatched_edges: bool = False,
) -> KinematicTree:
    """The kinematic tree of symmetric pair scores (numbers of correspondences).

    allow_unmatched_edges: let hierarchical clustering chain images that share no match, as the original method does.
        Such an edge carries no evidence about the relative pose. For comparisons only.

    Raises InputError for an unknown mode, ValueError if the images are not connected by matches: split the scene first.
    """
    if mode not in KINEMATIC_MODES:
        raise InputError(f"unknown kinematic mode {mode!r}: choose one of {', '.join(KINEMATIC_MODES)}")
    if len(score) == 1:
        return KinematicTree(root=0, parent=np.array([-1]), order=np.array([0]))
    tolerates_pieces = allow_unmatched_edges and mode != "mst"
    if not tolerates_pieces and connected_components(csr_array(score), directed=False)[0] > 1:
        raise ValueError("the scene graph is in several pieces: align each connected component by itself")
    if mode == "mst":
        edges = _spanning_edges(score)
    else:
        method = LINKAGES[KINEMATIC_MODES.index(mode) - 1]
        edges = _cluster_edges(score, num_blocks, method, allow_unmatched_edges)
    return _rooted(edges, len(score))


def _spanning_edges(score: Float[np.ndarray, "image image"]) -> Int[np.ndarray, "edge 2"]:
    return np.stack(minimum_spanning_tree(csr_array(-score)).nonzero(), axis=1).astype(np.int64)


def _cluster_edges(
    score: Float[np.ndarray, "image image"],
    num_blocks: Int[np.ndarray, "image"],
    method: Linkage,
    allow_unmatched: bool,
) -> Int[np.ndarray, "edge 2"]:
    similarity = np.minimum(score / (3 * np.minimum.outer(num_blocks, num_blocks)), 1.0)
    np.fill_diagonal(similarity, 1.0)
    distance = np.where(similarity == 0, 2.0, 1 - similarity)
    merges = linkage(squareform(distance, checks=False), method=method)
    num_images = len(score)
    members: list[list[int]] = [[k] for k in range(num_images)]
    representative = list(range(num_images))
    edges: list[tuple[int, int]] = []
    for first, second in merges[:, :2].astype(int):
        a, b = representative[first], representative[second]
        edge = (a, b) if allow_unmatched or score[a, b] > 0 else _best_edge(score, members[first], members[second])
        if edge is not None:
            edges.append(edge)
        kept = a if similarity[a].sum() > similarity[b].sum() else b
        # only the row of the representative is updated: it holds the best score of its cluster with every image
        similarity[kept] = np.maximum(similarity[a], similarity[b])
        representative.append(kept)
        members.append(members[first] + members[second])
    if len(edges) < num_images - 1:
        edges += _joining_edges(score, edges)
    return np.sort(np.array(edges, np.int64), axis=1)


def _best_edge(score: Float[np.ndarray, "image image"], first: list[int], second: list[int]) -> tuple[int, int] | None:
    """The best matching pair between two clusters, if any."""
    block = score[np.ix_(first, second)]
    row, col = np.unravel_index(int(block.argmax()), block.shape)
    return (first[row], second[col]) if block[row, col] > 0 else None


def _joining_edges(score: Float[np.ndarray, "image image"], edges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Best scoring pairs that join the pieces left by merges of clusters without a common match (Kruskal)."""
    piece = connected_components(_adjacency(np.array(edges, np.int64).reshape(-1, 2), len(score)), directed=False)[1]
    i, j = np.nonzero(np.triu(score, 1))
    joining = []
    for k in np.argsort(-score[i, j], kind="stable"):
        a, b = int(i[k]), int(j[k])
        if piece[a] != piece[b]:
            piece[piece == piece[b]] = piece[a]
            joining.append((a, b))
    return joining


def _adjacency(edges: Int[np.ndarray, "edge 2"], num_images: int) -> csr_array:
    """Each edge in one orientation only: scipy's traversals visit a node's forward edges before its backward ones."""
    row, col = edges.T
    return csr_array((np.ones(len(edges)), (row, col)), shape=(num_images, num_images))


def _rooted(edges: Int[np.ndarray, "edge 2"], num_images: int) -> KinematicTree:
    """Orient a tree from its centre."""
    assert len(edges) == num_images - 1, "the edges are not a spanning tree"
    adjacency = _adjacency(edges, num_images)
    rank = _visiting_rank(adjacency, 0)
    far = _visiting_rank(adjacency, int(rank.argmax()))
    opposite = _visiting_rank(adjacency, int(far.argmax()))
    root = int(np.minimum(far, opposite).argmax())
    order, predecessor = breadth_first_order(adjacency, root, directed=False)
    parent = np.where(np.arange(num_images) == root, -1, predecessor).astype(np.int64)
    return KinematicTree(root=root, parent=parent, order=order.astype(np.int64))


def _visiting_rank(adjacency: csr_array, start: int) -> Int[np.ndarray, "image"]:
    order = breadth_first_order(adjacency, start, directed=False)[0]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
