"""Frames of videos: which are chosen, what models of them are worth, and what choosing costs.

    python benchmarks/video.py walk WORK            a rendered walk, 60 s at 30 frames a second, 960 x 720 (--width)
    python benchmarks/video.py photos WORK FOLDER   a video of the photographs of FOLDER, at their size
    python benchmarks/video.py cost WORK VIDEO      CPU and wall time of both passes, and as shares of the duration
    python benchmarks/video.py memory WORK          peak memory of long videos up to 3840 x 2160

The walk goes along a street at 1 m/s, a tenth of a metre per rendered pose, stands still three times (15 s in all), and
swings its view to the side and back within a second once. 40 % of the frames are blurred by 10 to 24 pixels (of 960) in
bursts of one to five, those of the swing by how far they move. The video of photographs shows each for a fifth of a
second, and 40 % of its frames are blurred by 10 to 30 pixels. Compared are, each with as many frames: those that
`reconstruct VIDEO` chooses, sharp ones at even distances (as rendered or photographed, and out of a video without blur,
encoded as the other one is), and every so many-th of the video (as `ffmpeg -vf fps=N`). FOLDER holds `images/` and
`gt.json`. AUC is over the frames of each (`anchorsfm evaluate`). `--videos N` writes N videos, blurred otherwise, and
takes the evenly spaced ones from N phases: one set of frames tells differences of AUC to some hundredths only. The long
videos are 60 frames many times over: ten minutes and an hour of 96 x 54 at 30 a second, for as many frames as an hour
usually has, and of 3840 x 2160 at one a second, for decoding costs most; a minute and five of 3840 x 2160 at 30 a
second.
"""

import argparse
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from anchorsfm.io.owned import FolderPart, OwnedFolder
from anchorsfm.io.store import Store
from anchorsfm.scene.progress import SILENT
from anchorsfm.synthetic import SceneConfig, WalkConfig, make_scene, render_image
from anchorsfm.synthetic.walk import cameras_along
from anchorsfm.video.config import VideoConfig
from anchorsfm.video.decoding import VideoStream
from anchorsfm.video.frames import make_frames

