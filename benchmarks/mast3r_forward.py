"""Cost of the MASt3R network per pair: images encoded once against both images encoded for every pair.

    python benchmarks/mast3r_forward.py                             # 6 photographs, 15 pairs, 512x384: 15 CPU minutes
    python benchmarks/mast3r_forward.py --pairs-measured 1          # one pair of each path, the rest extrapolated
    python benchmarks/mast3r_forward.py --device cuda --images 24   # pairs per second in float32 and half precision

The network has its full size and pseudo-random weights; time does not depend on their values. Predictions are made by
the front end from photographs on disk, a complete graph of them. The naive path makes the same symmetric predictions
one pair at a time in float32 and encodes both images of every pair. Matching is timed apart and not part of the
comparison: random descriptors take longer to match than those of photographs.

Seconds are CPU seconds of all threads on a processor, wall seconds on a GPU.
"""

import argparse
import itertools
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from anchorsfm.frontend.mast3r import predictor as front_end
from anchorsfm.frontend.mast3r.devices import trunk_dtype
from anchorsfm.frontend.mast3r.frontend import Mast3rFrontend
from anchorsfm.frontend.mast3r.predictor import Mast3rPredictor
from anchorsfm.frontend.mast3r.preparation import load_prepared, plan_images, to_network_input
from anchorsfm.frontend.mast3r.weights import WeightsFile
from anchorsfm.io.clock import StageClock
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.networks.devices import resolve_device
from anchorsfm.networks.mast3r import Architecture, PairNetwork, build_network, parameter_shapes
from anchorsfm.networks.mast3r.loading import aliases
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import SILENT

PARTS = ("encoder", "decoder", "heads", "matching")


# --------------------------------------------------------------------------------------------------------- the network


def formula_weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """z: standard normal numbers seeded by CRC-32 of the name; g: 0.2 for the DPT's last layer, else 1.

    Matrices and kernels g z / sqrt(inputs), biases 0.05 g z, scales of normalisations 1 + 0.1 z.
    """
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(int(np.prod(shape))).reshape(shape)
    gain = 0.2 if ".dpt.head.4." in name else 1.0
    if len(shape) >= 2:
        z *= gain / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("bias"):
        z *= 0.05 * gain
    else:
        z = 1 + 0.1 * z
    return torch.from_numpy(z.astype(np.float32))


def formula_network(architecture: Architecture, threads: int) -> PairNetwork:
    second_names = aliases(architecture)
    shapes = {name: shape for name, shape in parameter_shapes(architecture).items() if name not in second_names}
    with ThreadPoolExecutor(threads) as pool:
        values = pool.map(formula_weight, shapes.keys(), shapes.values())
        return build_network(architecture, dict(zip(shapes, values, strict=True)), "formula weights")


def write_photographs(folder: Path, count: int, size_wh: tuple[int, int]) -> None:
    """Smooth random pictures with noise."""
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size_wh, Image.Resampling.BICUBIC), np.float32)
        noisy = smooth + rng.normal(0, 12, smooth.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03d}.png")


# -------------------------------------------------------------------------------------------------------------- timing


@dataclass
class PartTimer:
    """Seconds and calls of the parts of a prediction."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            start = self.now()
            result = function(*args)
            self.seconds[part] += self.now() - start
            return result

        return timed

    def watch(self, network: PairNetwork) -> None:
        """From now on, the parts of this network and all matching are timed."""
        for part, name in (("encoder", "encode"), ("decoder", "decode")):
            setattr(network, name, self.wrap(part, getattr(network, name)))
        for head in (network.downstream_head1, network.downstream_head2):
            head.forward = self.wrap("heads", head.forward)
        front_end.find_matches = self.wrap("matching", front_end.find_matches)


@dataclass(frozen=True)
class PathFigures:
    """One way of going through the pairs."""

    label: str
    pairs: int
    """Measured."""
    encoded: int
    """Images encoded while they were measured."""
    encoder_share: float
    """Images encoded per pair of the complete graph."""
    total: float
    """Seconds."""
    parts: dict[str, float]
    peak_mib: float
    """Memory of the process, on a GPU of the device."""

    @property
    def per_pair(self) -> dict[str, float]:
        """Seconds per pair of the complete graph."""
        rest = self.total - sum(self.parts.values())
        figures = {part: self.parts.get(part, 0.0) / self.pairs for part in PARTS} | {"rest": rest / self.pairs}
        figures["encoder"] = self.parts["encoder"] / self.encoded * self.encoder_share
        return figures

    @property
    def network_per_pair(self) -> float:
        """All but matching."""
        return sum(seconds for part, seconds in self.per_pair.items() if part != "matching")

    def row(self) -> str:
        parts = " | ".join(f"{self.per_pair[part]:.3g}" for part in (*PARTS, "rest"))
        return (
            f"| {self.label} | {self.pairs} | {self.encoded} | {parts} | {self.network_per_pair:.3g} "
            f"| {1 / self.network_per_pair:.3g} | {self.peak_mib:.0f} |"
        )


HEADER = (
    "| path | pairs measured | images encoded | encoder | decoder | heads | matching | rest "
    "| all but matching, s per pair | pairs per s | peak MiB |\n|---|" + "---|" * 10
)


def measure(
    label: str, timer: PartTimer, work: Callable[[], tuple[int, int]], num_images: int, num_pairs: int, naive: bool
) -> PathFigures:
    """`work` returns the number of pairs it made and of images it encoded."""
    timer.seconds.clear()
    clock = StageClock()
    if timer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with clock.stage(label):
        start = timer.now()
        pairs, encoded = work()
        total = timer.now() - start
    peak = clock.timings[-1].peak_memory_mib
    if timer.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    share = 2.0 if naive else num_images / num_pairs
    return PathFigures(label, pairs, encoded, share, total, dict(timer.seconds), peak)


# ----------------------------------------------------------------------------------------------------------- two paths


def make_predictor(
    images: ImageSet, pairs: PairList, network: PairNetwork, config: Mast3rFrontend, folder: Path
) -> Mast3rPredictor:
    """The front end's own, around a network that no file holds."""
    device = resolve_device(config.device)
    licence = LicenceRecord(weights="formula", terms="none", accepted="not asked")
    weights = WeightsFile(
        source="formula", path=folder, architecture=network.architecture, licence=licence, digest="formula"
    )
    predictor = Mast3rPredictor(
        images=images,
        pairs=pairs,
        weights=weights,
        plans=plan_images(images, config.image_size),
        device=device,
        dtype=trunk_dtype(device, config.half_precision),
        config=config,
        store=Store(folder / "cache"),
        progress=SILENT,
    )
    vars(predictor)["network"] = network
    return predictor


