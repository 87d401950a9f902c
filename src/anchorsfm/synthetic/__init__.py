"""Known scenes: photographs of them, and the predictions an ideal front end would make."""

from anchorsfm.synthetic.ground import GroundConfig
from anchorsfm.synthetic.oracle import OracleNoise, SyntheticFrontend, image_set
from anchorsfm.synthetic.render import render_depth, render_image, write_photographs
from anchorsfm.synthetic.scenes import LensConfig, SceneConfig, SyntheticScene, make_scene
from anchorsfm.synthetic.twins import TwinsConfig
from anchorsfm.synthetic.walk import WalkConfig

__all__ = [
    "GroundConfig",
    "LensConfig",
    "OracleNoise",
    "SceneConfig",
    "SyntheticFrontend",
    "SyntheticScene",
    "TwinsConfig",
    "WalkConfig",
    "image_set",
    "make_scene",
    "render_depth",
    "render_image",
    "write_photographs",
]
