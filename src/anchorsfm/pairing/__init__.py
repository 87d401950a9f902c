"""Scene graphs: which pairs of images to look at."""

from anchorsfm.pairing.config import SceneGraphConfig, parse_prefilter, parse_scene_graph
from anchorsfm.pairing.make import make_pairs

__all__ = ["SceneGraphConfig", "make_pairs", "parse_prefilter", "parse_scene_graph"]
