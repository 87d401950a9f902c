"""Predictions of the network, streamed: images are encoded once, pairs are decoded in batches of equal sizes.

Bits of a prediction depend on the batch it was made in. So the pairs are divided into fixed groups, which follow from
the pair list and the batch size, and a group is always run whole, even if only one of its pairs is asked for. A group
that needs more memory than there is runs in smaller parts, then and whenever it is run again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from weakref import WeakMethod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anchorsfm.frontend.mast3r.ahead import KIND, PAIRS_AHEAD, EncodeImages, PredictGroups, decode
from anchorsfm.frontend.mast3r.config import Mast3rConfig
from anchorsfm.frontend.mast3r.devices import automatic_batch, trunk_dtype
from anchorsfm.frontend.mast3r.matching import (
    Correspondences,
    MatchingPass,
    descriptor_pass,
    extract_correspondences,
    point_pass,
)
from anchorsfm.frontend.mast3r.preparation import (
    PATCH_SIZE,
    Preparation,
    image_grid,
    load_prepared,
    plan_images,
    to_network_input,
)
from anchorsfm.frontend.mast3r.tokens import TokenCache
from anchorsfm.frontend.mast3r.weights import WeightsFile, load_network, resolve_weights
from anchorsfm.io.memory import is_out_of_memory
from anchorsfm.io.store import Store, digest
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.networks.devices import inference, release_memory, resolve_device
from anchorsfm.networks.mast3r import (
    EncodedImages,
    PairNetwork,
    PairOutput,
    SymmetricOutput,
    ViewPrediction,
    parameter_shapes,
)
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.executor import IN_PROCESS, Work
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import Matches, PairList, PairPrediction, PairStatus, Pointmaps
from anchorsfm.scene.progress import SILENT, Progress, WithinStage

_GROUPS_PER_WINDOW = 4
"""Pairs of equal sizes are looked for within this many groups' worth of rows: bounds what waits for its turn."""


def open_predictor(
    config: Mast3rConfig, images: ImageSet, pairs: PairList, store: Store, progress: Progress
) -> "Mast3rPredictor":
    """Raises InputError if weights, device or images cannot be used."""
    device = resolve_device(config.device)
    dtype = trunk_dtype(device, config.half_precision)
    weights = resolve_weights(config.weights, accept_license=config.accept_weights_license)
    if weights.architecture.patch_size != PATCH_SIZE:
        raise InputError(f"{weights.path} is for patches of {weights.architecture.patch_size} pixels, not {PATCH_SIZE}")
    plans = plan_images(images, config.image_size or weights.architecture.image_size)
    return Mast3rPredictor(
        images=images,
        pairs=pairs,
        weights=weights,
        plans=plans,
        device=device,
        dtype=dtype,
        config=config,
        store=store,
        progress=progress,
    )


def _elsewhere(
    images: ImageSet,
    pairs: PairList,
    weights: WeightsFile,
    plans: tuple[Preparation, ...],
    device: str,
    dtype: torch.dtype,
    config: Mast3rConfig,
    store: Store,
) -> "Mast3rPredictor":
    """In a worker. Raises InputError if the weights or the device are not there."""
    if not weights.path.exists():
        raise InputError(f"there are no weights {weights.path}: put them into a folder that all machines share")
    return Mast3rPredictor(
        images=images,
        pairs=pairs,
        weights=weights,
        plans=plans,
        device=resolve_device(device),
        dtype=dtype,
        config=config,
        store=store,
        progress=SILENT,
        is_elsewhere=True,
    )


