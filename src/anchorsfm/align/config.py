"""Settings of the alignment."""

import re
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Annotated

import tyro.conf

from anchorsfm.observe.config import KINEMATIC_MODES
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.settings import OneOf, Parsed, Range, Settings, Threads

ADAM_SETTINGS = ("lr1", "lr2", "gamma1", "schedule", "tolerance", "patience")
"""Without effect on the second-order solver, which refuses them."""
_OF_SECOND_ORDER = ("compiled", "device")


def check_device(name: str) -> None:
    """Raise InputError for a torch device that does not exist, at all or here."""
    found = re.fullmatch(r"cpu|mps|cuda(?::(\d{1,4}))?", name)
    if not found:
        raise InputError("choose one of cpu, cuda, cuda:N, mps")
    if name == "cpu":
        return
    import torch

    there = torch.backends.mps.is_available() if name == "mps" else int(found[1] or 0) < torch.cuda.device_count()
    if not there:
        raise InputError(f"PyTorch {torch.__version__} finds no such device here; cpu is always there")


class Solver(StrEnum):
    """How the losses are minimised."""

    SECOND_ORDER = "second-order"
    """Iteratively reweighted Levenberg-Marquardt with the depths eliminated: a few steps to the minimum."""
    ADAM = "adam"
    """300 + 300 steps of gradient descent, as the original does it."""


class AnchorDepthMode(StrEnum):
    """How the relief of an image follows its distance to the focal plane."""

    ADD = "add"
    """z_cam + (core - 1) m e^s: a change of focal length moves the camera and leaves the relief."""
    MULTIPLY = "mul"
    """z_cam core: the relief is stretched with the distance."""


class Schedule(StrEnum):
    """How the learning rate falls to zero over a stage."""

    COSINE = "cosine"
    LINEAR = "linear"


class InitialPoses(StrEnum):
    """Where cameras start whose pose is not known."""

    IDENTITY = "identity"
    """All cameras look the same way at the same place."""
    PAIRS = "pairs"
    """Robust similarities between canonical points of matching pairs, chained along the best matching pairs."""


@dataclass(frozen=True, kw_only=True)
class ReferenceCompat(Settings):
    """Peculiarities of the original implementation, each off by default; on only to compare with its outputs."""

    fallback_at_matches: bool = False
    """Regress every matched pixel of an image on the target of its block, instead of each anchor once. The original
    also samples targets at block corners (--graph.corner-targets)."""
    fallback_unscaled: bool = False
    """Use the predicted points of the regression fallback at their own scale, although the image they are expressed in
    has been resized."""
    unmatched_tree_edges: bool = False
    """Let the kinematic tree chain images that share no match."""
    repeated_shared_steps: bool = False
    """Adam: step shared intrinsics once per image in every iteration, which multiplies their learning rate."""
    fixed_pixel_clip: bool = False
    """Clip projected pixels to [-1000, 2000] whatever the image size."""
    last_state: bool = False
    """Return the state of the last iteration, hand on the one after its step, and never stop early."""
    raw_units: bool = False
    """Work in the units of the front end and of known poses, on which losses and limits then depend."""
    omit_priors: bool = False
    """Leave out the priors on principal points and depths."""

    @staticmethod
    def all() -> "ReferenceCompat":
        return ReferenceCompat(
            fallback_at_matches=True,
            fallback_unscaled=True,
            unmatched_tree_edges=True,
            repeated_shared_steps=True,
            fixed_pixel_clip=True,
            last_state=True,
            raw_units=True,
            omit_priors=True,
        )