RATE = 30
POSES, FRAMES_OF_POSE = 440, 3
SWING, SWING_DEG = 30, 60.0
PAUSES = {110: 150, 240: 210, 350: 90}
"""Frames of standing still after a pose."""
SWING_AT = 180
NEAR_S = 0.2
LONG = (((96, 54), 30, (600, 3600)), ((3840, 2160), 1, (600, 3600)), ((3840, 2160), 30, (60, 300)))
"""Sizes, frames a second, and durations in seconds of long videos."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("walk", "photos", "cost", "memory"))
    parser.add_argument("work", type=Path)
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--mapper", default="tracks")
    parser.add_argument("--frames", type=int, default=200, help="most frames, of every variant")
    parser.add_argument("--width", type=int, default=960, help="of the walk, pixels")
    parser.add_argument("--videos", type=int, default=1, help="number of videos with other blur")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.what in ("walk", "photos"):
        filmed = walk(args.work, args.width) if args.what == "walk" else photographs(args.source)
        compare_all(args.work, filmed, args.mapper, args.frames, args.videos)
    elif args.what == "cost":
        cost(args.work, args.source)
    else:
        memory(args.work)


# ------------------------------------------------------------------------------------------------------------- videos


@dataclass(frozen=True, kw_only=True)
class Filmed:
    """What a video shows."""

    name: str
    order: list[int]
    """The pose of every frame."""
    even: list[int]
    """Poses that count as evenly spaced."""
    pictures: list[dict[str, Any]]
    """File and true pose of each pose."""
    blur_px: tuple[float, float]
    swing_px: dict[int, float]
    """How far poses move in a frame."""

    def frames(self, seed: int) -> list[dict[str, Any]]:
        """Pose and blur of every frame."""
        frames = blurred(self.order, self.blur_px, seed)
        for frame in frames:
            if frame["pose"] in self.swing_px:
                frame |= {"blur_px": max(self.swing_px[frame["pose"]], 3.0), "angle": 0.0}
        return frames


def walk(work: Path, width: int) -> Filmed:
    config = WalkConfig(step_m=0.1)
    scene = make_scene(SceneConfig(num_images=POSES, size_wh=(width, width * 3 // 4), walk=config, jitter=0.0))
    path = cameras_along(config, POSES, jitter=0.0, rng=np.random.default_rng(0))
    swing = SWING_DEG * np.sin(np.pi * (np.arange(SWING) + 0.5) / SWING)
    along = np.concatenate([np.arange(POSES, dtype=float), SWING_AT + np.arange(SWING) / FRAMES_OF_POSE])
    sway = np.radians([[0.8 * np.sin(a / 9), 1.0 * np.sin(a / 14 + 1), 0.6 * np.sin(a / 11 + 2)] for a in along])
    sway[POSES:, 1] += np.radians(swing)
    below = np.floor(along).astype(int)
    share = (along - below)[:, None]
    centre = -np.einsum("kji,kj->ki", path[:, :, :3], path[:, :, 3])
    centre = (1 - share) * centre[below] + share * centre[(below + 1) % POSES]
    rotation = Rotation.from_rotvec(sway).as_matrix() @ path[below, :, :3]
    poses = np.concatenate([rotation, -rotation @ centre[:, :, None]], axis=2)
    scene = replace(scene, cam_from_world=poses, focal_px=np.full(len(poses), scene.focal_px[0]))
    pictures = []
    for pose in range(len(poses)):
        file = work / f"sharp-{width}" / f"{pose:04d}.png"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(render_image(scene, pose, noise=0.0)).save(file)
        pictures.append({"file": file, "R_cam_from_world": rotation[pose], "t_cam_from_world": poses[pose, :, 3]})
    order: list[int] = []
    for pose in range(POSES):
        order += [pose] * FRAMES_OF_POSE + [pose] * PAUSES.get(pose, 0)
        order += list(range(POSES, POSES + SWING)) if pose == SWING_AT else []
    swing_px = np.abs(np.gradient(np.radians(swing))) * scene.focal_px[0]
    return Filmed(
        name=f"walk-{width}",
        order=order,
        even=list(range(POSES)),
        pictures=pictures,
        blur_px=(5 * width / 480, 12 * width / 480),
        swing_px={POSES + k: float(moved) for k, moved in enumerate(swing_px)},
    )


def photographs(folder: Path) -> Filmed:
    truth = json.loads((folder / "gt.json").read_text())
    pictures = [{"file": folder / "images" / name, **truth[name]} for name in sorted(truth)]
    return Filmed(
        name=folder.name,
        order=[pose for pose in range(len(pictures)) for _ in range(RATE // 5)],
        even=list(range(len(pictures))),
        pictures=pictures,
        blur_px=(10, 30),
        swing_px={},
    )


def blurred(order: list[int], length_px: tuple[float, float], seed: int) -> list[dict[str, Any]]:
    """Frames with pose and blur, 40 % of them blurred in bursts."""
    rng = np.random.default_rng(7 + seed)
    frames: list[dict[str, Any]] = [{"pose": pose, "blur_px": 0.0, "angle": 0.0} for pose in order]
    sharp = list(range(len(frames)))
    while len(sharp) > 0.6 * len(frames):
        start, angle = int(rng.integers(len(frames))), float(rng.uniform(0, np.pi))
        for frame in frames[start : start + int(rng.integers(1, 6))]:
            frame |= {"blur_px": float(rng.uniform(*length_px)), "angle": angle}
        sharp = [k for k, frame in enumerate(frames) if not frame["blur_px"]]
    return frames


def seen(frame: dict[str, Any], picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A frame with its blur and noise."""
    if frame["blur_px"]:
        half = int(frame["blur_px"] / 2) + 2
        kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
        for along in np.linspace(-0.5, 0.5, 201) * frame["blur_px"]:
            kernel[round(half + along * np.sin(frame["angle"])), round(half + along * np.cos(frame["angle"]))] += 1
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(picture + 1.5 * noise, 0, 255).astype(np.uint8)


