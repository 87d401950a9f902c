"""Errors in the words of the command line: the library names settings, users gave flags."""

from anchorsfm.export.config import ExportConfig
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.errors import OutOfMemoryError, SettingError
from anchorsfm.scene.settings import place_of

_UNDER_OTHER_NAMES = {
    "align.device": "device",
    "classical.networks.device": "device",
    "classical.networks.weights": "weights",
    "mast3r.device": "device",
    "mast3r.weights": "weights",
    "mast3r.accept-weights-license": "accept-weights-license",
    "bundle-adjustment": "no-adjust",
}
"""Settings that have another flag than their own name."""


def in_words(error: Exception) -> str:
    """The message of an error, with the flag that a user gave for the setting that the library names."""
    if isinstance(error, OutOfMemoryError):
        return error.text([f"--{setting.replace('_', '-')}" for setting in error.settings])
    if not isinstance(error, SettingError):
        return str(error)
    places = (place_of(error.owner, root) for root in (PipelineConfig, ExportConfig))
    place = next((place for place in places if place is not None), ())  # all other settings are a command's own
    flag = ".".join([*place, error.setting]).replace("_", "-")
    return f"--{_UNDER_OTHER_NAMES.get(flag, flag)} {error.value}: {error.problem}"
