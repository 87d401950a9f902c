"""Front end without a network: features, two-view geometry and stereo (method: Part C)."""

from anchorsfm.frontend.classical.frontend import ClassicalFrontend

__all__ = ["ClassicalFrontend"]