def write(path: Path, frames: list[dict[str, Any]], pictures: list[dict[str, Any]]) -> Path:
    if path.exists():
        return path

    def pixels() -> Iterator[np.ndarray]:
        rng, shown, picture = np.random.default_rng(1), -1, np.zeros(0)
        for frame in frames:
            if frame["pose"] != shown:
                shown, picture = frame["pose"], np.asarray(Image.open(pictures[frame["pose"]]["file"]))
            yield seen(frame, picture, rng)

    return encode(path, pixels())


def encode(
    path: Path, frames: Iterable[np.ndarray], preset: str = "fast", rate: int = RATE, quality: str = "18"
) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate)
        stream.options = {"preset": preset, "crf": quality}
        stream.pix_fmt = "yuv420p"
        for number, rgb in enumerate(frames):
            if number == 0:
                stream.height, stream.width = rgb.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        container.mux(stream.encode())
    return path


# --------------------------------------------------------------------------------------------------------- comparison


def compare_all(work: Path, filmed: Filmed, mapper: str, most: int, videos: int) -> None:
    """Models of chosen and of sharp evenly spaced frames of every video; of the first also of others."""
    rows = "frames", "number", "blurred", "registered", "models", "AUC@1", "AUC@3", "AUC@5", "CPU s"
    print(f"| {' | '.join(rows)} |\n|{'---|' * len(rows)}", flush=True)
    figures = []
    for seed in range(videos):
        frames = filmed.frames(seed)
        video = write(work / f"{filmed.name}-{seed}.mp4", frames, filmed.pictures)
        chosen = choose(video, work, frames, filmed, mapper, most)
        count = int(chosen[0])
        at = (np.arange(count) + (seed + 0.5) / videos) * len(filmed.even) / count
        poses = [filmed.even[k] for k in at.astype(int)]
        perfect = sharp(work, video.stem, poses, filmed, mapper, most)
        figures.append([chosen[1:], perfect, unblurred(work, video.stem, poses, filmed, mapper, most)])
        if seed == 0:
            plain(work, video, frames, count, filmed, mapper, most)
    of_chosen, of_sharp, of_encoded = np.swapaxes(figures, 0, 1)
    for name, others in (("sharp", of_sharp), ("sharp, out of a video", of_encoded)):
        lost = of_chosen - others
        error = lost.std(axis=0, ddof=1) / np.sqrt(videos) if videos > 1 else np.full(3, np.nan)
        print(f"AUC@1, 3, 5, chosen less {name}: {np.round(lost.mean(axis=0), 3)} +- {np.round(error, 3)}")


def choose(
    video: Path, work: Path, frames: list[dict[str, Any]], filmed: Filmed, mapper: str, most: int
) -> list[float]:
    """Number of frames that `reconstruct` chooses, and the figures of their model."""
    output = work / f"{video.stem}-chosen-{mapper}"
    done = reconstruct(video, output, mapper, most)
    (record,) = json.loads((output / "frames" / "frames.json").read_text())["videos"]
    chosen = [round(RATE * time_s) for time_s in record["time_s"]]
    blurs = [k for k in chosen if frames[k]["blur_px"]]
    needless = [k for k in blurs if any(not f["blur_px"] for f in near(frames, k))]
    name = f"chosen of {video.stem}, {len(needless)} blurred with a sharp one within {NEAR_S} s"
    names = dict(zip(record["names"], chosen, strict=True))
    figures = auc(output, work, names, frames, filmed.pictures)
    row(name, done, figures, len(chosen), len(blurs))
    return [len(chosen), *figures]


