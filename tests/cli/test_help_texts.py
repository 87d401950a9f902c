"""The help of every setting can be understood without that of its neighbours."""

import dataclasses
import re
from collections.abc import Iterator

import pytest

from anchorsfm.cli.options import help_of
from anchorsfm.export.config import ExportConfig
from anchorsfm.mapping.incremental import FromScratchConfig
from anchorsfm.run.config import PipelineConfig

LEANS_ON_OTHERS = re.compile(r"(Of|The same|It|Its|They|Their|Every how)\b|\.\.\.|.*\bthe (above|below)\b")


def texts(config: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and help of every setting of a configuration, those of nested ones included."""
    for field in dataclasses.fields(config):
        yield prefix + field.name, help_of(config).get(field.name, "")
        nested = None if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(nested):
            yield from texts(type(nested), f"{prefix}{field.name}.")


@pytest.mark.parametrize("config", [PipelineConfig, ExportConfig, FromScratchConfig])
def test_every_help_is_a_sentence_of_its_own(config: type) -> None:
    found = dict(texts(config))
    assert not [name for name, text in found.items() if not text.endswith(".") or text[:1] != text[:1].upper()]
    assert not [f"{name}: {text}" for name, text in found.items() if LEANS_ON_OTHERS.match(text)]
