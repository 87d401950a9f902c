"""Groups of things that links connect, directly or through others."""

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connected_groups(num_nodes: int, links: Int[np.ndarray, "link 2"]) -> Int[np.ndarray, "node"]:
    """Number of the group of every node, counted from 0; a node without links is a group of its own."""
    graph = coo_array((np.ones(len(links), bool), tuple(links.T)), shape=(num_nodes, num_nodes))
    return connected_components(graph, directed=False)[1].astype(np.int64)