def sharp(work: Path, stem: str, poses: list[int], filmed: Filmed, mapper: str, most: int) -> list[float]:
    """Figures of perfect frames, as rendered or photographed."""
    rng = np.random.default_rng(2)
    frames: list[dict[str, Any]] = [{"pose": pose, "blur_px": 0.0, "angle": 0.0} for pose in poses]
    folder, output = work / f"{stem}-sharp", work / f"{stem}-sharp-{mapper}"
    save(folder, (seen(f, np.asarray(Image.open(filmed.pictures[f["pose"]]["file"])), rng) for f in frames))
    done = reconstruct(folder, output, mapper, most)
    names = {f"{k:05d}.jpg": k for k in range(len(poses))}
    figures = auc(output, work, names, frames, filmed.pictures)
    row(f"sharp, evenly spaced, as many as of {stem}", done, figures, len(poses), 0)
    return figures


def unblurred(work: Path, stem: str, poses: list[int], filmed: Filmed, mapper: str, most: int) -> list[float]:
    """The same out of a video without blur."""
    frames: list[dict[str, Any]] = [{"pose": pose, "blur_px": 0.0, "angle": 0.0} for pose in filmed.order]
    video = write(work / f"{filmed.name}-unblurred.mp4", frames, filmed.pictures)
    first = [filmed.order.index(pose) for pose in poses]
    folder, output = work / f"{stem}-encoded", work / f"{stem}-encoded-{mapper}"
    save(folder, (frame.rgb() for frame in VideoStream(video) if frame.number in first))
    done = reconstruct(folder, output, mapper, most)
    names = {f"{k:05d}.jpg": number for k, number in enumerate(first)}
    figures = auc(output, work, names, frames, filmed.pictures)
    row("the same, out of a video of them", done, figures, len(poses), 0)
    return figures


def plain(
    work: Path, video: Path, frames: list[dict[str, Any]], count: int, filmed: Filmed, mapper: str, most: int
) -> None:
    """Every so many-th frame."""
    taken = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int)).tolist()
    folder, output = work / f"{video.stem}-plain", work / f"{video.stem}-plain-{mapper}"
    save(folder, (frame.rgb() for frame in VideoStream(video) if frame.number in taken))
    done = reconstruct(folder, output, mapper, most)
    names = {f"{k:05d}.jpg": number for k, number in enumerate(taken)}
    blurs = [k for k in taken if frames[k]["blur_px"]]
    figures = auc(output, work, names, frames, filmed.pictures)
    row("plain rate", done, figures, len(taken), len(blurs))


def row(name: str, done: tuple[int, int, float], figures: list[float], count: int, blurs: int) -> None:
    registered, models, cpu_s = done
    marks = " | ".join(f"{value:.3f}" for value in figures)
    print(f"| {name} | {count} | {blurs} | {registered} | {models} | {marks} | {cpu_s:.0f} |", flush=True)


def near(frames: list[dict[str, Any]], k: int) -> list[dict[str, Any]]:
    reach = int(NEAR_S * RATE)
    return frames[max(k - reach, 0) : k + reach + 1]