class Mast3rPredictor:
    """Predictions are made as they are asked for, and not kept."""

    keeps_predictions = False
    detects_keypoints = False
    focal_px = None

    def __init__(
        self,
        *,
        images: ImageSet,
        pairs: PairList,
        weights: WeightsFile,
        plans: tuple[Preparation, ...],
        device: torch.device,
        dtype: torch.dtype,
        config: Mast3rConfig,
        store: Store,
        progress: Progress,
        is_elsewhere: bool = False,
    ) -> None:
        """`is_elsewhere`: a worker's, for a run in another process."""
        self.grid = image_grid(plans)
        self.licence: LicenceRecord | None = weights.licence
        """Under which terms the weights are used, for the report."""
        self.device = device
        self.dtype = dtype
        """Of the linear layers of encoder and decoders."""
        tokens_digest = digest("mast3r tokens", weights.digest, str(dtype))
        self.digest = digest("mast3r", tokens_digest, images.digests, plans, pairs.index, config.match_stride)
        token_bytes = config.token_memory_mib * 2**20
        self.store = store
        self._config = config
        self._images = images
        self._pairs = pairs.index
        self._weights = weights
        self._plans = plans
        self._match_stride = config.match_stride
        self._progress = progress
        self._warned = False
        self._group_size = config.batch_size or automatic_batch(
            device, _most_pixels(plans), token_bytes + _weights_bytes(weights)
        )
        self._batch_size = self._group_size
        self._batch_of_group: dict[int, int] = {}  # by its first row, where a group is more than one pair
        keys = [digest(tokens_digest, file, plan) for file, plan in zip(images.digests, plans, strict=True)]
        tokens = store if is_elsewhere or store.executor is not IN_PROCESS else store.local
        weak = WeakMethod(self._encode)

        def encoded(image: int) -> EncodedImages:
            encode = weak()
            assert encode is not None
            return encode(image)

        # without a cycle of references, so that what is on disk goes as soon as nobody uses the predictor
        self.tokens = TokenCache(encoded, keys, tokens, token_bytes, device, is_shared=is_elsewhere)

    def __reduce__(self) -> tuple[object, ...]:
        """For a worker: with the kind of device, the precision and the groups of this process."""
        weights = replace(self._weights, path=self._weights.path.absolute())
        config = replace(self._config, batch_size=self._group_size)
        pairs = PairList(index=self._pairs)
        return _elsewhere, (self._images, pairs, weights, self._plans, self.device.type, self.dtype, config, self.store)

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[PairPrediction]:
        return self.predictions(range(len(self)))

    def predictions(self, rows: Sequence[int]) -> Iterator[PairPrediction]:
        """Predictions of some rows of the pair list, ascending."""
        window_rows = _GROUPS_PER_WINDOW * self._group_size
        ahead_rows = window_rows * max(PAIRS_AHEAD // window_rows, 1)
        for _, near in groupby(rows, lambda row: row // ahead_rows):
            asked = tuple(near)
            groups: dict[int, tuple[int, ...]] = {}
            for window in dict.fromkeys(row // window_rows for row in asked):
                groups |= self._groups(range(window * window_rows, min((window + 1) * window_rows, len(self))))
            self._make_ahead(list(dict.fromkeys(groups[row] for row in asked)))
            waiting: dict[int, PairPrediction] = {}
            left = Counter(groups[row] for row in asked)
            try:
                for row in asked:
                    if row not in waiting:
                        waiting |= self._stored_group(groups[row], asked) or self.predict_group(groups[row], asked)
                    left[groups[row]] -= 1
                    yield waiting.pop(row)
            finally:  # whoever asks need not ask beyond the last one
                for group in (group for group, count in left.items() if not count):
                    self.store.remove(KIND, self.group_key(group))

    def group_key(self, group: tuple[int, ...]) -> str:
        """Identifies the predictions of a group."""
        return digest("mast3r group", self.digest, self._group_size, group)

    @cached_property
    def network(self) -> PairNetwork:
        """Loaded when it is needed: a run that continues may need no prediction any more."""
        with torch.inference_mode(False):
            network = load_network(self._weights)
            if self.dtype != torch.float32:
                network.set_trunk_dtype(self.dtype)
            try:
                return network.to(self.device)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise self._too_little_memory("the network") from error
                raise

    # ----------------------------------------------------------------------------------------------------- in groups

    def _groups(self, rows: range) -> dict[int, tuple[int, ...]]:
        """The group of every row: rows whose images have equal sizes, in order, at most a batch."""
        groups: dict[int, tuple[int, ...]] = {}
        by_size: dict[tuple[int, ...], list[int]] = {}
        for row in rows:
            by_size.setdefault(tuple(self.grid.size_wh[self._pairs[row]].ravel().tolist()), []).append(row)
        for members in by_size.values():
            for start in range(0, len(members), self._group_size):
                group = tuple(members[start : start + self._group_size])
                groups |= dict.fromkeys(group, group)
        return groups

    def _make_ahead(self, groups: list[tuple[int, ...]]) -> None:
        """Let the executor of the store predict groups, and before that encode their images."""
        if self.store.executor is IN_PROCESS:
            return
        groups = [group for group in groups if not self.store.has(KIND, self.group_key(group))]
        images = np.unique(self._pairs[[row for group in groups for row in group]]).tolist()
        progress, needs_gpu = WithinStage(self._progress), self.device.type == "cuda"

        def too_heavy(name: str) -> None:
            raise InputError(
                f"{name}: the workers that had nothing else to do died of it, probably for want of memory; what is "
                "done is kept"
            )

        encoding = Work(
            tool=EncodeImages(predictor=self),
            part=lambda rows: [images[row] for row in rows],
            is_done=lambda row: self.tokens.is_saved(images[row]),
            name=lambda row: self._images.names[images[row]],
            set_aside=lambda row: too_heavy(self._images.names[images[row]]),
            needs_gpu=needs_gpu,
        )
        self.store.fill("encoding images", encoding, len(images), progress)
        predicting = Work(
            tool=PredictGroups(predictor=self),
            part=lambda rows: [groups[row] for row in rows],
            is_done=lambda row: self.store.has(KIND, self.group_key(groups[row])),
            name=lambda row: self._pair_name(groups[row][0]),
            set_aside=lambda row: too_heavy(self._pair_name(groups[row][0])),
            needs_gpu=needs_gpu,
        )
        self.store.fill("predicting pairs", predicting, len(groups), progress)

    def _stored_group(self, group: tuple[int, ...], asked: Sequence[int]) -> dict[int, PairPrediction]:
        """Predictions of the rows that are asked for, if the group was made ahead, or none."""
        arrays = self.store.load(KIND, self.group_key(group))
        if arrays is None:
            return {}
        found = {row: one for row, one in zip(group, decode(arrays), strict=True) if row in asked}
        for row, prediction in found.items():
            if prediction.frame_i is None:
                self._warn_not_finite(row)
        return found

    def predict_group(self, group: tuple[int, ...], asked: Sequence[int]) -> dict[int, PairPrediction]:
        """Run a whole group; predictions of the rows that are asked for. Too many at once are halved."""
        while True:
            size = self._batch_of_group.get(group[0], min(self._batch_size, len(group)))
            try:
                found: dict[int, PairPrediction] = {}
                for start in range(0, len(group), size):
                    found |= self._predict_batch(group[start : start + size], asked)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise self._too_little_memory(self._pair_name(group[0])) from error
            # Outside the handler, which keeps the tensors of the failed attempt alive.
            release_memory(self.device)
            self._batch_size = min(self._batch_size, size // 2)
            self._batch_of_group.pop(group[0], None)
        if self._group_size > 1:
            self._batch_of_group[group[0]] = size
        return found

    @inference()
    def _predict_batch(self, rows: tuple[int, ...], asked: Sequence[int]) -> dict[int, PairPrediction]:
        images_i, images_j = (self._tokens(self._pairs[list(rows), side].tolist()) for side in (0, 1))
        output = self.network.predict_symmetric(images_i, images_j)
        return {row: self._prediction(row, output, k) for k, row in enumerate(rows) if row in asked}

    def _tokens(self, images: list[int]) -> EncodedImages:
        encoded = [self.tokens(image) for image in images]
        return EncodedImages(tokens=torch.cat([one.tokens for one in encoded]), grid_hw=encoded[0].grid_hw)

    def _encode(self, image: int) -> EncodedImages:
        pixels = load_prepared(self._images, image, self._plans[image])
        return self.network.encode(to_network_input(pixels)[None].to(self.device))

    def _prediction(self, row: int, output: SymmetricOutput, k: int) -> PairPrediction:
        i, j = self._pairs[row].tolist()
        one = select_pair(output, k)
        if not _is_finite(one):
            self._warn_not_finite(row)
            return _nothing_known(i, j)
        return make_prediction(i, j, one, self._match_stride)

    # ------------------------------------------------------------------------------------------------------ messages

    def _warn_not_finite(self, row: int) -> None:
        """Once: what is wrong with one pair is likely to be with many."""
        if not self._warned:
            way_out = "check the weights" if self.dtype == torch.float32 else "use --mast3r.half-precision off"
            self._progress.warn(f"{self._pair_name(row)} is left out, the network's numbers overflow: {way_out}")
        self._warned = True

    def _too_little_memory(self, what: str) -> InputError:
        ways = ["--mast3r.image-size with a smaller size", "--mast3r.token-memory-mib with less"]
        if self.device.type != "cpu":
            ways = ["--device cpu", *ways]
            if self.dtype == torch.float32:
                ways = ["--mast3r.half-precision on", *ways]
        return InputError(f"not enough memory on the {self.device.type} device for {what}: use {' or '.join(ways)}")

    def _pair_name(self, row: int) -> str:
        i, j = self._pairs[row].tolist()
        return f"the pair {self._images.names[i]}, {self._images.names[j]}"


# ------------------------------------------------------------------------------------------- from the network's output


def make_prediction(i: int, j: int, output: SymmetricOutput, match_stride: int) -> PairPrediction:
    """What the network says about one pair (a batch of one), with the matches its output implies."""
    width_i, width_j = output.frame_i.first.points.shape[2], output.frame_j.first.points.shape[2]
    matches = find_matches(output, match_stride).to_matches(width_i, width_j)
    return PairPrediction(
        i=i,
        j=j,
        status=PairStatus.OK if len(matches) else PairStatus.UNMATCHED,
        matches=matches,
        keypoint_matches=None,
        frame_i=_pointmaps(output.frame_i),
        frame_j=_pointmaps(output.frame_j),
    )


def find_matches(output: SymmetricOutput, match_stride: int) -> Correspondences:
    """Correspondences of one pair (a batch of one) in both decoder passes: by descriptor, else by 3D point."""
    frame_i, frame_j = output.frame_i, output.frame_j
    passes = [_matching_pass(frame_i.first, frame_i.second), _matching_pass(frame_j.second, frame_j.first)]
    return extract_correspondences(passes, match_stride)


def select_pair(output: SymmetricOutput, k: int) -> SymmetricOutput:
    """One pair of a batch, as a batch of one."""
    return SymmetricOutput(frame_i=_select(output.frame_i, k), frame_j=_select(output.frame_j, k))


def _select(output: PairOutput, k: int) -> PairOutput:
    return PairOutput(first=_select_view(output.first, k), second=_select_view(output.second, k))


def _select_view(view: ViewPrediction, k: int) -> ViewPrediction:
    descriptors, confidence = view.descriptors, view.descriptor_confidence
    return ViewPrediction(
        points=view.points[k : k + 1],
        confidence=view.confidence[k : k + 1],
        descriptors=None if descriptors is None else descriptors[k : k + 1],
        descriptor_confidence=None if confidence is None else confidence[k : k + 1],
    )


def _matching_pass(view_1: ViewPrediction, view_2: ViewPrediction) -> MatchingPass:
    if view_1.descriptors is None or view_2.descriptors is None:
        return point_pass(view_1.points[0], view_2.points[0], view_1.confidence[0], view_2.confidence[0])
    assert view_1.descriptor_confidence is not None and view_2.descriptor_confidence is not None
    confidences = (view_1.descriptor_confidence[0], view_2.descriptor_confidence[0])
    return descriptor_pass(view_1.descriptors[0], view_2.descriptors[0], *confidences)


def _pointmaps(output: PairOutput) -> Pointmaps:
    return Pointmaps(
        own=_array(output.first.points),
        own_confidence=_array(output.first.confidence),
        other=_array(output.second.points),
        other_confidence=_array(output.second.confidence),
    )


def _array(value: Float[Tensor, "1 *shape"]) -> Float[np.ndarray, "*shape"]:
    """Copied, so that it does not keep the rest of its batch in memory."""
    return np.array(value[0].float().cpu().numpy())


def _is_finite(output: SymmetricOutput) -> bool:
    views = (output.frame_i.first, output.frame_i.second, output.frame_j.first, output.frame_j.second)
    values = (value for view in views for value in vars(view).values() if value is not None)
    return all(bool(value.isfinite().all()) for value in values)


def _nothing_known(i: int, j: int) -> PairPrediction:
    return PairPrediction(
        i=i,
        j=j,
        status=PairStatus.UNMATCHED,
        matches=Matches.empty(),
        keypoint_matches=None,
        frame_i=None,
        frame_j=None,
    )


def _most_pixels(plans: tuple[Preparation, ...]) -> int:
    return max((plan.grid_wh[0] * plan.grid_wh[1] for plan in plans), default=1)


def _weights_bytes(weights: WeightsFile) -> int:
    """In float32."""
    return 4 * sum(int(np.prod(shape)) for shape in parameter_shapes(weights.architecture).values())
