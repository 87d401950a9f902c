"""The front end around the network: order, batches, tokens, memory, devices. The network is tiny and random."""

import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anchorsfm.frontend import FRONTENDS, Mast3rFrontend
from anchorsfm.frontend.base import Frontend, PairPredictor
from anchorsfm.frontend.mast3r import devices
from anchorsfm.frontend.mast3r import predictor as predictor_module
from anchorsfm.frontend.mast3r.predictor import Mast3rPredictor
from anchorsfm.frontend.mast3r.tokens import KIND
from anchorsfm.frontend.mast3r.weights import DEFAULT_WEIGHTS
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.networks.devices import resolve_device
from anchorsfm.networks.mast3r import (
    EncodedImages,
    PairNetwork,
    SymmetricOutput,
)
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.pairs import PairList, PairPrediction, PairStatus, Pointmaps
from anchorsfm.scene.progress import SILENT, RecordingProgress
from tiny_network import DUST3R, MAST3R, write_weights

SIZES_WH = ((120, 90), (90, 120), (120, 90), (96, 72))
"""Of the photographs: three landscapes, which the network sees at 96x64, and a portrait, at 64x96."""
ALL_PAIRS = PairList(index=np.array([(i, j) for i in range(4) for j in range(i + 1, 4)]))
TOKEN_BYTES = 4 * 6 * 32 * 4
"""Of one image: 4 x 6 patches, 32 channels."""


@pytest.fixture(autouse=True, scope="module")
def one_thread(tmp_path_factory: pytest.TempPathFactory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANCHORSFM_CACHE", str(tmp_path_factory.mktemp("user")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        name: write_weights(folder / name, arguments) for name, arguments in (("mast3r", MAST3R), ("dust3r", DUST3R))
    }


def write_photos(folder: Path, names: tuple[str, ...] = ("a.png", "b.png", "c.png", "d.png")) -> Path:
    """Random smooth pictures, always the same four."""
    folder.mkdir()
    for seed, (name, size_wh) in enumerate(zip(names, SIZES_WH, strict=True)):
        coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size_wh, Image.Resampling.BICUBIC).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def photos_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "four")


def open_frontend(
    folder: Path, weights: str, pairs: PairList = ALL_PAIRS, store: Store | None = None, **settings: Any
) -> Mast3rPredictor:
    config = Mast3rFrontend(**{"weights": weights, "device": "cpu", **settings})
    return config.open(load_image_set(folder), pairs, store or Store(None), SILENT)


def arrays_of(prediction: PairPrediction) -> dict[str, np.ndarray]:
    found = {f"matches.{name}": value for name, value in vars(prediction.matches).items() if value is not None}
    for frame in ("frame_i", "frame_j"):
        found |= {f"{frame}.{name}": value for name, value in vars(getattr(prediction, frame)).items()}
    return found


def assert_same_bits(one: PairPrediction, two: PairPrediction) -> None:
    assert (one.i, one.j, one.status) == (two.i, two.j, two.status)
    for name, value in arrays_of(one).items():
        np.testing.assert_array_equal(value, arrays_of(two)[name], err_msg=name)


def assert_maps_close(one: Pointmaps, two: Pointmaps) -> None:
    for name, value in vars(one).items():
        np.testing.assert_allclose(value, vars(two)[name], rtol=1e-3, atol=1e-4, err_msg=name)


# --------------------------------------------------------------------------------------------------- what is predicted


