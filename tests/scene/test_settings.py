"""Every setting of every configuration and command, with values nobody should be able to set."""

import dataclasses
import enum
import math
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import anchorsfm
from anchorsfm.align.config import AlignConfig, ReferenceCompat, Solver
from anchorsfm.cli.commands import COMMANDS
from anchorsfm.cli.view import View
from anchorsfm.cli.wording import in_words
from anchorsfm.export.config import ExportConfig
from anchorsfm.features.config import FeatureConfig
from anchorsfm.frontend import FRONTENDS, ClassicalFrontend, FrontendName
from anchorsfm.frontend.classical.config import DenseConfig, MatchingConfig
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.mapping.incremental import FromScratchConfig
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.predictions import chosen_frontend
from anchorsfm.scene.errors import InputError, SettingError
from anchorsfm.scene.settings import Constraint, OneOf, Range, Settings, parts_of, place_of
from anchorsfm.synthetic import SceneConfig
from anchorsfm.synthetic.scenes import LensConfig

ROOTS = [PipelineConfig, ExportConfig, SceneConfig, LensConfig, FromScratchConfig, *COMMANDS.values()]
REQUIRED = {
    "photos": (Path("a"),), "output": Path("b"), "model": Path("c"), "truth": Path("d"), "to": ("ply",),
    "videos": (Path("e"),), "poses": Path("f"), "first": Path("g"), "second": Path("h"),
}  # fmt: skip
WILD = [
    math.nan, math.inf, -math.inf, -1, -1.0, -1e-300, 0, 0.0, 0.5, 1e30, 10**400, 2**64, 10**5000, True, "", " ", "nan",
    "Auto", "no such thing", "a\0b", b"1", None, [], [1], (math.nan,), ("x",), {}, object(), 1j, np.float64("nan"),
    np.int64(-5), np.array([1.0, 2.0]), Path("x"), Solver.ADAM,
]  # fmt: skip


def classes(root: type) -> list[type]:
    """A configuration and all that it is made of."""
    return [root, *(found for _, part in parts_of(root) for found in classes(part))]


EVERY = list(dict.fromkeys(kind for root in ROOTS for kind in classes(root)))
FIELDS = [(kind, entry.name) for kind in EVERY for entry in fields(kind)]


