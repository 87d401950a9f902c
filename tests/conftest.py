"""Shared fixtures. Shape annotations of the package are checked at run time in the tests."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers run side by side

from jaxtyping import install_import_hook

install_import_hook("anchorsfm", "typecheck.checked")

import pytest  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _shared_folder(name: str) -> Path:
    """A folder of reference data beside the checkout; its absence skips the test, a missing file in it does not."""
    folder = SHARED / name
    if not SHARED.is_dir():
        pytest.skip(f"reference data not available: {folder}")
    assert folder.is_dir(), f"{SHARED} exists but has no {name}"
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Reference outputs of a public implementation of sparse global alignment."""
    return _shared_folder("golden")


@pytest.fixture(scope="session")
def photos() -> Path:
    """Real photographs, two sets with laser-measured camera poses."""
    return _shared_folder("data")


@pytest.fixture(scope="session")
def bench_tools() -> Path:
    """Independent scene generator and pose evaluator."""
    return _shared_folder("bench")


@pytest.fixture(scope="session")
def learned_weights() -> Path:
    """The released weights of keypoint networks, which `.ci/fetch_weights` fetches."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("ANCHORSFM_TEST_WEIGHTS") or cache / "anchorsfm-tests" / "weights")
    if not folder.is_dir():
        pytest.skip(f"released weights not available: {folder}, see .ci/fetch_weights")
    return folder


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small photographs of a synthetic scene: folder with images/ and truth.json."""
    from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs

    folder = tmp_path_factory.mktemp("rendered")
    write_photographs(make_scene(SceneConfig(num_images=5, size_wh=(480, 360), arc_deg=50.0, seed=3)), folder)
    return folder
