"""What runs on a GPU beside the same on a processor: do the results agree, and what does it gain?

    python benchmarks/gpu.py network REFERENCE [--device cuda]
    python benchmarks/gpu.py learned PHOTOS --weights WEIGHTS [--device cuda] [--detectors aliked disk xfeat]
    python benchmarks/gpu.py alignment ORACLE [--device cuda] [--scenes n10 n30]

network: outputs of the small MASt3R network, in float32 and with its trunk in float16, against reference outputs
(REFERENCE holds mast3r_tiny_config.json, mast3r_tiny_weights.safetensors, mast3r_tiny_io.npz); largest error over the
largest value. learned: keypoints of a folder of photographs at 1024 px and the matches of all its pairs; how many
keypoints lie within .05 px of one of the processor's, how many matches are the processor's. alignment: the second-order
solver on scenes with known truth (ORACLE as for alignment.py), its sums made on the GPU and by the compiled kernels.
Wall seconds, after a first call that loads and chooses kernels.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.spatial import KDTree

from alignment import CASES, load_oracle, make_scene, run
from anchorsfm.align.config import AlignConfig
from anchorsfm.features.base import BatchMatcher, Detector, FeatureMatches, Features, Matcher
from anchorsfm.features.config import DescriptorMatchingConfig, FeatureConfig, LearnedDetectorName, NetworkConfig
from anchorsfm.features.learned.detector import MAX_KEYPOINTS
from anchorsfm.features.methods import make_detector, make_matcher
from anchorsfm.io.images import load_image_set
from anchorsfm.networks.devices import inference, resolve_device
from anchorsfm.networks.mast3r import architecture_from_arguments, build_network
from anchorsfm.scene.images import ImageSet

WORKING_PX, SAME_PX = 1024, 0.05
FIGURES = ("loss_2d", "rotation_deg", "direction_deg", "auc_1")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and wall seconds until the GPU is done as well."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - begin


# ----------------------------------------------------------------------------------------------------- MASt3R's network


@inference()
def network(reference: Path, device: torch.device) -> None:
    """Errors of the final outputs over their largest value."""
    config = json.loads((reference / "mast3r_tiny_config.json").read_text())
    arguments = {**config["constructor_args"], "dpt_overrides": config["dpt_overrides"]}
    made = build_network(
        architecture_from_arguments(arguments, "tiny"), load_file(reference / "mast3r_tiny_weights.safetensors"), "tiny"
    ).to(device)
    with np.load(reference / "mast3r_tiny_io.npz") as file:
        arrays = {name: file[name] for name in file.files}
    print("\n| trunk | picture | points | confidence | descriptors | their confidence |\n|---|---|---|---|---|---|")
    for dtype in (torch.float32, torch.float16):
        made.set_trunk_dtype(dtype)
        for case in sorted({name.split("/")[0] for name in arrays}):
            first, second = (made.encode(torch.from_numpy(arrays[f"{case}/img{k}"]).to(device)) for k in (1, 2))
            output = made.predict(first, second)
            worst = dict.fromkeys(("pts3d", "conf", "desc", "desc_conf"), 0.0)
            for suffix, view in (("1", output.first), ("2", output.second)):
                found = (view.points, view.confidence, view.descriptors, view.descriptor_confidence)
                for name, value in zip(worst, found, strict=True):
                    assert value is not None
                    want = arrays[f"{case}/{name}{suffix}"]
                    error = np.abs(value.float().cpu().numpy() - want).max() / np.abs(want).max()
                    worst[name] = max(worst[name], float(error))
            print(
                f"| {str(dtype)[6:]} | {case} | {' | '.join(f'{value:.1e}' for value in worst.values())} |", flush=True
            )


# ------------------------------------------------------------------------------------------------ learned keypoints


def learned(folder: Path, weights: Path, device: str, names: Sequence[LearnedDetectorName]) -> None:
    """Keypoints and matches of a folder."""
    images = load_image_set(folder)
    rows = range(images.num_images)
    pairs = list(itertools.combinations(rows, 2))
    print(
        f"\n{folder}: {len(rows)} photographs, {len(pairs)} pairs, {torch.get_num_threads()} threads\n\n"
        "| what | where | s an image or pair | of the processor's | found |\n|---|---|---|---|---|"
    )
    for name in names:
        config = FeatureConfig(detector=name, max_image_size=WORKING_PX, max_learned_keypoints=MAX_KEYPOINTS[name])
        found: dict[str, list[Features]] = {}
        for where in ("cpu", device):
            detector = make_detector(config, NetworkConfig(weights=weights, device=where))  # type: ignore[arg-type]
            detector.detect(images, 0)
            made, seconds = timed(partial(keypoints, detector, images))
            same = 0.0
            if where != "cpu":
                same = float(np.mean([agreement(one, two) for one, two in zip(found["cpu"], made, strict=True)]))
            found[where] = made
            total = sum(len(one.xy) for one in made)
            print(f"| {name} keypoints | {where} | {seconds / len(rows):.3f} | {same:.4f} | {total} |", flush=True)
        reference: list[FeatureMatches] = []
        for where, half, batch in (("cpu", "off", 1), (device, "off", 1), (device, "off", 8), (device, "auto", 8)):
            networks = NetworkConfig(weights=weights, device=where, half_precision=half, batch_size=batch)  # type: ignore[arg-type]
            matcher = make_matcher(DescriptorMatchingConfig(matcher="lightglue"), name, networks)
            prepared = [matcher.prepare(one) for one in found["cpu"]]
            all_matches(matcher, prepared, pairs[:batch])
            matches, seconds = timed(partial(all_matches, matcher, prepared, pairs))
            reference = reference or matches
            shared = sum(
                len({*map(tuple, one.keypoint.tolist())} & {*map(tuple, two.keypoint.tolist())})
                for one, two in zip(reference, matches, strict=True)
            )
            total = sum(len(one.keypoint) for one in matches)
            kind = f"{where}, {'float16' if half == 'auto' else 'float32'}, {batch} at a time"
            share = shared / max(sum(len(one.keypoint) for one in reference), 1)
            print(f"| {name} LightGlue | {kind} | {seconds / len(pairs):.3f} | {share:.4f} | {total} |", flush=True)


def keypoints(detector: Detector, images: ImageSet) -> list[Features]:
    """Of all photographs."""
    return [detector.detect(images, image) for image in range(images.num_images)]


def agreement(one: Features, two: Features) -> float:
    """Share of the keypoints of `two` that `one` has as well."""
    return float(np.mean(KDTree(one.xy).query(two.xy)[0] < SAME_PX))


def all_matches(matcher: Matcher, prepared: list[Any], pairs: list[tuple[int, int]]) -> list[FeatureMatches]:
    """Batches of equal keys, as the program makes them."""
    if not isinstance(matcher, BatchMatcher) or matcher.batch_size == 1:
        return [matcher.match(prepared[i], prepared[j]) for i, j in pairs]
    found: dict[int, FeatureMatches] = {}
    keys = [matcher.batch_key(prepared[i], prepared[j]) for i, j in pairs]
    for key in dict.fromkeys(keys):
        rows = [row for row, own in enumerate(keys) if own == key]
        for start in range(0, len(rows), matcher.batch_size):
            batch = rows[start : start + matcher.batch_size]
            made = matcher.match_batch([(prepared[pairs[row][0]], prepared[pairs[row][1]]) for row in batch])
            found |= dict(zip(batch, made, strict=True))
    return [found[row] for row in range(len(pairs))]


# ------------------------------------------------------------------------------------------------------- the alignment


def alignment(oracle: Path, device: str, scenes: Sequence[str]) -> None:
    """The same scene solved with sums made in two places."""
    titles = ("scene", "sums", "s", "evaluations", "loss", "rotation, deg", "direction, deg", "AUC@1")
    print(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    maker = load_oracle(oracle)
    for name in scenes:
        scene = make_scene(maker, CASES[name], 100)
        for where in ("cpu", device):
            config = AlignConfig(device=where)
            run(scene, config)
            (result, told), seconds = timed(partial(run, scene, config))
            figures = [f"{seconds:.2f}", str(sum(told["iterations"])), *(str(told[key]) for key in FIGURES)]
            print(f"| {name} | {where}: {result.fine.method} | {' | '.join(figures)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("network", "learned", "alignment"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cuda")
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--detectors", nargs="+", choices=tuple(MAX_KEYPOINTS), default=tuple(MAX_KEYPOINTS))
    parser.add_argument("--scenes", nargs="+", choices=tuple(CASES), default=["n10", "n30"])
    args = parser.parse_args()
    device = resolve_device(args.device)
    print(torch.cuda.get_device_name() if device.type == "cuda" else device.type, "torch", torch.__version__)
    if args.what == "network":
        network(args.path, device)
    elif args.what == "learned":
        learned(args.path, args.weights, args.device, args.detectors)
    else:
        alignment(args.path, args.device, args.scenes)


if __name__ == "__main__":
    main()
