"""Weights: found, checked, identified, licensed; hostile files do not run code."""

import argparse
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from anchorsfm.frontend.mast3r import weights
from anchorsfm.frontend.mast3r.weights import DEFAULT_WEIGHTS, KNOWN_WEIGHTS, load_network, resolve_weights
from anchorsfm.io.weights import identity, licence
from anchorsfm.networks.mast3r import (
    Architecture,
    DptWidths,
    architecture_from_arguments,
    empty_network,
    parse_constructor,
)
from anchorsfm.scene.errors import InputError
from tiny_network import DUST3R, MAST3R, random_parameters, write_weights

ARGUMENTS = {
    "output_mode": "pts3d+desc24",
    "head_type": "catmlp+dpt",
    "pos_embed": "RoPE100",
    "patch_embed_cls": "ManyAR_PatchEmbed",
    "depth_mode": ["exp", -float("inf"), float("inf")],
    "conf_mode": ["exp", 1, float("inf")],
    "desc_conf_mode": ["exp", 0, float("inf")],
    "two_confs": True,
    "img_size": [64, 48],
    "enc_embed_dim": 64,
    "enc_depth": 2,
    "enc_num_heads": 4,
    "dec_embed_dim": 64,
    "dec_depth": 4,
    "dec_num_heads": 2,
    "dpt_overrides": {"layer_dims": [4, 6, 8, 10], "feature_dim": 8, "last_dim": 4},
}
SMALL = Architecture(
    image_size=64,
    encoder_width=64,
    encoder_depth=2,
    encoder_heads=4,
    decoder_width=64,
    decoder_depth=4,
    decoder_heads=2,
    dpt=DptWidths(levels=(4, 6, 8, 10), fused=8, last=4),
)
FROM_SHAPES = Architecture(**{**vars(SMALL), "image_size": 512, "encoder_heads": 1, "decoder_heads": 1})


pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the user's own records."""
    monkeypatch.setenv("ANCHORSFM_CACHE", str(tmp_path / "user"))
    monkeypatch.delenv(licence.ACCEPT_VARIABLE, raising=False)
    return tmp_path / "user"


