"""The pair networks MASt3R and DUSt3R."""

from anchorsfm.networks.mast3r.architecture import (
    Architecture,
    DptWidths,
    architecture_from_arguments,
    architecture_from_shapes,
)
from anchorsfm.networks.mast3r.constructor_text import parse_constructor
from anchorsfm.networks.mast3r.heads import DecodedView, ViewPrediction
from anchorsfm.networks.mast3r.loading import build_network, check_shapes, empty_network, parameter_shapes
from anchorsfm.networks.mast3r.network import EncodedImages, PairNetwork, PairOutput, SymmetricOutput

__all__ = [
    "Architecture",
    "DecodedView",
    "DptWidths",
    "EncodedImages",
    "PairNetwork",
    "PairOutput",
    "SymmetricOutput",
    "ViewPrediction",
    "architecture_from_arguments",
    "architecture_from_shapes",
    "build_network",
    "check_shapes",
    "empty_network",
    "parameter_shapes",
    "parse_constructor",
]