@pytest.mark.parametrize("kind", ["mast3r", "dust3r"])
def test_predictions(photos_folder: Path, weights: dict[str, str], kind: str) -> None:
    predictor = open_frontend(photos_folder, weights[kind])
    assert isinstance(predictor, PairPredictor) and isinstance(Mast3rFrontend(), Frontend)
    assert not predictor.keeps_predictions
    assert predictor.licence.accepted == "not asked"
    assert predictor.grid.size_wh.tolist() == [[96, 64], [64, 96], [96, 64], [96, 64]]
    predictions = list(predictor)
    assert len(predictor) == len(predictions) == 6
    assert [[p.i, p.j] for p in predictions] == ALL_PAIRS.index.tolist()
    for prediction in predictions:
        (width_i, height_i), (width_j, height_j) = predictor.grid.size_wh[[prediction.i, prediction.j]].tolist()
        assert prediction.frame_i.own.shape == prediction.frame_j.other.shape == (height_i, width_i, 3)
        assert prediction.frame_i.other.shape == prediction.frame_j.own.shape == (height_j, width_j, 3)
        for name, value in arrays_of(prediction).items():
            assert np.isfinite(value).all(), name
            assert value.dtype == (np.float64 if ".xy" in name else np.float32), name
        assert prediction.frame_i.own_confidence.min() >= 1
        matches = prediction.matches
        assert prediction.status is PairStatus.OK and len(matches) > 0
        assert prediction.keypoint_matches is None
        for xy, size in ((matches.xy_i, (width_i, height_i)), (matches.xy_j, (width_j, height_j))):
            assert (xy % 1 == 0.5).all() and (xy > 0).all() and (xy < size).all()
        assert (matches.confidence > 0).all()


def test_matches_belong_to_the_maps(photos_folder: Path, weights: dict[str, str]) -> None:
    """Without descriptors a match is a mutual nearest neighbour of the 3D points in one of the two frames."""
    (prediction,) = open_frontend(photos_folder, weights["dust3r"]).predictions([0])
    nearest = []
    for points_i, points_j in (
        (prediction.frame_i.own, prediction.frame_i.other),
        (prediction.frame_j.other, prediction.frame_j.own),
    ):
        gaps = torch.cdist(*(torch.from_numpy(p.reshape(-1, 3)).double() for p in (points_i, points_j)))
        nearest.append((gaps.argmin(1).numpy(), gaps.argmin(0).numpy()))
    pixel_i, pixel_j = (
        (np.floor(xy) @ [1, width]).astype(int)
        for xy, width in ((prediction.matches.xy_i, 96), (prediction.matches.xy_j, 64))
    )
    mutual = [(there[pixel_i] == pixel_j) & (back[pixel_j] == pixel_i) for there, back in nearest]
    assert (mutual[0] | mutual[1]).mean() > 0.99
    assert mutual[0].any() and mutual[1].any()


def test_exchanging_two_images_exchanges_their_frames(
    photos_folder: Path, weights: dict[str, str], tmp_path: Path
) -> None:
    renamed = write_photos(tmp_path / "renamed", ("b.png", "a.png", "c.png", "d.png"))
    pairs = PairList(index=np.array([(0, 1)]))
    for kind in ("mast3r", "dust3r"):
        (one,) = open_frontend(photos_folder, weights[kind], pairs)
        (two,) = open_frontend(renamed, weights[kind], pairs)
        assert_maps_close(one.frame_i, two.frame_j)
        assert_maps_close(one.frame_j, two.frame_i)
        there = set(map(tuple, np.hstack((one.matches.xy_i, one.matches.xy_j)).tolist()))
        back = set(map(tuple, np.hstack((two.matches.xy_j, two.matches.xy_i)).tolist()))
        assert len(there & back) > 0.9 * len(there | back)


