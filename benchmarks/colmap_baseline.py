"""PyCOLMAP's extraction, exhaustive matching and mapping with default settings, as one measured process.

    python benchmarks/colmap_baseline.py PHOTOS OUT [--max-image-size 1024] [--single-camera] [--mapper global]

Writes the largest model to OUT/sparse/0 and prints one line of JSON with CPU seconds per step and the peak memory.
Features and matches in OUT/database.db are used again if they are there.
"""

import argparse
import json
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycolmap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--max-image-size", type=int, default=1024)
    parser.add_argument("--single-camera", action="store_true")
    parser.add_argument("--mapper", choices=("incremental", "global"), default="incremental")
    parser.add_argument("--free-principal-point", action="store_true", help="refine it in the incremental mapper")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for part in ("all", "sparse"):
        shutil.rmtree(args.output / part, ignore_errors=True)
    (args.output / "all").mkdir(parents=True)
    database = args.output / "database.db"
    pycolmap.logging.minloglevel = 2
    pycolmap.set_random_seed(args.seed)
    steps = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        value = call()
        steps[name] = round(time.process_time() - start, 2)
        return value

    if not database.exists():
        timed("extract_cpu_s", lambda: extract(args, database))
        timed("match_cpu_s", lambda: match(args, database))
    models = timed("map_cpu_s", lambda: map_images(args, database))
    figures = dict(steps, cpu_s=round(sum(steps.values()), 2), models=len(models))
    if models:
        largest = max(models.values(), key=lambda model: model.num_reg_images())
        (args.output / "sparse" / "0").mkdir(parents=True)
        largest.write(args.output / "sparse" / "0")
        figures |= {
            "registered": largest.num_reg_images(),
            "points": largest.num_points3D(),
            "track_length": round(largest.compute_mean_track_length(), 3),
            "reprojection_px": round(largest.compute_mean_reprojection_error(), 3),
        }
    figures["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(figures))


def extract(args: argparse.Namespace, database: Path) -> None:
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size = args.max_image_size
    options.use_gpu = False
    mode = pycolmap.CameraMode.SINGLE if args.single_camera else pycolmap.CameraMode.AUTO
    pycolmap.extract_features(
        database, args.photos, camera_mode=mode, extraction_options=options, device=pycolmap.Device.cpu
    )


def match(args: argparse.Namespace, database: Path) -> None:
    options = pycolmap.FeatureMatchingOptions()
    options.use_gpu = False
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = args.seed
    pycolmap.match_exhaustive(
        database, matching_options=options, verification_options=verification, device=pycolmap.Device.cpu
    )


def map_images(args: argparse.Namespace, database: Path) -> dict:
    if args.mapper == "global":
        options = pycolmap.GlobalPipelineOptions()
        options.random_seed = options.mapper.random_seed = args.seed
        for part in ("rotation_averaging", "global_positioning", "retriangulation"):
            getattr(options.mapper, part).random_seed = args.seed
        options.mapper.global_positioning.use_gpu = options.mapper.bundle_adjustment.ceres.use_gpu = False
        return pycolmap.global_mapping(database, args.photos, args.output / "all", options)
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = args.seed
    options.ba_refine_principal_point = args.free_principal_point
    return pycolmap.incremental_mapping(database, args.photos, args.output / "all", options)


if __name__ == "__main__":
    main()
