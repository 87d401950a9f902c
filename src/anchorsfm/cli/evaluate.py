"""`anchorsfm evaluate`: poses beside known ones."""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from anchorsfm.scene.settings import Settings
from anchorsfm.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Evaluate(Settings):
    """Compare the poses of a model with known ones: registered images, RRA, RTA, AUC, ATE, focal error."""

    model: tyro.conf.Positional[Path]
    """An output folder of `anchorsfm reconstruct` (its largest model counts), or a folder with a COLMAP model."""
    truth: Path
    """A COLMAP model, or a JSON file: image name -> R_cam_from_world, t_cam_from_world and K."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.evaluation import evaluate_poses, format_table, read_poses, to_dict

        evaluation = evaluate_poses(read_poses(self.model), read_poses(self.truth))
        if self.json:
            print(json.dumps(to_dict(evaluation)))
            return
        for line in format_table(evaluation):
            console.print(line)
