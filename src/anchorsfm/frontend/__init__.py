"""Front ends: what looks at the photographs and predicts, one pair at a time."""

from collections.abc import Mapping
from typing import Literal

from anchorsfm.frontend.base import Frontend, RunFrontend
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.mast3r.frontend import Mast3rFrontend
from anchorsfm.frontend.run_settings import RunSettings

FrontendName = Literal["classical", "mast3r"]
FRONTENDS: Mapping[FrontendName, type[RunFrontend]] = {"classical": ClassicalFrontend, "mast3r": Mast3rFrontend}
"""What runs under the name a user gives: each is a frozen configuration, a field of `PipelineConfig`, whose `open` does
the work."""

__all__ = [
    "FRONTENDS",
    "ClassicalFrontend",
    "Frontend",
    "FrontendName",
    "Mast3rFrontend",
    "RunFrontend",
    "RunSettings",
]
