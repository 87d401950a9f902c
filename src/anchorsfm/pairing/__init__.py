"""Scene graphs: which pairs of images to look at."""

from anchorsfm.pairing.config import SceneGraphConfig, parse_prefilter, parse_scene_graph
from anchorsfm.pairing.make import check_scene_graph, make_pairs

__all__ = ["SceneGraphConfig", "check_scene_graph", "make_pairs", "parse_prefilter", "parse_scene_graph"]