def encode_once(predictor: Mast3rPredictor, pairs: PairList, rows: range) -> tuple[int, int]:
    for _ in predictor.predictions(rows):
        pass
    return len(rows), len(np.unique(pairs.index[list(rows)]))


@torch.inference_mode()
def encode_every_time(
    images: ImageSet, pairs: PairList, rows: range, network: PairNetwork, image_size: int, device: torch.device
) -> tuple[int, int]:
    plans = plan_images(images, image_size)
    for i, j in pairs.index[list(rows)].tolist():
        inputs = [to_network_input(load_prepared(images, image, plans[image]))[None] for image in (i, j)]
        output = network.predict_symmetric(*(network.encode(one.to(device)) for one in inputs))
        for maps in (output.frame_i, output.frame_j):
            for view in (maps.first, maps.second):
                view.points.cpu(), view.confidence.cpu()
    return len(rows), 2 * len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 384), metavar=("W", "H"), help="multiples of 16")
    parser.add_argument("--pairs-measured", type=int, default=0, help="of each path; 0 measures all")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--small", action="store_true", help="a small network, to try this script")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    device = resolve_device(args.device)
    size_wh = (args.size[0], args.size[1])
    architecture = Architecture(encoder_depth=2, decoder_depth=4) if args.small else Architecture()
    network = formula_network(architecture, args.threads).to(device)
    pairs = PairList(index=np.array(list(itertools.combinations(range(args.images), 2))))
    rows = range(min(args.pairs_measured or len(pairs), len(pairs)))
    timer = PartTimer(device)
    timer.watch(network)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder, args.images, size_wh)
        images = load_image_set(folder)
        config = Mast3rFrontend(
            device=args.device, half_precision="off", batch_size=args.batch_size, image_size=max(size_wh)
        )

        def run(label: str, config: Mast3rFrontend) -> PathFigures:
            if device.type != "cpu":
                # Kernels are chosen and code is loaded on first use, once per size of batch.
                encode_once(make_predictor(images, pairs, network, config, folder), pairs, rows)
            predictor = make_predictor(images, pairs, network, config, folder)
            assert (predictor.grid.size_wh == size_wh).all(), predictor.grid.size_wh
            return measure(
                label, timer, lambda: encode_once(predictor, pairs, rows), args.images, len(pairs), naive=False
            )

        figures = [run("encoded once, float32", config)]
        naive = measure(
            "naive, float32",
            timer,
            lambda: encode_every_time(images, pairs, rows, network, max(size_wh), device),
            args.images,
            len(pairs),
            naive=True,
        )
        if device.type != "cpu":
            network.set_trunk_dtype(torch.float16)
            figures.append(run("encoded once, half precision", replace(config, half_precision="on")))

    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"{device.type}, {args.threads} threads"
    kind = "CPU" if device.type == "cpu" else "wall"
    print(f"{size_wh[0]}x{size_wh[1]}, {args.images} images, {len(pairs)} pairs, {hardware}, torch {torch.__version__}")
    if len(rows) < len(pairs):
        print(f"Extrapolated from {len(rows)} of the {len(pairs)} pairs: the encoder per image, all else per pair.")
    print(f"{kind} seconds per pair of the complete graph:\n\n{HEADER}")
    for one in (naive, *figures):
        print(one.row())
    print()
    for one in figures:
        print(f"{one.label}: {naive.network_per_pair / one.network_per_pair:.2f}x less than naive without matching")


if __name__ == "__main__":
    main()
