"""The command line as a user meets it: in processes of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from anchorsfm.cli.main import main
from command import COMMAND, QUICK, anchorsfm, assert_one_clear_line
from unix import full_disk, unix_only

FILES = ("cameras.bin", "images.bin", "points3D.bin")


@pytest.fixture(scope="module")
def finished(rendered, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("cli") / "out"
    result = anchorsfm("reconstruct", rendered / "images", "--output", output, *QUICK)
    assert result.returncode == 0, result.stderr
    assert "5 of 5 images registered in 1 model" in result.stdout
    assert "peak MiB" in result.stdout
    lines = [line for line in result.stdout.splitlines() if "% of the time went into" not in line]  # of slow runs only
    assert re.fullmatch(
        rf"cache: {re.escape(str(output / 'cache'))} \(\d+ MiB\): further runs start from it, .*", lines.pop(-2)
    )
    assert lines[-4:] == [
        f"model: {output / 'sparse' / '0'}",
        f"cloud: {output / 'dense' / '0.ply'}",
        f"report: {output / 'report.html'}",
        f"next: anchorsfm view {output}",
    ]
    assert "fine alignment: loss " in result.stdout
    return output


def test_evaluate_prints_a_table_and_json(finished, rendered):
    table = anchorsfm("evaluate", finished, "--truth", rendered / "truth.json")
    assert table.returncode == 0 and "AUC@1" in table.stdout
    for model in (finished, finished / "sparse", finished / "sparse" / "0"):
        figures = json.loads(anchorsfm("evaluate", model, "--truth", rendered / "truth.json", "--json").stdout)
        assert figures["num_registered"] == 5 and figures["auc_1"] > 0.95
    against_itself = anchorsfm("evaluate", finished, "--truth", finished, "--json")
    assert json.loads(against_itself.stdout)["auc_1"] > 0.999


def test_a_run_killed_in_every_stage_continues_to_the_same_bytes(finished, rendered, tmp_path):
    output = tmp_path / "out"
    arguments = [*COMMAND, "reconstruct", str(rendered / "images"), "--output", str(output), "--no-dense", *QUICK]
    for kind, entries in (("features", 2), ("verified-matches", 3), ("classical-dense", 3), ("alignment", 1)):
        stored = output / "cache" / kind
        assert len(list(stored.glob("*.safetensors"))) < entries, f"killed too late to interrupt {kind}"
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 120
            while len(list(stored.glob("*.safetensors"))) < entries and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.kill()
        assert process.returncode and not (output / "sparse").exists()
    assert anchorsfm(*arguments[3:]).returncode == 0
    for name in FILES:
        assert (output / "sparse" / "0" / name).read_bytes() == (finished / "sparse" / "0" / name).read_bytes()
    hidden = {path.relative_to(output).as_posix() for path in output.rglob(".*")}
    assert hidden == {".anchorsfm"} and not list(output.glob(".anchorsfm/staging-*")), (
        "temporary files of the killed run must not pile up"
    )


@unix_only
def test_interrupt_ends_with_one_line_and_continues(rendered, tmp_path):
    output = tmp_path / "out"
    arguments = [*COMMAND, "reconstruct", str(rendered / "images"), "--output", str(output), "--quiet", *QUICK]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )
    deadline = time.monotonic() + 120
    while not list((output / "cache" / "classical-dense").glob("*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and out == ""
    assert err == "interrupted: run the same command again and it continues\n"
    assert not (output / "sparse").exists()


def test_bad_inputs_end_with_one_line_that_names_them(rendered, tmp_path):
    out = ("--output", tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_one_clear_line(anchorsfm("reconstruct", empty, *out), str(empty))
    assert_one_clear_line(anchorsfm("reconstruct", tmp_path / "nowhere", *out), "nowhere")
    text = tmp_path / "text"
    text.mkdir()
    (text / "a.jpg").write_text("hello")
    result = anchorsfm("reconstruct", text, *out)
    assert result.returncode == 2 and "a.jpg" in result.stderr and "Traceback" not in result.stderr
    single = tmp_path / "single"
    single.mkdir()
    shutil.copy(rendered / "images" / "0000.jpg", single)
    assert_one_clear_line(anchorsfm("reconstruct", single, *out), "two")
    assert_one_clear_line(anchorsfm("reconstruct", rendered / "images", "--output", single / "0000.jpg"), "0000.jpg")
    assert_one_clear_line(anchorsfm("reconstruct", rendered / "images", *out, "--scene-graph", "spiral-3"), "spiral-3")
    lens = anchorsfm("reconstruct", rendered / "images", *out, "--camera-model", "FISHBOWL")
    assert_one_clear_line(lens, "--camera-model FISHBOWL", "SIMPLE_RADIAL")
    known = ("--known.model", rendered, "--mapper", "global")
    assert_one_clear_line(anchorsfm("reconstruct", rendered / "images", *out, *known), "--mapper global")
    assert_one_clear_line(anchorsfm("evaluate", empty, "--truth", rendered / "truth.json"), str(empty))
    assert_one_clear_line(anchorsfm("evaluate", rendered / "images", "--truth", tmp_path / "no.json"), "images")


def test_an_output_that_cannot_be_written_is_named_before_any_work(rendered, tmp_path):
    (tmp_path / "file").write_text("")
    result = anchorsfm("reconstruct", rendered / "images", "--output", tmp_path / "file" / "out")
    assert_one_clear_line(result, str(tmp_path / "file" / "out"), "--output")


@pytest.mark.parametrize("limit", [4_000, 60_000])
def test_a_full_disk_loses_nothing(rendered, tmp_path, limit):
    output = tmp_path / "out"
    arguments = ("reconstruct", rendered / "images", "--output", output, "--no-dense", "--quiet", *QUICK)
    with full_disk(limit):
        result = anchorsfm(*arguments)
    assert_one_clear_line(result, str(output))
    assert not (output / "sparse").exists()
    assert anchorsfm(*arguments).returncode == 0
    assert (output / "sparse" / "0" / "images.bin").exists()


def test_help_and_version():
    assert "reconstruct" in anchorsfm("--help").stdout
    assert "--max-image-size" in anchorsfm("reconstruct", "--help").stdout
    assert anchorsfm("--version").stdout.startswith("anchorsfm ")
    assert anchorsfm().returncode != 0
    assert anchorsfm("reconstruct").returncode == 2
    assert anchorsfm("reconstruct", os.devnull, "--output").returncode == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_commands_options_and_values_complete_in_bash(tmp_path):
    script = tmp_path / "completion"
    assert anchorsfm("--tyro-write-completion", "bash", script).returncode == 0
    typed = {"rec": "reconstruct", "reconstruct --scene": "--scene-graph", "reconstruct --mapper inc": "incremental"}
    typed |= {"reconstruct --mapp": "--mapper", "reconstruct --no-keep-ca": "--no-keep-cache"}
    for words, expected in typed.items():
        number = len(words.split())
        line = f"COMP_WORDS=(anchorsfm {words}); COMP_CWORD={number}; _tyro_anchorsfm; echo ${{COMPREPLY[@]}}"
        found = subprocess.run(["bash", "-c", f"source {script}; {line}"], capture_output=True, text=True)
        assert found.stdout.split() == [expected], found.stderr


@pytest.mark.parametrize(
    "arguments",
    [("reconstruct", "", "-o", "out"), ("reconstruct", "photos", "-o", ""), ("reconstruct", "photos", "--output="),
     ("demo", ""), ("report", ""), ("view", ""), ("evaluate", "model", "--truth", ""), ("export", "", "--to", "ply")],
)  # fmt: skip
def test_an_empty_argument_is_no_folder(arguments, monkeypatch, capsys, tmp_path):
    """What a shell makes of a variable that is not set would be the current folder."""

    def leave(code):
        raise SystemExit(code)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("anchorsfm.process.leave", leave)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "is a variable of the shell not set?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
