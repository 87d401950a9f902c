"""Scene graphs a user can ask for, and the strings that name them.

complete             every pair
swin-K               each image with the next K in order, around the end unless -noncyclic is appended (default 3)
logwin-K             each image with those 1, 2, 4 ... 2^(K-1) further on, likewise (default 3)
oneref-I             image I (counted from 0) with all others (default 0)
retrieval-A-K        by similarity: A key images with each other, every other image with its nearest key image, and
                     each image with the K - 1 most similar others (default 20, 10)
pairs:FILE           the pairs a file lists
auto                 complete for few images; of many, pairs that are found by looking, linear in their number
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from anchorsfm.scene.errors import InputError
from anchorsfm.scene.settings import Range, Settings

_Count = Annotated[int, Range(0, 999_999_999)]


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(Settings):
    """Which of the pairs that match are believed: relative rotations must close around every cycle of pairs."""

    enabled: bool = True
    """Compare the relative rotations of all pairs, and leave out pairs that contradict better confirmed ones."""
    agreement_deg: Annotated[float, Range(0.1, 60)] = 5.0
    """Relative rotations agree within this angle in degrees; more, where those of most pairs are less exact."""
    max_disagreement_deg: Annotated[float, Range(0.1, 180)] = 15.0
    """Angle in degrees to the rotations of the other pairs from which a pair contradicts them."""
    min_bridge_matches: Annotated[int, Range(0, 1_000_000)] = 60
    """Fewest matches of a single pair that ties two groups of three and more images together; with fewer they become
    models of their own."""

    def check_together(self) -> None:
        if self.max_disagreement_deg < self.agreement_deg:
            raise self.refused("max_disagreement_deg", f"must be at least agreement_deg ({self.agreement_deg:g})")


@dataclass(frozen=True, kw_only=True)
class Complete(Settings):
    """Every pair."""


@dataclass(frozen=True, kw_only=True)
class Window(Settings):
    """Each image with its successors in order."""

    size: Annotated[int, Range(1, 999_999_999)] = 3
    """How many successors."""
    cyclic: bool = True
    """Whether the first image follows the last."""


@dataclass(frozen=True, kw_only=True)
class LogWindow(Settings):
    """Each image with those 1, 2, 4 ... places further on."""

    num_offsets: Annotated[int, Range(1, 30)] = 3
    cyclic: bool = True
    """Whether the first image follows the last."""


@dataclass(frozen=True, kw_only=True)
class OneReference(Settings):
    """One image with all others."""

    reference: _Count = 0


@dataclass(frozen=True, kw_only=True)
class Retrieval(Settings):
    """Pairs of similar images."""

    num_key: _Count = 20
    """Key images, spread over the set by farthest-point sampling, all paired with each other."""
    num_neighbours: _Count = 10
    """Most similar images each image is paired with, itself counted (its own similarity is the largest)."""


@dataclass(frozen=True, kw_only=True)
class FromFile(Settings):
    """The pairs that a file lists."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class Auto(Settings):
    """Every pair of a small set. Of a large one, with photographs to look at, pairs that are found by looking:

    - the most similar ones and, where the order of names means something, neighbours in it;
    - then, in rounds, what the pairs that matched propose (`expansion`), until every image has enough.

    With nothing but an order, those 1, 2, 3, 4, 8, 16 and 32 places apart, and `num_random_cycles` random closed walks
    through all images, whose union is an expander: any two images are few steps apart. With nothing but a similarity
    matrix, `Retrieval` with its defaults.
    """

    max_complete: _Count = 30
    """Largest set of which every pair is looked at (435 pairs)."""
    num_similar: _Count = 10
    """Most similar images that each image is tried with first."""
    max_verified: _Count = 25
    """Verified pairs of an image from which on it asks for no more."""
    max_tried: _Count = 40
    """Pairs of an image that are tried; a few more where the graph hangs by them."""
    num_random_cycles: Annotated[int, Range(0, 1000)] = 5


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig(Settings):
    """How much a second, dearer method does."""

    pairs_per_image: Annotated[int, Range(0, 1_000_000)] = 4
    """Most pairs that an image which is badly tied to the others asks for."""
    budget: Annotated[float, Range(0, 1_000_000)] = 1.0
    """Most work in all, in pairs over the number of images; finding the keypoints of an image counts as what it costs
    beside a pair. Few images may ask for ten."""


_DIGITS = 9
"""Of a number in a scene graph's name."""
SceneGraphConfig = Complete | Window | LogWindow | OneReference | Retrieval | FromFile | Auto


@dataclass(frozen=True, kw_only=True)
class Prefilter(Settings):
    """Drops pairs more than `max_distance` apart in order: `seqN`, or `cycN` where the first follows the last."""

    max_distance: _Count
    cyclic: bool


def parse_scene_graph(text: str) -> SceneGraphConfig:
    """The config a string names.

    Raises InputError listing what can be asked for.
    """
    if text.startswith("pairs:") and len(text) > 6:
        return FromFile(path=Path(text[6:]).expanduser())
    kind, *rest = text.lower().split("-")
    cyclic = True
    if kind in ("swin", "logwin") and rest and rest[-1] in ("noncyclic", "cyclic"):
        cyclic = rest.pop() == "cyclic"
    if all(number.isdecimal() and len(number) <= _DIGITS for number in rest):
        match kind, [int(number) for number in rest]:
            case "complete", []:
                return Complete()
            case "auto", []:
                return Auto()
            case "swin", [] | [_] as size if size != [0]:
                return Window(size=size[0] if size else Window.size, cyclic=cyclic)
            case "logwin", [] | [_] as count if count != [0]:
                return LogWindow(num_offsets=count[0] if count else LogWindow.num_offsets, cyclic=cyclic)
            case "oneref", [] | [_] as reference:
                return OneReference(reference=reference[0] if reference else OneReference.reference)
            case "retrieval", []:
                return Retrieval()
            case "retrieval", [num_key, num_neighbours]:
                return Retrieval(num_key=num_key, num_neighbours=num_neighbours)
    raise InputError(
        f"unknown scene graph {text!r}: use auto, complete, swin-K, logwin-K (each also with -noncyclic), oneref-I, "
        "retrieval-A-K or pairs:FILE"
    )


def parse_prefilter(text: str) -> Prefilter:
    """The prefilter a string such as `seq5` or `cyc5` names.

    Raises InputError for others.
    """
    found = re.fullmatch(rf"(seq|cyc)-?(\d{{1,{_DIGITS}}})", text.lower())
    if not found:
        raise InputError(f"unknown prefilter {text!r}: use seqN or cycN with a number N")
    return Prefilter(max_distance=int(found[2]), cyclic=found[1] == "cyc")
