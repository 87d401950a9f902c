"""AnchorSfM: photographs in, camera poses, intrinsics and 3D points out.

The pipeline reads from left to right; every stage is a module of this package::

    images -> pairing -> front end -> scene graph + canonical views -> anchors + tree -> align
           -> tracks -> triangulate -> adjust -> Reconstruction -> COLMAP model, dense cloud, report

Importing this package is silent and quick: heavy libraries load when a stage needs them.
"""

__version__ = "0.1.0"