def made(kind: type, **values: Any) -> Any:
    required = {f.name: REQUIRED[f.name] for f in fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
    return kind(**{**required, **values})


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, constraints included; written apart from the check it tests."""
    origin = get_origin(hint)
    if origin is Annotated:
        kind, *declared = get_args(hint)
        within = all(d.problem(value) is None for d in declared if isinstance(d, Constraint) and value is not None)
        return fits(value, kind) and within
    if origin is Literal:
        return type(value) is str and value in get_args(hint)
    if origin is tuple:
        kinds = get_args(hint)
        kinds = (kinds[0],) * len(value) if kinds[-1] is Ellipsis else kinds
        return type(value) is tuple and all(fits(v, k) for v, k in zip(value, kinds, strict=True))
    if origin is not None or type(hint).__name__ == "UnionType":
        return any(fits(value, kind) for kind in get_args(hint))
    if hint in (int, float):
        return type(value) is hint and math.isfinite(value)
    return isinstance(value, hint)


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{kind.__name__}.{name}" for kind, name in FIELDS])
def test_a_wild_value_is_refused_by_name_or_allowed(kind: type, name: str) -> None:
    hint = get_type_hints(kind, include_extras=True)[name]
    for value in WILD:
        try:
            config = made(kind, **{name: value})
        except SettingError as error:
            assert error.owner is kind and error.setting.split(".")[0] in {f.name for f in fields(kind)}
            assert str(error).startswith(f"{kind.__name__}.") and "\n" not in str(error) and len(str(error)) < 400
        else:
            assert fits(getattr(config, name), hint), (kind, name, value)


def test_every_number_has_a_range_and_every_string_a_meaning() -> None:
    """A number or string that declares nothing is accepted whatever it is, and ends in a traceback later."""

    def bare(hint: Any, declared: bool = False) -> bool:
        declared |= get_origin(hint) is Annotated and any(isinstance(d, Constraint) for d in get_args(hint)[1:])
        if hint in (int, float, str):
            return not declared
        parts = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
        return get_origin(hint) is not Literal and any(bare(part, declared) for part in parts)

    hints = {kind: get_type_hints(kind, include_extras=True) for kind in EVERY}
    found = {(kind.__name__, name) for kind, name in FIELDS if bare(hints[kind][name])}
    assert not found


def test_every_configuration_is_checked() -> None:
    for kind in EVERY:
        for name, hint in get_type_hints(kind).items():
            inner = hint if isinstance(hint, type) else next(iter(get_args(hint)), None)
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                assert issubclass(inner, Settings), (kind, name)


class Colour(enum.StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Part(Settings):
    share: Annotated[float, Range(0, 1, above=True)] = 0.5


@dataclass(frozen=True, kw_only=True)
class Whole(Settings):
    part: Part = field(default_factory=Part)
    colour: Colour = Colour.RED
    size: Annotated[int | None, Range(2, 20000)] = None
    kind: Literal["solid", "hollow"] = "solid"
    name: Annotated[str, OneOf("PINHOLE", "RADIAL")] = "RADIAL"
    path: Path | None = None
    pair: tuple[float, Annotated[float, Range(0)]] = (0.0, 0.0)
    on: bool = False


def test_what_is_unambiguous_is_converted() -> None:
    whole = Whole(colour="red", size=np.int32(5), path="a/b", pair=[1, np.float32(2)], on=np.True_, part=Part(share=1))
    assert whole == Whole(colour=Colour.RED, size=5, path=Path("a/b"), pair=(1.0, 2.0), on=True, part=Part(share=1.0))
    assert [type(getattr(whole, f.name)) for f in fields(whole)][1:3] == [Colour, int]
    assert type(whole.part.share) is float and type(whole.pair[0]) is float and type(whole.on) is bool


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "Red"}, "Whole.colour = Red: did you mean red? choose one of red"),
        ({"kind": "hallow"}, "Whole.kind = hallow: did you mean hollow? choose one of solid, hollow"),
        ({"name": "radial"}, "Whole.name = radial: did you mean RADIAL? choose one of PINHOLE, RADIAL"),
        ({"size": 1}, "Whole.size = 1: must be from 2 to 20 000"),
        ({"size": 3.0}, "Whole.size = 3.0: must be a whole number"),
        ({"size": True}, "Whole.size = True: must be a whole number"),
        ({"size": "3"}, "Whole.size = 3: must be a whole number"),
        ({"size": 10**5000}, "Whole.size = a number of thousands of digits: must be from 2 to 20 000"),
        ({"pair": (1.0, -2.0)}, "Whole.pair = (1.0, -2.0): must be at least 0"),
        ({"pair": (1.0,)}, "Whole.pair = (1.0,): must have 2 elements"),
        ({"on": 1}, "Whole.on = 1: must be True or False"),
        ({"path": ""}, "Whole.path = '': is empty: name a file or folder"),
        ({"part": {"share": 1}}, "Whole.part = {'share': 1}: must be a Part"),
        ({"kind": "x" * 100}, f"Whole.kind = {'x' * 56} ...: choose one of solid, hollow"),
    ],
)
def test_messages(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Whole(**values)


def test_ranges_say_which_ends_are_in() -> None:
    with pytest.raises(InputError, match="must be more than 0 and at most 1"):
        Part(share=0)
    assert Range(below=True, high=3).problem(3.0) == "must be less than 3"


def test_names_that_ran_something_else() -> None:
    with pytest.raises(InputError, match=r"PipelineConfig\.frontend = Mast3r: did you mean mast3r\?"):
        PipelineConfig(frontend="Mast3r")
    with pytest.raises(InputError, match=r"PipelineConfig\.mapper = Tracks: did you mean tracks\?"):
        PipelineConfig(mapper="Tracks")
    with pytest.raises(InputError, match=r"AlignConfig\.solver = second_order: did you mean second-order\?"):
        AlignConfig(solver="second_order")
    assert AlignConfig(solver="adam") == AlignConfig(solver=Solver.ADAM)


def test_settings_that_exclude_each_other() -> None:
    with pytest.raises(InputError, match=r"KnownConfig\.position_sigma = 1\.0: .*freeze_poses"):
        KnownConfig(position_sigma=1.0)
    no_depth = ClassicalFrontend(dense=DenseConfig(enabled=False))
    for settings in ({}, {"mapper": "tracks"}, {"dense": False}):
        with pytest.raises(InputError, match=r"PipelineConfig\.classical\.dense\.enabled = False"):
            PipelineConfig(classical=no_depth, **settings)
    PipelineConfig(classical=no_depth, mapper="tracks", dense=False)
    with pytest.raises(InputError, match=r"DenseConfig\.min_planes = 200: .* max_planes, 160"):
        DenseConfig(min_planes=200)


@pytest.mark.parametrize(
    "setting",
    [{"lr1": 0.1}, {"lr2": 0.1}, {"gamma1": 1.0}, {"schedule": "linear"}, {"tolerance": 0.0}, {"patience": 5}],
)
def test_what_only_adam_has_is_refused_without_it(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"AlignConfig\.{next(iter(setting))} = .*second-order has no such.*use adam"):
        AlignConfig(**setting)
    AlignConfig(solver="adam", **setting)


def test_what_either_solver_lacks_is_refused() -> None:
    shared = ReferenceCompat(repeated_shared_steps=True)
    with pytest.raises(InputError, match=r"AlignConfig\.reference\.repeated_shared_steps = True"):
        AlignConfig(reference=shared)
    AlignConfig(solver="adam", reference=shared)
    with pytest.raises(InputError, match=r"AlignConfig\.compiled = False: .*use second-order"):
        AlignConfig(solver="adam", compiled=False)


def test_the_command_line_names_flags() -> None:
    assert place_of(MatchingConfig, PipelineConfig) == ("classical", "matching")
    with pytest.raises(SettingError) as raised:
        MatchingConfig(max_ratio=1.5)
    assert in_words(raised.value) == "--classical.matching.max-ratio 1.5: must be from 0.1 to 1"
    with pytest.raises(SettingError) as raised:
        made(View, port=0)
    assert in_words(raised.value) == "--port 0: must be from 1 to 65 535"
    with pytest.raises(SettingError) as raised:
        ExportConfig(jpeg_quality=101)
    assert in_words(raised.value) == "--jpeg-quality 101: must be from 1 to 100"


# ------------------------------------------------------------------------------------------- settings without effect


def test_every_setting_is_read_somewhere() -> None:
    source = "\n".join(path.read_text() for path in Path(anchorsfm.__file__).parent.rglob("*.py"))
    unread = [f"{kind.__name__}.{name}" for kind, name in FIELDS if not re.search(rf"\.{name}\b", source)]
    assert not unread


def changed(config: Any) -> Any:
    """A configuration with another value of every number and choice."""
    values = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        if isinstance(value, Settings):
            values[entry.name] = changed(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            values[entry.name] = type(value)(value + 1) if isinstance(value, int) else value * 0.9
        elif value is None:
            kind = str(entry.type)
            values[entry.name] = Path("x") if "Path" in kind else "sift" if "'sift'" in kind else 777
    return replace(config, **values)


def test_what_the_front_end_is_told_reaches_it() -> None:
    """The run fills in what was left open, and overrides nothing that was set."""
    ours = changed(ClassicalFrontend())
    assert chosen_frontend(PipelineConfig(classical=ours, seed=3, max_image_size=500)) == ours
    left_open = chosen_frontend(PipelineConfig(seed=3, max_image_size=500))
    assert (left_open.matching.seed, left_open.features.max_image_size) == (3, 500)
    own = ClassicalFrontend(features=FeatureConfig(max_image_size=640), matching=MatchingConfig(seed=0))
    assert chosen_frontend(PipelineConfig(classical=own, seed=3)) == own


def test_front_ends_are_chosen_by_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_args(FrontendName) == tuple(FRONTENDS)
    for name, kind in FRONTENDS.items():
        assert isinstance(chosen_frontend(PipelineConfig(frontend=name)), kind)
    monkeypatch.setitem(FRONTENDS, "mast3r", ClassicalFrontend)
    assert isinstance(chosen_frontend(PipelineConfig(frontend="mast3r")), ClassicalFrontend)


def test_a_focal_length_in_other_units_is_refused(rendered: Path, tmp_path: Path) -> None:
    for focal_px in (24.0, 1e7):
        with pytest.raises(
            SettingError, match=r"PipelineConfig\.focal_px = .* times the long side of 0000\.jpg \(480 px\)"
        ):
            reconstruct(rendered / "images", tmp_path / "out", PipelineConfig(focal_px=focal_px))
