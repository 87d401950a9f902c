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
    from anchorsfm.api.frontends import PairFrontend as PairFrontend
    from anchorsfm.api.load import load as load
    from anchorsfm.api.model import Model as Model
    from anchorsfm.api.run import reconstruct as reconstruct
    from anchorsfm.frontend.base import Frontend as Frontend
    from anchorsfm.pipeline import PipelineConfig as PipelineConfig
    from anchorsfm.scene.errors import AnchorSfMError as AnchorSfMError
    from anchorsfm.scene.errors import InputError as InputError
    from anchorsfm.scene.errors import NoReconstructionError as NoReconstructionError
    from anchorsfm.scene.errors import StorageError as StorageError
    from anchorsfm.scene.progress import Progress as Progress

_HOMES = {
    "AnchorSfMError": "scene.errors",
    "Frontend": "frontend.base",
    "InputError": "scene.errors",
    "Model": "api.model",
    "NoReconstructionError": "scene.errors",
    "PairFrontend": "api.frontends",
    "PipelineConfig": "pipeline",
    "Progress": "scene.progress",
    "StorageError": "scene.errors",
    "load": "api.load",
    "reconstruct": "api.run",
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
