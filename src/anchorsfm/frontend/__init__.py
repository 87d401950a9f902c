"""Front ends: what looks at the photographs and predicts, one pair at a time."""

from collections.abc import Mapping

from anchorsfm.frontend.base import Frontend
from anchorsfm.frontend.classical import ClassicalFrontend

FRONTENDS: Mapping[str, type[Frontend]] = {"classical": ClassicalFrontend}
"""Every front end by the name a user gives; each is a frozen configuration whose `open` does the work."""

__all__ = ["FRONTENDS", "ClassicalFrontend", "Frontend"]
