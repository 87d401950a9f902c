"""Which pairs of images to look at (docs/method.md, Pairing)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.pairing.config import (
    Auto,
    Complete,
    FromFile,
    LogWindow,
    OneReference,
    Prefilter,
    Retrieval,
    SceneGraphConfig,
    Window,
    parse_prefilter,
    parse_scene_graph,
)
from anchorsfm.pairing.graphs import (
    auto_edges,
    complete_edges,
    keep_near,
    one_reference_edges,
    retrieval_edges,
    window_edges,
)
from anchorsfm.pairing.pairs_file import read_pairs
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.pairs import PairList

_NO_SIMILARITY = "retrieval needs the similarity of all images; use auto, complete, swin-K or pairs:FILE"


def make_pairs(
    num_images: int,
    scene_graph: str | SceneGraphConfig,
    *,
    names: Sequence[str] = (),
    prefilter: str | Prefilter | None = None,
    similarity: Float[np.ndarray, "image image"] | None = None,
    seed: int = 0,
) -> PairList:
    """Every unordered pair of the scene graph once, i < j, sorted; no image is paired with itself.

    `names` are the image names that a list of pairs may use; `similarity` (larger is more alike) is needed by
    `Retrieval`; `seed` picks its first key image and the random links of `Auto`.

    Raises InputError if the graph does not fit the images.
    """
    edges = make_edges(num_images, scene_graph, names=names, prefilter=prefilter, similarity=similarity, seed=seed)
    ordered = np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1)
    return PairList(index=np.unique(ordered, axis=0).reshape(-1, 2))


def check_scene_graph(text: str) -> None:
    """Raise InputError where a scene graph needs what is not there, before any image is read."""
    config = parse_scene_graph(text)
    if isinstance(config, FromFile) and not config.path.is_file():
        raise InputError(f"cannot read the list of pairs {config.path}: there is no such file")


def make_edges(
    num_images: int,
    scene_graph: str | SceneGraphConfig,
    *,
    names: Sequence[str] = (),
    prefilter: str | Prefilter | None = None,
    similarity: Float[np.ndarray, "image image"] | None = None,
    seed: int = 0,
) -> Int[np.ndarray, "pair 2"]:
    """The edges as the graph's definition gives them: unsorted, with repetitions, and with pairs (i, i) where a cyclic
    window goes around a small set (other implementations process such pairs; nothing is learnt from them)."""
    config = parse_scene_graph(scene_graph) if isinstance(scene_graph, str) else scene_graph
    if isinstance(config, Auto) and similarity is not None and num_images > config.max_complete:
        config = Retrieval()
    edges = _edges(num_images, config, names, similarity, seed)
    if prefilter is None:
        return edges
    return keep_near(edges, num_images, parse_prefilter(prefilter) if isinstance(prefilter, str) else prefilter)


def _edges(
    num_images: int, config: SceneGraphConfig, names: Sequence[str], similarity: np.ndarray | None, seed: int
) -> Int[np.ndarray, "pair 2"]:
    match config:
        case Complete():
            return complete_edges(num_images)
        case Window() | LogWindow():
            return window_edges(num_images, config)
        case OneReference(reference=reference):
            if reference >= num_images:
                raise InputError(f"oneref-{reference}: there are only {num_images} images (counted from 0)")
            return one_reference_edges(num_images, reference)
        case Retrieval():
            if similarity is None or similarity.shape != (num_images, num_images):
                raise InputError(_NO_SIMILARITY)
            return retrieval_edges(similarity, config, int(np.random.default_rng(seed).integers(num_images)))
        case FromFile(path=path):
            return read_pairs(path, num_images, names)
        case Auto():
            return auto_edges(num_images, config, seed)
