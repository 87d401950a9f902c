"""Small groups of points that hang in space by themselves.

Points are put into cells four times their own; cells that touch, and cells of the next coarser level that contain them,
are connected. Groups of few points are specks.
"""

import itertools

import numpy as np
from jaxtyping import Int, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from anchorsfm.dense.cells import FusedCloud

WIDER = 4
"""Side of the cells, in those of the points."""
MIN_POINTS = 80
MIN_SHARE = 0.01
"""Small clouds: groups with less than this share of the points are specks."""


def without_specks(cloud: FusedCloud) -> FusedCloud:
    """The cloud without groups of fewer than `MIN_POINTS` points."""
    if not len(cloud.xyz):
        return cloud
    label = connected_groups(cloud)
    size = np.bincount(label)
    return cloud.rows(size[label] >= min(MIN_POINTS, MIN_SHARE * len(label)))


def connected_groups(cloud: FusedCloud) -> Int[np.ndarray, "point"]:
    """Group of every point."""
    level = np.rint(np.log2(cloud.cell)).astype(np.int64)
    side = WIDER * cloud.cell.astype(np.float64)[:, None]
    cell = np.floor((cloud.xyz - cloud.xyz.mean(axis=0)) / side).astype(np.int64)
    every = np.column_stack([level, cell])
    code, first, node = np.unique(_number(every), return_index=True, return_inverse=True)
    nodes = every[first]
    edges = [_edges(code, nodes + step) for step in _half_of_the_neighbours()]
    parents = np.column_stack([nodes[:, 0] + 1, nodes[:, 1:] // 2])
    edges += [_edges(code, parents + step) for step in _all_neighbours()]
    a, b = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(nodes), len(nodes)))
    return np.asarray(connected_components(graph, directed=False)[1][node.reshape(-1)], np.int64)


def _half_of_the_neighbours() -> list[Int[np.ndarray, "4"]]:
    steps = itertools.product((-1, 0, 1), repeat=3)
    return [np.array([0, *step]) for step in steps if step > (0, 0, 0)]


def _all_neighbours() -> list[Int[np.ndarray, "4"]]:
    return [np.array([0, *step]) for step in itertools.product((-1, 0, 1), repeat=3)]


def _edges(code: Int64[np.ndarray, "node"], wanted: Int[np.ndarray, "node 4"]) -> Int[np.ndarray, "2 edge"]:
    """Pairs (node, node that the row of `wanted` names) of those that exist."""
    sought = _number(wanted)
    place = np.minimum(np.searchsorted(code, sought), len(code) - 1)
    found = np.flatnonzero(code[place] == sought)
    return np.stack([found, place[found]])


def _number(rows: Int[np.ndarray, "row 4"]) -> Int64[np.ndarray, "row"]:
    """Rows as single numbers: a linear form modulo 2^64, with factors for which near rows differ."""
    return (rows * _FACTORS).sum(axis=1)


_FACTORS = np.array([0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB, 0x2545F4914F6CDD1D], np.int64)