def test_network_that_overflows(photos_folder: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    progress = RecordingProgress(SILENT)
    config = Mast3rFrontend(weights=weights["mast3r"], device="cpu")
    predictor = config.open(load_image_set(photos_folder), ALL_PAIRS, Store(None), progress)
    predict = PairNetwork.predict_symmetric

    def overflowing(self: PairNetwork, i: EncodedImages, j: EncodedImages) -> SymmetricOutput:
        output = predict(self, i, j)
        output.frame_j.second.points[0, 3, 4, 1] = torch.nan
        return output

    monkeypatch.setattr(PairNetwork, "predict_symmetric", overflowing)
    predictions = list(predictor)
    assert all(p.status is PairStatus.UNMATCHED and p.frame_i is None and not len(p.matches) for p in predictions)
    assert len(progress.warnings) == 1 and "a.png, b.png" in progress.warnings[0]


# ------------------------------------------------------------------------------------------- the same bits in any order


@pytest.mark.parametrize("batch_size", [0, 2, 3])
def test_some_rows_have_the_same_bits_as_all(photos_folder: Path, weights: dict[str, str], batch_size: int) -> None:
    predictor = open_frontend(photos_folder, weights["mast3r"], batch_size=batch_size)
    complete = list(predictor)
    fresh = open_frontend(photos_folder, weights["mast3r"], batch_size=batch_size)
    for rows in ([5], [0, 2, 4], range(1, 3), []):
        for source in (predictor, fresh):
            some = list(source.predictions(rows))
            assert len(some) == len(rows)
            for row, prediction in zip(rows, some, strict=True):
                assert_same_bits(prediction, complete[row])


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batches_are_close_to_one_by_one(photos_folder: Path, weights: dict[str, str], batch_size: int) -> None:
    single = list(open_frontend(photos_folder, weights["mast3r"]))
    batched = list(open_frontend(photos_folder, weights["mast3r"], batch_size=batch_size))
    for one, two in zip(single, batched, strict=True):
        assert_maps_close(one.frame_i, two.frame_i)
        assert_maps_close(one.frame_j, two.frame_j)


class Counts:
    """Counts what the network is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoded: Counter[bytes] = Counter()
        self.batches: list[int] = []
        encode, predict = PairNetwork.encode, PairNetwork.predict_symmetric

        def counting_encode(network: PairNetwork, images: Tensor) -> EncodedImages:
            assert not torch.backends.cudnn.allow_tf32
            for image in images:
                self.encoded[image.numpy().tobytes()] += 1
            return encode(network, images)

        def counting_predict(network: PairNetwork, i: EncodedImages, j: EncodedImages) -> SymmetricOutput:
            self.batches.append(len(i.tokens))
            return predict(network, i, j)

        monkeypatch.setattr(PairNetwork, "encode", counting_encode)
        monkeypatch.setattr(PairNetwork, "predict_symmetric", counting_predict)


def test_pairs_of_equal_sizes_share_a_batch(
    photos_folder: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three pairs of landscapes, one of landscape and portrait, two of portrait and landscape."""
    counts = Counts(monkeypatch)
    list(open_frontend(photos_folder, weights["mast3r"], batch_size=4))
    assert sorted(counts.batches) == [1, 2, 3]


@pytest.mark.parametrize("memory_mib", [1024, 0])
@pytest.mark.parametrize("kept_on_disk", [True, False])
def test_each_image_is_encoded_once(
    photos_folder: Path,
    weights: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    memory_mib: int,
    kept_on_disk: bool,
) -> None:
    expected = list(open_frontend(photos_folder, weights["mast3r"]))
    counts = Counts(monkeypatch)
    store = Store(tmp_path / "cache" if kept_on_disk else None)
    predictor = open_frontend(photos_folder, weights["mast3r"], store=store, token_memory_mib=memory_mib)
    for one, two in zip(predictor, expected, strict=True):
        assert_same_bits(one, two)
        assert predictor.tokens.bytes_kept <= memory_mib * 2**20
    list(predictor.predictions([0, 5]))
    assert list(counts.encoded.values()) == [1, 1, 1, 1]


def test_least_recently_used_tokens_leave_first(
    photos_folder: Path, weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = open_frontend(photos_folder, weights["mast3r"], store=Store(tmp_path))
    tokens = predictor.tokens
    monkeypatch.setattr(tokens, "_limit", 2 * TOKEN_BYTES)
    with torch.inference_mode():
        for image in (0, 1, 0, 2):
            tokens(image)
    assert list(tokens._kept) == [0, 2] and tokens.bytes_kept == 2 * TOKEN_BYTES
    files = list((tmp_path / KIND).iterdir())
    assert [file.stem for file in files] == [tokens._keys[1]]
    del predictor, tokens


def test_spilled_tokens_are_removed_at_the_end(
    photos_folder: Path, weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts(monkeypatch)
    predictor = open_frontend(photos_folder, weights["mast3r"], store=Store(tmp_path), token_memory_mib=0)
    list(predictor)
    assert len(list((tmp_path / KIND).iterdir())) == 4
    # Another one, as after a run that was stopped, finds them.
    list(open_frontend(photos_folder, weights["mast3r"], store=Store(tmp_path), token_memory_mib=0))
    assert sum(counts.encoded.values()) == 4
    predictor.tokens.close()
    assert not list((tmp_path / KIND).iterdir())


def test_damaged_tokens_are_made_again(photos_folder: Path, weights: dict[str, str], tmp_path: Path) -> None:
    predictor = open_frontend(photos_folder, weights["mast3r"], store=Store(tmp_path), token_memory_mib=0)
    (before,) = predictor.predictions([0])
    for file in (tmp_path / KIND).iterdir():
        file.write_bytes(b"rubbish")
    (after,) = predictor.predictions([0])
    assert_same_bits(before, after)


def test_network_is_loaded_for_the_first_prediction(photos_folder: Path, weights: dict[str, str]) -> None:
    predictor = open_frontend(photos_folder, weights["mast3r"])
    assert "network" not in vars(predictor)
    next(iter(predictor))
    assert not predictor.network.enc_norm.weight.is_inference()


# ------------------------------------------------------------------------------------------------------------- identity


def test_digest(photos_folder: Path, weights: dict[str, str]) -> None:
    def digest_of(weights_name: str = "mast3r", pairs: PairList = ALL_PAIRS, **settings: Any) -> str:
        return open_frontend(photos_folder, weights[weights_name], pairs, **settings).digest

    same = [digest_of(), digest_of(token_memory_mib=1)]
    others = [
        digest_of("dust3r"),
        digest_of(pairs=PairList(index=ALL_PAIRS.index[:3])),
        digest_of(match_stride=4),
        digest_of(image_size=64),
    ]
    assert len({*same, *others}) == 1 + len(others) and same[0] == same[1]


def test_image_size_of_the_user(photos_folder: Path, weights: dict[str, str]) -> None:
    predictor = open_frontend(photos_folder, weights["mast3r"], image_size=64)
    assert predictor.grid.size_wh[0].tolist() == [64, 48]
    (prediction,) = predictor.predictions([1])
    assert prediction.frame_i.own.shape == (48, 64, 3)


# ------------------------------------------------------------------------------------------------------ memory, devices


class SmallDevice:
    """Fails for batches of more than `limit` pairs, as a GPU with little memory does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
        self.limit = limit
        self.tried: list[int] = []
        predict = PairNetwork.predict_symmetric

        def limited(network: PairNetwork, i: EncodedImages, j: EncodedImages) -> SymmetricOutput:
            self.tried.append(len(i.tokens))
            if len(i.tokens) > self.limit:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
            return predict(network, i, j)

        monkeypatch.setattr(PairNetwork, "predict_symmetric", limited)


def test_batch_is_halved_when_memory_runs_out(
    photos_folder: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(open_frontend(photos_folder, weights["mast3r"]))
    device = SmallDevice(monkeypatch, limit=1)
    predictor = open_frontend(photos_folder, weights["mast3r"], batch_size=4)
    found = list(predictor)
    assert [size for size in device.tried if size > 1] == [3]  # what was learnt is kept for the next groups
    for one, two in zip(found, expected, strict=True):
        assert_maps_close(one.frame_i, two.frame_i)
        assert_maps_close(one.frame_j, two.frame_j)
    for one, row in zip(predictor.predictions([2, 5]), (2, 5), strict=True):
        assert_same_bits(one, found[row])


def test_groups_from_before_memory_ran_out_keep_their_bits(
    photos_folder: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos_folder, folder)
    shutil.copy(folder / "a.png", folder / "b.png")
    pairs = PairList(index=ALL_PAIRS.index[:4])
    device = SmallDevice(monkeypatch, limit=2)
    predictor = open_frontend(folder, weights["mast3r"], pairs, batch_size=2)
    early = list(predictor.predictions([0, 1]))
    device.limit = 1
    list(predictor.predictions([2, 3]))
    assert device.tried == [2, 2, 1, 1]
    device.limit, device.tried = 2, []
    for one, two in zip(predictor.predictions([0, 1]), early, strict=True):
        assert_same_bits(one, two)
    assert device.tried == [2]


@pytest.mark.parametrize("message", ["CUDA out of memory", "[enforce fail] DefaultCPUAllocator: can't allocate memory"])
def test_not_even_one_pair_fits(
    photos_folder: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(PairNetwork, "predict_symmetric", failing)
    with pytest.raises(InputError, match=r"not enough memory .* a\.png, b\.png: use --mast3r\.image-size"):
        next(iter(open_frontend(photos_folder, weights["mast3r"], batch_size=4)))


def test_other_errors_are_not_taken_for_lack_of_memory(
    photos_folder: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(PairNetwork, "predict_symmetric", failing)
    with pytest.raises(RuntimeError, match="shapes"):
        next(iter(open_frontend(photos_folder, weights["mast3r"], batch_size=4)))


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_that_is_not_there(
    photos_folder: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match=rf"--device {kind}: .* use --device auto"):
        open_frontend(photos_folder, weights["mast3r"], device=kind)


def test_automatic_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == gpu
    assert devices.trunk_dtype(gpu, "auto") == torch.float16
    assert devices.trunk_dtype(gpu, "off") == devices.trunk_dtype(cpu, "auto") == torch.float32
    assert devices.trunk_dtype(torch.device("mps"), "auto") == torch.float32
    with pytest.raises(InputError, match="needs a GPU"):
        devices.trunk_dtype(cpu, "on")

    batches = []
    for gib in (1, 8, 16, 24, 80):
        monkeypatch.setattr(devices, "memory_bytes", lambda _device, gib=gib: gib * 2**30)
        batches.append(devices.automatic_batch(gpu, 512 * 384, 4 * 2**30))
    assert batches == sorted(batches) and batches[0] == 1 and batches[-1] == devices.MAX_BATCH
    assert all(batch & (batch - 1) == 0 for batch in batches)
    assert devices.automatic_batch(cpu, 512 * 384, 0) == 1


def test_half_precision_stays_close(
    photos_folder: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = open_frontend(photos_folder, weights["mast3r"])
    monkeypatch.setattr(predictor_module, "trunk_dtype", lambda *_: torch.float16)
    half = open_frontend(photos_folder, weights["mast3r"])
    assert half.digest != exact.digest
    (one,), (two,) = exact.predictions([1]), half.predictions([1])
    assert half.network.enc_blocks[0].mlp.fc1.weight.dtype == torch.float16
    error = np.linalg.norm(one.frame_i.own - two.frame_i.own) / np.linalg.norm(one.frame_i.own)
    assert 1e-6 < error < 0.02 and two.frame_i.own.dtype == np.float32


def test_patches_of_another_size(photos_folder: Path, tmp_path: Path) -> None:
    path = write_weights(tmp_path / "patches", {**MAST3R, "patch_size": 8})
    with pytest.raises(InputError, match="patches of 8 pixels"):
        open_frontend(photos_folder, path)


@pytest.mark.parametrize(
    "settings", [{"batch_size": -1}, {"token_memory_mib": -1}, {"match_stride": 0}, {"image_size": 16}]
)
def test_settings_that_cannot_be_used(photos_folder: Path, weights: dict[str, str], settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"Mast3rFrontend\.{next(iter(settings))}"):
        open_frontend(photos_folder, weights["mast3r"], **settings)


def test_configuration_is_light_to_import() -> None:
    assert FRONTENDS["mast3r"] is Mast3rFrontend
    assert Mast3rFrontend().weights == DEFAULT_WEIGHTS
    assert replace(Mast3rFrontend(), device="cpu").device == "cpu"
    code = "import sys, anchorsfm.frontend; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
