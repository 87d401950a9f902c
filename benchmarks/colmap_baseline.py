"""PyCOLMAP's default extract + exhaustive match + incremental mapping, as one measured process.

    python benchmarks/colmap_baseline.py PHOTOS OUT [--max-image-size 1024] [--single-camera]

Writes the largest model to OUT/sparse/0 and prints one line of JSON with CPU seconds per step and the peak memory.
"""

import argparse
import json
import resource
import shutil
import time
from pathlib import Path

import pycolmap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--max-image-size", type=int, default=1024)
    parser.add_argument("--single-camera", action="store_true")
    args = parser.parse_args()
    shutil.rmtree(args.output, ignore_errors=True)
    (args.output / "all").mkdir(parents=True)
    database = args.output / "database.db"
    pycolmap.logging.minloglevel = 2
    pycolmap.set_random_seed(0)
    steps = {}

    def timed(name, call):
        start = time.process_time()
        value = call()
        steps[name] = round(time.process_time() - start, 2)
        return value

    extraction = pycolmap.FeatureExtractionOptions()
    extraction.max_image_size = args.max_image_size
    extraction.use_gpu = False
    matching = pycolmap.FeatureMatchingOptions()
    matching.use_gpu = False
    mode = pycolmap.CameraMode.SINGLE if args.single_camera else pycolmap.CameraMode.AUTO
    cpu = pycolmap.Device.cpu
    timed(
        "extract_cpu_s",
        lambda: pycolmap.extract_features(
            database, args.photos, camera_mode=mode, extraction_options=extraction, device=cpu
        ),
    )
    timed("match_cpu_s", lambda: pycolmap.match_exhaustive(database, matching_options=matching, device=cpu))
    models = timed("map_cpu_s", lambda: pycolmap.incremental_mapping(database, args.photos, args.output / "all"))
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


if __name__ == "__main__":
    main()
