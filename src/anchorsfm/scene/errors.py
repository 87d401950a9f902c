"""Errors a user can act on. The command line prints their message as one line and exits with code 2."""

from collections.abc import Sequence


class AnchorSfMError(Exception):
    """A fault in the input or the surroundings; the message names the file or number and says how to fix it."""


class InputError(AnchorSfMError):
    """A path, file or option that cannot be used."""


class NothingNewError(InputError):
    """Photographs that an output folder is to be extended by are its own already."""


class NoReconstructionError(AnchorSfMError):
    """The photographs were read, but no model could be made from them; the message says why."""


class NonFiniteError(AnchorSfMError):
    """A stage came to numbers that are not finite; the message names it."""


class StorageError(AnchorSfMError):
    """The output cannot be written (permissions, full disk)."""


class SettingError(InputError):
    """A setting whose value cannot be used: `owner`, the configuration class, does not allow it.

    A caller that offers settings under other names, as the command line does, makes its message of the parts.
    """

    def __init__(self, owner: type, setting: str, value: str, problem: str) -> None:
        super().__init__(f"{owner.__name__}.{setting} = {value}: {problem}")
        self.owner = owner
        self.setting = setting
        """Name of the field; dotted where it belongs to a field's own settings."""
        self.value = value
        """As text, cut where it is long."""
        self.problem = problem


class OutOfMemoryError(AnchorSfMError):
    """Memory ran out; `settings` are those that lower what the stage needs.

    A caller that offers settings under other names, as the command line does, makes its message with `text`.
    """

    def __init__(self, stage: str, need: str, settings: tuple[str, ...]) -> None:
        self.stage, self.need = stage, need
        self.settings = settings
        super().__init__(self.text(settings))

    def text(self, settings: Sequence[str]) -> str:
        """The message with other names for the settings."""
        lower = f"lower {' or '.join(settings)}, or " if settings else ""
        return (
            f"too little memory in the stage {self.stage!r} ({self.need}): {lower}use fewer or smaller photographs; "
            "what is done is kept"
        )
