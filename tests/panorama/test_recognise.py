"""Which photographs are panoramas."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm.panorama.recognise import recognise
from anchorsfm.synthetic import SceneConfig, make_scene, render_image
from anchorsfm.synthetic.rigs import render_panorama

GPANO = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:ProjectionType="equirectangular" '
    "{more}/></rdf:RDF></x:xmpmeta>"
)
WHOLE = (
    'GPano:FullPanoWidthPixels="256" GPano:FullPanoHeightPixels="128" GPano:CroppedAreaImageWidthPixels="256" '
    'GPano:CroppedAreaImageHeightPixels="128"'
)
PART = WHOLE.replace('FullPanoWidthPixels="256"', 'FullPanoWidthPixels="512"')
SCENE = make_scene(SceneConfig(num_images=4, size_wh=(256, 128)))


def save(path: Path, pixels: np.ndarray, xmp: str | None = None) -> Path:
    more = {} if xmp is None else {"xmp": xmp.encode()}
    Image.fromarray(pixels).save(path, quality=92, **more)
    return path


@pytest.fixture(scope="module")
def panoramas(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("panoramas")
    return [save(folder / f"{k}.jpg", render_panorama(SCENE, k, 256)) for k in range(3)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    return [save(folder / f"{k}.jpg", render_image(SCENE, k)) for k in range(3)]


def test_pictures_of_the_whole_sphere_are_recognised_by_their_borders(panoramas: list[Path]) -> None:
    found = recognise(panoramas, all_of_aspect=False)
    assert [one.path for one in found.panoramas] == panoramas and found.panoramas[0].size_wh == (256, 128)


def test_photographs_twice_as_wide_as_high_are_none_unless_that_is_said(photographs: list[Path]) -> None:
    assert recognise(photographs, all_of_aspect=False).others == tuple(photographs)
    assert len(recognise(photographs, all_of_aspect=True).panoramas) == 3


def test_most_pictures_of_a_size_decide(panoramas: list[Path], photographs: list[Path]) -> None:
    assert len(recognise([*panoramas, photographs[0]], all_of_aspect=False).panoramas) == 4
    assert not recognise([panoramas[0], *photographs], all_of_aspect=False).panoramas


def test_what_a_program_says_counts(photographs: list[Path], tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(photographs[0]))
    said = save(tmp_path / "said.jpg", pixels, GPANO.format(more=WHOLE))
    bare = save(tmp_path / "bare.jpg", pixels, GPANO.format(more=""))
    part = save(tmp_path / "part.jpg", pixels, GPANO.format(more=PART))
    wild = save(tmp_path / "wild.jpg", pixels, GPANO.format(more='GPano:FullPanoWidthPixels="many"'))
    broken = save(tmp_path / "broken.jpg", pixels, GPANO.format(more="")[:-40])
    found = recognise([said, bare, part, wild, broken, photographs[1]], all_of_aspect=False)
    assert [one.path for one in found.panoramas] == [said, bare, wild]
    assert found.parts == (part,) and set(found.others) == {part, broken, photographs[1]}


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xe1\x00"])
def test_what_cannot_be_read_is_left_to_others(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    assert recognise([path, tmp_path / "missing.jpg"], all_of_aspect=True).others == (path, tmp_path / "missing.jpg")


def test_uniform_pictures_are_none(tmp_path: Path) -> None:
    grey = save(tmp_path / "grey.jpg", np.full((128, 256, 3), 128, np.uint8))
    assert not recognise([grey], all_of_aspect=False).panoramas
