"""Front ends: what looks at the photographs and predicts, one pair at a time."""

from collections.abc import Mapping

from anchorsfm.frontend.base import Frontend
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.mast3r.frontend import Mast3rFrontend

FRONTENDS: Mapping[str, type[Frontend]] = {"classical": ClassicalFrontend, "mast3r": Mast3rFrontend}
"""Every front end by the name a user gives; each is a frozen configuration whose `open` does the work."""

__all__ = ["FRONTENDS", "ClassicalFrontend", "Frontend", "Mast3rFrontend"]
