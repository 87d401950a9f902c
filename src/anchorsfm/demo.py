"""The main job on an example the program makes itself: render, reconstruct from the JPEGs alone, compare."""

from pathlib import Path

from anchorsfm.evaluation import evaluate_poses, format_table, poses_of, read_poses
from anchorsfm.io.layout import Layout
from anchorsfm.io.owned import OwnedFolder
from anchorsfm.pipeline import RunResult, reconstruct
from anchorsfm.report import summary_lines
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs


def run_demo(
    output: Path, *, num_images: int = 8, seed: int = 0, progress: Progress = SILENT
) -> tuple[RunResult, list[str]]:
    """Photographs in `output`/photos, the model in `output`/reconstruction; the result, and what was found in words.

    Raises the errors of `reconstruct`; StorageError too if `output` is neither new, empty, nor of an earlier demo.
    """
    folder = OwnedFolder(output)
    folder.require_ours()
    folder.claim()
    names = [f"images/{k:04d}.jpg" for k in range(num_images)]
    folder.require_free([f"photos/{name}" for name in ("truth.json", *names)], ["photos"])
    scene = make_scene(SceneConfig(num_images=num_images, seed=seed))
    with folder.publication() as publication:
        write_photographs(scene, publication.path / "photos", progress=progress)
        publication.publish(["photos"])
    truth = output / "photos" / "truth.json"
    made = Layout(output / "reconstruction")
    result = reconstruct(truth.parent / "images", made.root, PipelineConfig(seed=seed), progress)
    comparison = {
        "alignment": evaluate_poses(read_poses(made.alignments), read_poses(truth)),
        "adjusted model": evaluate_poses(poses_of(result.models[0], result.images), read_poses(truth)),
    }
    lines = [
        *summary_lines(result.report),
        "",
        "compared with the true cameras (AUC, RRA, RTA in percent; ATE in metres):",
        *format_table(comparison),
        "",
        f"photographs: {truth.parent / 'images'}",
        f"model:       {made.model(0)}",
        f"dense cloud: {made.cloud(0)}",
        f"report:      {made.page}",
    ]
    return result, lines
