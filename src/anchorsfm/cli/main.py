"""Photographs in, COLMAP models out. Errors are one line and exit code 2; a signal ends with 128 and its number.

Light to import: what a command needs is loaded when it is known which one it is.
"""

import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from anchorsfm import process


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. In a process of its own, `anchorsfm.__main__` prepares signals and standard streams first."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        from anchorsfm import __version__

        print(f"anchorsfm {__version__}")
        return
    try:
        with process.tidy_ending():
            _run(arguments)
    except KeyboardInterrupt as error:
        process.end_if_interrupted()  # a library may raise its own, which does not know the signal
        process.end_interrupted(getattr(error, "number", signal.SIGINT))
    except Exception:
        process.end_if_interrupted()
        raise
    lost = getattr(sys.stdout, "error", None)
    if lost is not None:
        _fail(f"cannot write to the standard output: {lost.strerror}")


def _run(arguments: list[str]) -> None:
    from anchorsfm.cli.wording import in_words
    from anchorsfm.io.memory import amount_asked, is_out_of_memory
    from anchorsfm.scene.errors import AnchorSfMError

    warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks about damaged EXIF
    try:
        _refuse_empty(arguments)
        _dispatch(arguments)
    except AnchorSfMError as error:
        _fail(in_words(error))
    except Exception as error:
        if is_out_of_memory(error):
            asked = amount_asked(error)
            _fail(
                f"too little memory{f' ({asked} more were asked for)' if asked else ''}: "
                "close other programs, or use fewer or smaller photographs"
            )
        if not isinstance(error, OSError):
            raise
        _fail(f"{error.strerror or error}: {error.filename or ''}")


def _dispatch(arguments: list[str]) -> None:
    from anchorsfm.cli import overview, parsing
    from anchorsfm.scene.errors import InputError
    from anchorsfm.terminal import Terminal

    if not arguments:
        raise InputError("name a command, such as anchorsfm reconstruct; anchorsfm --help lists them")
    name, *rest = arguments
    if name in ("-h", "--help", "--help-all"):
        print(overview.program_help())
    elif name.startswith("--tyro-"):
        parsing.complete(arguments)
    elif name == "reconstruct" and not {"-h", "--help"}.isdisjoint(rest):
        print(overview.reconstruct_help())
    elif not {"-h", "--help", "--help-all"}.isdisjoint(rest):
        parsing.print_all_options(name)
    else:
        parsing.parse(name, rest).run(Terminal())


def _fail(message: str) -> NoReturn:
    from anchorsfm.terminal import Terminal

    process.end_if_interrupted()
    Terminal(stderr=True).print(f"error: {message}", style="red")
    process.leave(2)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raise InputError for an empty argument, as a shell makes of an unset variable: as a path it is this folder."""
    from anchorsfm.scene.errors import InputError

    for number, argument in enumerate(arguments):
        if argument.startswith("--") and argument.endswith("="):
            raise InputError(f"{argument[:-1]} has no value: is a variable of the shell not set?")
        if not argument.strip():
            place = f"after {arguments[number - 1]}" if number else "at the beginning"
            raise InputError(f"there is an empty argument {place}: is a variable of the shell not set?")