@dataclass(frozen=True, kw_only=True)
class AlignConfig(Settings):
    """Settings of the sparse global alignment. Block size and matching threshold are in `GraphConfig`."""

    solver: Solver = Solver.SECOND_ORDER
    """How the losses of the alignment are minimised. Only adam has learning rates and their schedule, an exponent of
    the coarse loss, tolerance and patience (--align.lr1, --align.lr2, --align.schedule, --align.gamma1,
    --align.tolerance, --align.patience); --align.niter1 and --align.niter2 limit the iterations of either."""
    compiled: bool = True
    """Use compiled kernels in the second-order solver where numba is installed (`pip install anchorsfm[fast]`)."""
    device: Annotated[str, Parsed(check_device), tyro.conf.Suppress] = "cpu"
    """Torch device on which the second-order solver sums over matches; compiled kernels are used on "cpu" only."""
    pp_prior: Annotated[float, Range(0, 1_000_000)] = 3.0
    """Strength k of the prior on principal points: an offset of x longer sides from the image centre costs k x^2 / 2;
    0: none."""
    depth_prior: Annotated[float, Range(0, 100)] = 0.5
    """Expected standard deviation of the front end's depths (logarithm), which keeps depths near them; 0: no prior."""
    kinematic_mode: Annotated[str, OneOf(*KINEMATIC_MODES)] = "hclust-ward"
    """Tree along which poses are chained: mst or hclust-<linkage>."""
    lr1: Annotated[float, Range(1e-8, 10)] = 0.07
    """Adam: learning rate at the start of the coarse stage (3D matching)."""
    niter1: Annotated[int, Range(0, 1_000_000)] = 300
    """Most iterations of the coarse stage of the alignment (3D matching)."""
    gamma1: Annotated[float, Range(0.1, 4)] = 1.5
    """Adam: exponent of the robust loss on distances between matched 3D points."""
    lr2: Annotated[float, Range(1e-8, 10)] = 0.01
    """Adam: learning rate at the start of the fine stage (2D reprojection)."""
    niter2: Annotated[int, Range(0, 1_000_000)] = 300
    """Most iterations of the fine stage of the alignment (2D reprojection); 0 returns the coarse result."""
    gamma2: Annotated[float, Range(0.1, 4)] = 0.5
    """Exponent of the robust loss on reprojection errors: a smaller one is more robust."""
    loss_dust3r_w: Annotated[float, Range(0, 1000)] = 0.01
    """Weight of the regression fallback, through which pairs without confident matches are used."""
    gamma_fallback: Annotated[float, Range(0.1, 4)] = 1.1
    """Exponent of the robust loss of the regression fallback."""
    opt_pp: bool = True
    """Refine principal points in the fine stage of the alignment."""
    opt_depth: bool = True
    """Refine depths of anchors in the fine stage of the alignment."""
    depth_mode: AnchorDepthMode = AnchorDepthMode.ADD
    """How the relief of an image follows a change of its focal length: add keeps it, mul stretches it with the
    distance."""
    exp_depth: bool = False
    """Take logarithms of anchor depths, instead of depths, as unknowns."""
    init_poses: InitialPoses = InitialPoses.PAIRS
    """Where cameras without a known pose start: pairs chains matching images, identity puts all at one place."""
    schedule: Schedule = Schedule.COSINE
    """Adam: how the learning rate falls to zero."""
    tolerance: Annotated[float, Range(0, 1, below=True)] = 1e-4
    """Adam: a stage ends early when its loss varied by less than this share over as many iterations as --align.patience
    says; 0: never."""
    patience: Annotated[int, Range(1, 1_000_000)] = 20
    """Adam: iterations over which the loss must stay put (see --align.tolerance) for a stage to end early."""
    double_precision: bool = False
    """Compute the alignment in float64 instead of float32."""
    num_threads: Threads = 1
    """Threads of the alignment's solver. One is nearly as fast as two, does not suffer from other work on the machine,
    and gives the same bits on machines with any number of cores."""
    reference: ReferenceCompat = field(default_factory=ReferenceCompat)
    """Peculiarities of the original implementation, for comparisons only."""

    def check_together(self) -> None:
        """A setting that the chosen solver does not have would be without effect."""
        defaults = {field.name: field.default for field in fields(self)}
        own = self.solver is Solver.SECOND_ORDER
        foreign = [
            name for name in (ADAM_SETTINGS if own else _OF_SECOND_ORDER) if getattr(self, name) != defaults[name]
        ]
        if own and self.reference.repeated_shared_steps:
            foreign.append("reference.repeated_shared_steps")
        for name in foreign:
            other = Solver.ADAM if own else Solver.SECOND_ORDER
            raise self.refused(name, f"the solver {self.solver} has no such setting: leave it out, or use {other}")
