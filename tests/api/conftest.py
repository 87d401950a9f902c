"""Small photographs and one run of them, which the tests of the Python API share."""

from pathlib import Path

import pytest

import anchorsfm


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ (four pictures of a synthetic scene) and truth.json."""
    from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs

    folder = tmp_path_factory.mktemp("workplace")
    write_photographs(make_scene(SceneConfig(num_images=4, size_wh=(256, 192), arc_deg=30.0, seed=3)), folder)
    (folder / "images").rename(folder / "photos")
    return folder


@pytest.fixture(scope="session")
def run(workplace: Path) -> tuple[anchorsfm.Model, Path]:
    """The model of the photographs and the folder it was written to."""
    output = workplace / "out"
    model = anchorsfm.reconstruct(str(workplace / "photos"), str(output), max_image_size=1600, cloud__depth_maps=True)
    return model, output
