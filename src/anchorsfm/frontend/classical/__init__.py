"""Front end without a network: features, two-view geometry and stereo (docs/method.md, Classical front end)."""

from anchorsfm.frontend.classical.frontend import ClassicalFrontend

__all__ = ["ClassicalFrontend"]