def write_safetensors(folder: Path, config: dict | None = ARGUMENTS, name: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file(random_parameters(SMALL), folder / name)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder / name


def constructor_text(arguments: dict[str, Any]) -> str:
    return f"AsymmetricMASt3R({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


# ------------------------------------------------------------------------------------------------------- local files


def test_safetensors_with_config(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a")
    found = resolve_weights(str(path))
    assert found.architecture == SMALL
    assert found.licence.accepted == "not asked"
    network = load_network(found)
    assert torch.equal(network.state_dict()["enc_norm.bias"], random_parameters(SMALL)["enc_norm.bias"])
    assert not network.training and not any(value.requires_grad for value in network.parameters())
    with torch.inference_mode():
        tokens = network.encode(torch.zeros(1, 3, 32, 48))
        assert network.predict(tokens, tokens).first.points.isfinite().all()
    assert resolve_weights(str(tmp_path / "a")).digest == found.digest  # the folder


def test_safetensors_without_config(tmp_path: Path) -> None:
    assert resolve_weights(str(write_safetensors(tmp_path / "a", config=None))).architecture == FROM_SHAPES


def test_half_precision_files_are_loaded_in_float32(tmp_path: Path) -> None:
    save_file({name: value.half() for name, value in random_parameters(SMALL).items()}, tmp_path / "m.safetensors")
    network = load_network(resolve_weights(str(tmp_path / "m.safetensors")))
    assert all(value.dtype == torch.float32 for value in network.parameters())


def test_config_that_does_not_fit(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a", config={**ARGUMENTS, "enc_depth": 3})
    with pytest.raises(InputError, match=r"model\.safetensors .* 12 missing: enc_blocks\.2\.norm1\.weight"):
        resolve_weights(str(path))


def test_infinity_may_be_text_in_config(tmp_path: Path) -> None:
    config = {**ARGUMENTS, "conf_mode": ["exp", 1, "inf"], "depth_mode": ["exp", "-inf", "Infinity"]}
    assert resolve_weights(str(write_safetensors(tmp_path / "a", config=config))).architecture == SMALL


@pytest.mark.parametrize("content", ["{", "[1]", '{"enc_depth": []}'])
def test_damaged_config(tmp_path: Path, content: str) -> None:
    path = write_safetensors(tmp_path / "a")
    path.with_name("config.json").write_text(content)
    with pytest.raises(InputError):
        resolve_weights(str(path))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x80\x04.", bytes(64)])
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        resolve_weights(str(tmp_path / name))


def test_truncated_checkpoint(tmp_path: Path) -> None:
    torch.save(random_parameters(SMALL), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"half\.pth"):
        resolve_weights(str(tmp_path / "half.pth"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/model.safetensors", "no such file"),
        ("no such thing", "no such file, and not a Hugging Face id"),
        ("{folder}", "folder without model.safetensors"),
        ("{folder}/notes.txt", "read from .safetensors and .pth"),
    ],
)
def test_sources_that_are_nothing(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=message):
        resolve_weights(source.format(folder=tmp_path))


# ------------------------------------------------------------------------------------------------------- checkpoints


def test_checkpoint_as_published(tmp_path: Path) -> None:
    content = {
        "args": argparse.Namespace(model=constructor_text(ARGUMENTS), lr=1e-4),
        "model": random_parameters(SMALL),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    found = resolve_weights(str(tmp_path / "checkpoint.pth"))
    assert found.architecture == SMALL
    assert torch.equal(load_network(found).mask_token, content["model"]["mask_token"])


@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoint_of_parameters_only(tmp_path: Path, legacy: bool) -> None:
    parameters = random_parameters(SMALL)
    torch.save(parameters, tmp_path / "plain.pth", _use_new_zipfile_serialization=not legacy)
    found = resolve_weights(str(tmp_path / "plain.pth"))
    assert found.architecture == FROM_SHAPES
    assert torch.equal(load_network(found).enc_norm.weight, parameters["enc_norm.weight"])


def test_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch.save({"model": {"a": 1}}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match="does not hold a dictionary of parameters"):
        resolve_weights(str(tmp_path / "odd.pth"))
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(InputError, match="does not hold a dictionary of parameters"):
        resolve_weights(str(tmp_path / "list.pth"))


class Attack:
    """Creates a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"model": {"a": evil}, "args": evil}])
@pytest.mark.parametrize("form", ["torch", "torch legacy", "pickle"])
def test_hostile_pickle_runs_no_code(tmp_path: Path, wrap: Callable[[Attack], Any], form: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "hostile.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(wrap(Attack(trace))))
    else:
        torch.save(wrap(Attack(trace)), path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(InputError, match=r"hostile\.pth was not loaded: .*run code"):
        resolve_weights(str(path))
    assert not trace.exists()
    if form == "torch":
        assert zipfile.is_zipfile(path)
        torch.load(path, weights_only=False)  # the attack is a real one
        assert trace.exists()


def test_reading_leaves_no_globals_allowed(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(model=None), "model": random_parameters(SMALL)}, tmp_path / "a.pth")
    resolve_weights(str(tmp_path / "a.pth"))
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('{trace}')",
        "AsymmetricMASt3R(enc_depth=__import__('os').mkdir('{trace}'))",
        "AsymmetricMASt3R(enc_depth=[os.mkdir('{trace}') for os in [__import__('os')]][0])",
        "AsymmetricMASt3R.__init__.__globals__['os'].mkdir('{trace}')",
        "AsymmetricMASt3R(**__import__('os').mkdir('{trace}'))",
        "AsymmetricMASt3R(__import__('os').mkdir('{trace}'))",
        "(lambda: AsymmetricMASt3R())()",
        "AsymmetricMASt3R(enc_depth=24) or 1",
        "AsymmetricMASt3R(enc_depth=9**9**9)",
        "AsymmetricMASt3R(enc_depth=24",
        "Other(enc_depth=24)",
        "AsymmetricMASt3R(enc_depth=" + "(" * 3000 + ")" * 3000 + ")",
        "AsymmetricMASt3R(enc_depth=" + "-" * 3000 + "1)",
        "AsymmetricMASt3R(enc_depth='" + "a" * 10000 + "')",
        "AsymmetricMASt3R(\0)",
        "",
    ],
)
def test_hostile_description_runs_no_code(tmp_path: Path, text: str) -> None:
    trace = tmp_path / "trace"
    content = {"args": argparse.Namespace(model=text.replace("{trace}", str(trace))), "model": random_parameters(SMALL)}
    torch.save(content, tmp_path / "hostile.pth")
    with pytest.raises(InputError, match=r"hostile\.pth: its network description"):
        resolve_weights(str(tmp_path / "hostile.pth"))
    assert not trace.exists()


def test_published_description() -> None:
    text = (
        "AsymmetricMASt3R(pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', img_size=(512, 512), "
        "head_type='catmlp+dpt', output_mode='pts3d+desc24', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
        "enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, dec_embed_dim=768, dec_depth=12, dec_num_heads=12, "
        "two_confs=True, desc_conf_mode=('exp', 0, inf))"
    )
    assert architecture_from_arguments(parse_constructor(text, "file"), "file") == Architecture()


# ---------------------------------------------------------------------------------------------------------- licences


def fake_hub(folder: Path, downloads: list[str]) -> SimpleNamespace:
    def download(name: str, file: str) -> str:
        downloads.append(f"{name}/{file}")
        if not (folder / file).exists():
            raise FileNotFoundError(f"no {file}\nmore lines")
        return str(folder / file)

    return SimpleNamespace(hf_hub_download=download)


def test_nothing_is_downloaded_before_the_licence_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[str] = []
    write_safetensors(tmp_path / "hub")
    monkeypatch.setattr(weights, "_hub", lambda: fake_hub(tmp_path / "hub", downloads))
    with pytest.raises(InputError, match=r"BY-NC-SA 4\.0.*--accept-weights-license"):
        resolve_weights()
    assert not downloads
    found = resolve_weights(accept_license=True)
    assert downloads == [f"{DEFAULT_WEIGHTS}/model.safetensors", f"{DEFAULT_WEIGHTS}/config.json"]
    assert found.source == DEFAULT_WEIGHTS and found.architecture == SMALL
    assert found.licence.accepted == "option" and "BY-NC-SA" in found.licence.terms
    assert resolve_weights().licence.accepted == "earlier"
    with pytest.raises(InputError, match="someone/else"):  # other weights, other terms
        resolve_weights("someone/else")


def test_the_environment_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_safetensors(tmp_path / "hub", config=None)
    monkeypatch.setattr(weights, "_hub", lambda: fake_hub(tmp_path / "hub", []))
    monkeypatch.setenv(licence.ACCEPT_VARIABLE, "0")
    with pytest.raises(InputError, match="terms"):
        resolve_weights("someone/else")
    monkeypatch.setenv(licence.ACCEPT_VARIABLE, "1")
    assert resolve_weights("someone/else").licence.accepted == "environment"


def test_a_renamed_published_file_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = weights.KnownWeights(
        name="naver/small", description="", terms="strict terms", architecture=SMALL, num_parameters=1
    )
    monkeypatch.setattr(weights, "KNOWN_WEIGHTS", (published,))
    path = write_safetensors(tmp_path / "a", name="mine.safetensors")
    with pytest.raises(InputError, match="naver/small come under these terms: strict terms"):
        resolve_weights(str(path))
    assert resolve_weights(str(path), accept_license=True).licence.weights == "naver/small"


def test_a_failed_download_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    monkeypatch.setattr(weights, "_hub", lambda: fake_hub(tmp_path / "hub", []))
    with pytest.raises(InputError, match=r"cannot download naver/.*\(no model\.safetensors\).*local file"):
        resolve_weights(accept_license=True)


def test_missing_download_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'anchorsfm\[mast3r\]'"):
        resolve_weights(accept_license=True)


def test_records_that_cannot_be_written_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ANCHORSFM_CACHE", str(tmp_path / "file" / "below"))
    assert resolve_weights(str(write_safetensors(tmp_path / "a"))).architecture == SMALL


# ----------------------------------------------------------------------------------------------------------- identity


def test_digest_follows_content_and_architecture(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a")
    first = resolve_weights(str(path)).digest
    assert resolve_weights(str(write_safetensors(tmp_path / "b"))).digest == first
    assert resolve_weights(str(write_safetensors(tmp_path / "c", config=None))).digest != first
    changed = random_parameters(SMALL)
    changed["enc_norm.bias"][3] += 1e-3
    save_file(changed, path)
    assert resolve_weights(str(path)).digest != first


def test_the_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_safetensors(tmp_path / "a")
    first = resolve_weights(str(path)).digest

    def refuse(*_arguments: object) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr(identity.hashlib, "file_digest", refuse)
    assert resolve_weights(str(path)).digest == first


def test_a_damaged_download_is_noticed(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a")
    blob = tmp_path / "a" / ("0" * 64)
    path.rename(blob)
    path.symlink_to(blob)
    with pytest.raises(InputError, match="damaged: delete"):
        resolve_weights(str(path))


def test_known_weights_are_what_they_say() -> None:
    assert KNOWN_WEIGHTS[0].architecture == Architecture()
    for known in KNOWN_WEIGHTS:
        assert sum(value.numel() for value in empty_network(known.architecture).parameters()) == known.num_parameters
        assert 2e9 < known.size_bytes < 3e9
        assert "BY-NC-SA" in known.terms


@pytest.mark.parametrize(
    ("key", "value"),
    [("enc_depth", 10**9), ("dec_depth", -1), ("enc_embed_dim", 10**40), ("patch_size", 0), ("img_size", [-5, -96]),
     ("pos_embed", "RoPE0"), ("dpt_overrides", [1])],
)  # fmt: skip
def test_absurd_sizes_are_refused_at_once(tmp_path: Path, key: str, value: object) -> None:
    source = write_weights(tmp_path / "tiny", MAST3R)
    (tmp_path / "tiny" / "config.json").write_text(json.dumps({**MAST3R, key: value}))
    with pytest.raises(InputError, match=r"model\.safetensors: ") as caught:
        resolve_weights(source, accept_license=True)
    assert len(str(caught.value)) < 400


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source = write_weights(tmp_path / "tiny", DUST3R)
    parameters = load_file(source)
    parameters["enc_norm.weight"][3] = float("nan")
    save_file(parameters, source)
    with pytest.raises(InputError, match=r"1 parameters hold numbers that are not finite: enc_norm\.weight"):
        load_network(resolve_weights(source, accept_license=True))
