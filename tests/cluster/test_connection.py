"""What a user is told of a cluster that cannot be used, before any photograph is read."""

import importlib.util
import socket
import subprocess
from pathlib import Path

import pytest

from anchorsfm.run.checks import check_settings
from anchorsfm.run.cluster import parse_cluster
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.errors import InputError, SettingError


@pytest.mark.parametrize("address", ["auto", "local", "10.0.0.5:6379", "head.example.org:6379", "[fe80::1]:6379"])
def test_addresses(address: str) -> None:
    assert parse_cluster(address) == PipelineConfig(ray=address).ray == address


@pytest.mark.parametrize("address", ["", "here", "10.0.0.5", "host:port", "host:0", "host:99999", "ray://host:10001"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingError, match="must be auto, local, or HOST:PORT"):
        PipelineConfig(ray=address)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anchorsfm.run.cluster.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'anchorsfm\[ray\]'"):
        check_settings(PipelineConfig(ray="local"))


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_an_address_where_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"no Ray cluster can be reached at {address} .*--head"):
            check_settings(PipelineConfig(ray=address))


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_an_address_where_something_else_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anchorsfm.cluster.connection._ANSWER_S", 0.5)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        for asked in (address, "auto"):
            with pytest.raises(InputError, match=f"what listens at {address} does not answer"):
                check_settings(PipelineConfig(ray=asked))


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_that_wants_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(words: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(1, words, stderr=b"RPC error: InvalidAuthToken: missing or incorrect")

    monkeypatch.setattr("anchorsfm.cluster.connection.subprocess.run", refused)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"cluster at {address} wants a token: set RAY_AUTH_MODE=token here and"):
            check_settings(PipelineConfig(ray=address))


def test_a_cluster_of_another_machine_is_no_part_of_the_settings(tmp_path: Path) -> None:
    from anchorsfm.cli.parsing import parse

    path = tmp_path / "config.yaml"
    path.write_text("{seed: 3, ray: '10.0.0.5:6379', cache_url: 's3://a/b'}")
    command = parse("reconstruct", ["x", "-o", "y", "--config", str(path)])
    settings = command.configured()  # type: ignore[attr-defined]
    assert (settings.seed, settings.ray, settings.cache_url) == (3, None, None)
