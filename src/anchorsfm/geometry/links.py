"""Things that links connect: groups of them, directly or through others, and an order that follows the links."""

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee


def connected_groups(num_nodes: int, links: Int[np.ndarray, "link 2"]) -> Int[np.ndarray, "node"]:
    """Number of the group of every node, counted from 0; a node without links is a group of its own."""
    graph = coo_array((np.ones(len(links), bool), tuple(links.T)), shape=(num_nodes, num_nodes))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def near_each_other(num_nodes: int, links: Int[np.ndarray, "link 2"]) -> Int[np.ndarray, "node"]:
    """The nodes in an order in which linked ones are near each other (Cuthill and McKee, "Reducing the bandwidth of
    sparse symmetric matrices", ACM 1969)."""
    graph = csr_array((np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), (num_nodes, num_nodes))
    return reverse_cuthill_mckee(csr_array(graph + graph.T), symmetric_mode=True).astype(np.int64)
