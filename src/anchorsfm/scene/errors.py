"""Errors a user can act on. The command line prints their message as one line and exits with code 2."""


class AnchorSfMError(Exception):
    """A fault in the input or the surroundings; the message names the file or number and the way out."""


class InputError(AnchorSfMError):
    """A path, file or option that cannot be used."""


class NoReconstructionError(AnchorSfMError):
    """The photographs were read, but no model could be made from them; the message says why."""


class NonFiniteError(AnchorSfMError):
    """A stage came to numbers that are not finite; the message names it."""


class StorageError(AnchorSfMError):
    """The output cannot be written (permissions, full disk)."""
