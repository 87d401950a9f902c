"""The MASt3R front end: light to import, the work is in `predictor`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anchorsfm.frontend.mast3r.config import Mast3rConfig
from anchorsfm.frontend.run_settings import RunSettings
from anchorsfm.io.store import Store
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import Progress

if TYPE_CHECKING:
    from anchorsfm.frontend.mast3r.predictor import Mast3rPredictor


@dataclass(frozen=True, kw_only=True)
class Mast3rFrontend(Mast3rConfig):
    """Predictions of a trained pair network, MASt3R or DUSt3R: needs its weights, and a GPU for more than few pairs."""

    def for_run(self, run: RunSettings) -> "Mast3rFrontend":
        """The same: the network decides by itself, and its predictions come whole."""
        return self

    def open(self, images: ImageSet, pairs: PairList, store: Store, progress: Progress) -> "Mast3rPredictor":
        """Find and check weights and device, plan the images; the network is loaded for the first prediction."""
        from anchorsfm.frontend.mast3r.predictor import open_predictor

        return open_predictor(self, images, pairs, store, progress)
