"""AnchorSfM: photographs in, camera poses, intrinsics and 3D points out.

    import anchorsfm
    model = anchorsfm.reconstruct("photos", "out")

The pipeline reads from left to right; every stage is a module of this package::

    images -> pairing -> front end -> scene graph + canonical views -> anchors + tree -> align
           -> tracks -> triangulate -> adjust -> Reconstruction -> COLMAP model, dense cloud, report

Importing this package is silent and quick: heavy libraries load when a stage needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from anchorsfm.api.alignment import Alignment as Alignment
    from anchorsfm.api.alignment import align_coarse as align_coarse
    from anchorsfm.api.alignment import align_fine as align_fine
    from anchorsfm.api.alignment import kinematic_tree as kinematic_tree
    from anchorsfm.api.alignment import sparse_global_alignment as sparse_global_alignment
    from anchorsfm.api.condensed import CondensedScene as CondensedScene
    from anchorsfm.api.condensed import canonical_view as canonical_view
    from anchorsfm.api.condensed import condense as condense
    from anchorsfm.api.extend import extend as extend
    from anchorsfm.api.extend import merge as merge
    from anchorsfm.api.frontends import PairFrontend as PairFrontend
    from anchorsfm.api.load import load as load
    from anchorsfm.api.localise import localise as localise
    from anchorsfm.api.matches import reconstruct_matches as reconstruct_matches
    from anchorsfm.api.model import Model as Model
    from anchorsfm.api.network import Mast3r as Mast3r
    from anchorsfm.api.network import PairMatch as PairMatch
    from anchorsfm.api.network import load_mast3r as load_mast3r
    from anchorsfm.api.predictions import Predictions as Predictions
    from anchorsfm.api.predictions import as_predictions as as_predictions
    from anchorsfm.api.predictions import make_pairs as make_pairs
    from anchorsfm.api.predictions import predict_pairs as predict_pairs
    from anchorsfm.api.run import reconstruct as reconstruct
    from anchorsfm.api.triangulation import triangulate as triangulate
    from anchorsfm.frontend.base import Frontend as Frontend
    from anchorsfm.localisation.run import Localisation as Localisation
    from anchorsfm.run.config import PipelineConfig as PipelineConfig
    from anchorsfm.scene.errors import AnchorSfMError as AnchorSfMError
    from anchorsfm.scene.errors import InputError as InputError
    from anchorsfm.scene.errors import NoReconstructionError as NoReconstructionError
    from anchorsfm.scene.errors import StorageError as StorageError
    from anchorsfm.scene.images import ImageGrid as ImageGrid
    from anchorsfm.scene.images import ImageSet as ImageSet
    from anchorsfm.scene.pairs import Matches as Matches
    from anchorsfm.scene.pairs import PairList as PairList
    from anchorsfm.scene.pairs import PairPrediction as PairPrediction
    from anchorsfm.scene.pairs import PairStatus as PairStatus
    from anchorsfm.scene.pairs import Pointmaps as Pointmaps
    from anchorsfm.scene.progress import Progress as Progress

_HOMES = {
    "Alignment": "api.alignment",
    "AnchorSfMError": "scene.errors",
    "CondensedScene": "api.condensed",
    "Frontend": "frontend.base",
    "ImageGrid": "scene.images",
    "ImageSet": "scene.images",
    "InputError": "scene.errors",
    "Localisation": "localisation.run",
    "Mast3r": "api.network",
    "Matches": "scene.pairs",
    "Model": "api.model",
    "NoReconstructionError": "scene.errors",
    "PairFrontend": "api.frontends",
    "PairList": "scene.pairs",
    "PairMatch": "api.network",
    "PairPrediction": "scene.pairs",
    "PairStatus": "scene.pairs",
    "PipelineConfig": "run.config",
    "Pointmaps": "scene.pairs",
    "Predictions": "api.predictions",
    "Progress": "scene.progress",
    "StorageError": "scene.errors",
    "align_coarse": "api.alignment",
    "align_fine": "api.alignment",
    "as_predictions": "api.predictions",
    "canonical_view": "api.condensed",
    "condense": "api.condensed",
    "extend": "api.extend",
    "kinematic_tree": "api.alignment",
    "load": "api.load",
    "load_mast3r": "api.network",
    "localise": "api.localise",
    "merge": "api.extend",
    "make_pairs": "api.predictions",
    "predict_pairs": "api.predictions",
    "reconstruct": "api.run",
    "reconstruct_matches": "api.matches",
    "sparse_global_alignment": "api.alignment",
    "triangulate": "api.triangulation",
}
"""Where each public name is defined: it is imported when it is first asked for."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
