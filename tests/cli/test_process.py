"""How a command ends: signals at any moment, output that nobody takes, odd locales, too little memory."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.cli.wording import in_words
from anchorsfm.io.memory import amount_asked, is_out_of_memory
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.errors import InputError, OutOfMemoryError
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs
from command import COMMAND, QUICK, anchorsfm, assert_one_clear_line
from unix import unix_only

pytestmark = unix_only
INTERRUPTED = "interrupted: run the same command again and it continues\n"
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(make_scene(SceneConfig(num_images=3, size_wh=(320, 240), arc_deg=24.0, seed=3)), folder)
    return folder / "images"


def start(*arguments: object, ignored: tuple[int, ...] = ()) -> subprocess.Popen:
    def as_in_a_terminal() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    return subprocess.Popen(
        list(map(str, arguments)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_a_terminal,
    )


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, 0.15),
        (signal.SIGTERM, 0.3),
        (signal.SIGHUP, 0.5),
        (signal.SIGTERM, 0.8),
        (signal.SIGINT, 1.1),
        (signal.SIGTERM, "features"),
        (signal.SIGHUP, "classical-dense"),
    ],
)
def test_a_signal_ends_a_run_with_one_line_at_any_moment(rendered, tmp_path, number, moment):
    """Seconds after the start, when libraries are loading, or once a kind of results is there."""
    output = tmp_path / "out"
    process = start(*COMMAND, "reconstruct", rendered / "images", "--output", output, "--quiet", *QUICK)
    if isinstance(moment, float):
        time.sleep(moment)
    else:
        while not list((output / "cache" / moment).glob("*.safetensors")):
            assert process.poll() is None
            time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (128 + number, "", INTERRUPTED)
    assert not list(output.rglob(".anchorsfm-*")), "what was being written is removed"


SCRIPT = """
import os, signal, sys, time
from anchorsfm import process
process.GRACE_S = 0.3
process.handle_signals()
"""


def test_ignored_signals_stay_ignored():
    """As `nohup` and the background jobs of a shell want it."""
    script = SCRIPT + "os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.5); print('alive')"
    process = start(sys.executable, "-c", script, ignored=(signal.SIGHUP,))
    assert process.communicate(timeout=20) == ("alive\n", "") and process.returncode == 0


def test_code_that_swallows_a_signal_is_ended_soon():
    script = f"""{SCRIPT}
with process.tidy_ending():
    while True:
        try:
            os.kill(os.getpid(), signal.SIGTERM) if not process._signals.received else None
            time.sleep(9)
        except BaseException:
            print("swallowed", file=sys.stderr)
"""
    process = start(sys.executable, "-c", script)
    assert process.communicate(timeout=8)[1] == INTERRUPTED and process.returncode == 143


def test_an_error_that_a_library_makes_of_a_signal_is_no_error():
    """Some imports turn what is raised inside them into exceptions of their own."""
    script = f"""{SCRIPT}
from anchorsfm.cli import main
def fail(arguments):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(9)
    except BaseException:
        raise ImportError("initialisation failed")
main._dispatch = fail
main.main(["weights"])
"""
    process = start(sys.executable, "-c", script)
    assert process.communicate(timeout=8)[1] == INTERRUPTED and process.returncode == 143


def test_a_signal_does_not_reach_threads_of_libraries():
    """PyCOLMAP's logging would take SIGTERM for a crash, in whichever thread it arrives."""
    script = f"""{SCRIPT}
import threading
masks = []
thread = threading.Thread(target=lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
thread.start(); thread.join()
print(signal.SIGTERM in masks[0])
"""
    assert start(sys.executable, "-c", script).communicate(timeout=20)[0] == "True\n"


def test_output_that_nobody_takes_does_not_end_a_command():
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run([*COMMAND, "weights"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, "")
    closed = subprocess.run(
        [*COMMAND, "weights"], stderr=subprocess.PIPE, text=True, timeout=60, preexec_fn=lambda: os.close(1)
    )
    assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_that_cannot_be_written_is_said():
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*COMMAND, "weights"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr == "error: cannot write to the standard output: No space left on device\n"


def test_names_of_any_kind_pass_through_a_c_locale(photographs, tmp_path):
    folder, output = tmp_path / "Töpfe", tmp_path / "aus ü"
    folder.mkdir()
    for photo in photographs.iterdir():
        (folder / f"größe\n{photo.name}").write_bytes(photo.read_bytes())
    first = next(photographs.iterdir()).read_bytes()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(first)
    (folder / "\x1b]0;title\x07\x1b[31m.jpg").write_text("not a picture")
    environment = os.environ | C_LOCALE
    arguments = (folder, "--output", output, "--no-dense", "--export", "tum", "transforms", *QUICK)
    result = anchorsfm("reconstruct", *arguments, env=environment)
    assert result.returncode == 0, result.stderr
    assert "3 of 5 images registered" in result.stdout and result.stdout.isascii()
    assert r"skipped caf\xe9.jpg: its name is not UTF-8" in result.stdout
    assert r"\x1b]0;title\x07\x1b[31m.jpg" in result.stdout and "\x1b" not in result.stdout
    figures = anchorsfm("evaluate", output, "--truth", output, env=environment)
    assert figures.returncode == 0 and figures.stderr == ""
    assert anchorsfm("report", output, "--quiet", env=environment).returncode == 0
    assert "größe" in (output / "report.html").read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------- memory


def test_memory_that_runs_out_names_the_stage_and_what_lowers_its_need(photographs, tmp_path, monkeypatch):
    def greedy(*_args, **_options):
        np.empty((1 << 40, 8))

    monkeypatch.setattr("anchorsfm.run.predictions.make_pairs", greedy)
    with pytest.raises(
        OutOfMemoryError, match=r"stage 'features, matches' .*64\.0 TiB.*lower max_image_size or"
    ) as caught:
        reconstruct(photographs, tmp_path / "out", PipelineConfig(dense=False))
    assert "lower --max-image-size or --classical.workers.num-workers, or use fewer" in in_words(caught.value)


def test_memory_that_runs_out_while_a_photograph_is_read_does_not_skip_it(photographs, tmp_path, monkeypatch):
    def greedy(*_args):
        raise MemoryError

    monkeypatch.setattr("anchorsfm.io.images.read_regular", greedy)
    with pytest.raises(OutOfMemoryError, match="stage 'images'"):
        reconstruct(photographs, tmp_path / "out", replace(PipelineConfig(), dense=False))


def test_every_library_is_understood():
    import cv2
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value) and amount_asked(caught.value) == "4294967296.0 MiB"
    assert is_out_of_memory(
        cv2.error("OpenCV(4.10) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 5")
    )
    assert not is_out_of_memory(InputError("out of memory")) and not is_out_of_memory(RuntimeError("no"))


def test_too_little_memory_to_start_is_one_line(tmp_path):
    import resource

    limit = 400 * 2**20
    result = anchorsfm(
        "evaluate",
        tmp_path,
        "--truth",
        tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert_one_clear_line(result, "too little memory")