def save(folder: Path, pictures: Iterable[np.ndarray]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, rgb in enumerate(pictures):
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG", quality=95)
        (folder / f"{number:05d}.jpg").write_bytes(buffer.getvalue())


def reconstruct(source: Path, output: Path, mapper: str, most: int = 200) -> tuple[int, int, float]:
    """Photographs in the largest model, number of models, and CPU seconds."""
    command = [
        sys.executable,
        "-m",
        "anchorsfm",
        "reconstruct",
        str(source),
        "-o",
        str(output),
        "--no-dense",
        "--quiet",
    ]
    command += ["--mapper", mapper, "--classical.workers.num-workers", "1"]
    command += ["--frames", str(most)] if source.is_file() else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report = json.loads((output / "report.json").read_text())
    models = report["models"]
    return models[0]["registered"], len(models), sum(stage["cpu_s"] for stage in report["stages"])


def auc(
    output: Path,
    work: Path,
    number_of: dict[str, int],
    frames: list[dict[str, Any]],
    pictures: list[dict[str, Any]],
) -> list[float]:
    truth = {}
    for name, number in number_of.items():
        pose = pictures[frames[number]["pose"]]
        truth[name] = {
            "R_cam_from_world": np.asarray(pose["R_cam_from_world"]).tolist(),
            "t_cam_from_world": np.asarray(pose["t_cam_from_world"]).reshape(-1).tolist(),
        }
    file = work / f"{output.name}-truth.json"
    file.write_text(json.dumps(truth))
    command = [sys.executable, "-m", "anchorsfm", "evaluate", str(output), "--truth", str(file), "--json"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return [figures["auc_1"], figures["auc_3"], figures["auc_5"]]


# --------------------------------------------------------------------------------------------------- time and memory


def cost(work: Path, video: Path) -> None:
    """Both passes, and the second one alone, as in a run that finds in its cache what was measured."""
    shutil.rmtree(work / "cost", ignore_errors=True)
    store = Store(work / "cost" / "store")
    spent = []
    for name in ("both", "writing"):
        folder = FolderPart(owned=OwnedFolder(work / "cost" / name))
        before, start = os.times(), time.monotonic()
        (made,) = make_frames([video], VideoConfig(), folder, store, SILENT, keep_others=False)
        after = os.times()
        spent.append(np.array([after.user + after.system - before.user - before.system, time.monotonic() - start]))
    print(f"{video.name}: {made.duration_s:.1f} s, {made.decoded} frames, {len(made.names)} chosen")
    for name, (cpu_s, wall_s) in (("choosing", spent[0] - spent[1]), ("writing", spent[1])):
        shares = f"{cpu_s / made.duration_s:.3f}, {wall_s / made.duration_s:.3f}"
        print(f"{name}: {cpu_s:.1f} CPU s, {wall_s:.1f} s; of the duration {shares}")


def memory(work: Path) -> None:
    """Peak resident memory of `anchorsfm frames`."""
    print("| video | frames | peak, MiB | CPU s |\n|---|---:|---:|---:|", flush=True)
    for (width, height), rate, durations_s in LONG:
        once = work / f"{width}-{rate}-once.mp4"
        if not once.exists():
            small = np.random.default_rng(0).integers(0, 256, (height // 8, (width + 60 * 8) // 8, 3), np.uint8)
            picture = cv2.resize(small, (width + 60 * 8, height), interpolation=cv2.INTER_CUBIC)
            encode(once, (picture[:, 8 * k : 8 * k + width] for k in range(60)), "ultrafast", rate, "38")
        for duration_s in durations_s:
            path, output = repeated(once, duration_s * rate // 60, work), work / "long-frames"
            shutil.rmtree(output, ignore_errors=True)
            arguments = ["frames", str(path), "-o", str(output), "--quiet"]
            script = (
                f"from anchorsfm.cli.main import main; main({arguments!r})\nprint(open('/proc/self/status').read())"
            )
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            (peak_kib,) = re.findall(r"VmHWM:\s*(\d+) kB", told)
            name = f"{duration_s // 60} minutes of {width} x {height}, {rate} a second"
            print(f"| {name} | {duration_s * rate} | {int(peak_kib) / 1024:.0f} | {cpu_s:.0f} |", flush=True)
            path.unlink()


def repeated(once: Path, times: int, work: Path) -> Path:
    """A video many times over, not encoded again."""
    target = work / "long.mp4"
    with av.open(str(target), "w") as container:
        stream: Any = None
        start = 0
        for _ in range(times):
            with av.open(str(once)) as source:
                given = source.streams.video[0]
                stream = container.add_stream_from_template(given) if stream is None else stream
                end = start
                for packet in source.demux(given):
                    if packet.dts is not None and packet.pts is not None:
                        packet.dts, packet.pts = packet.dts + start, packet.pts + start
                        end = max(end, packet.pts + (packet.duration or 0))
                        packet.stream = stream
                        container.mux(packet)
                start = end
    return target


if __name__ == "__main__":
    main()
