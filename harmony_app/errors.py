"""Errors a user can meet, each with the exit code that it ends with.

The codes are those of the BIDS execution specification (BEP027, ``src/ui.md``).
"""

from enum import IntEnum


def one_line(error: BaseException) -> str:
    r"""What an error says, in one line of 200 letters at most; its kind where it says nothing.

    Examples
    --------
    >>> one_line(ValueError('two\n  lines')), one_line(KeyError())
    ('two lines', 'KeyError')
    """
    return ' '.join(str(error).split())[:200] or type(error).__name__


class ExitCode(IntEnum):
    """Exit codes of the BIDS execution specification."""

    SUCCESS = 0
    FAILURE = 1
    USAGE = 2
    INVALID_BIDS = 16
    UNKNOWN_LEVEL = 17
    NOTHING_SELECTED = 18
    BAD_OPTIONS = 64
    BAD_DATA = 65
    NO_INPUT = 66
    CANNOT_CREATE = 73
    IO_ERROR = 74
    RETRY = 75


class HarmonyError(Exception):
    """A failure that the user can act on: what happened, where, what to do.

    Parameters
    ----------
    message : str
        What happened, which file or flag, what to do. It stays one line, whatever a file or option
        that it tells of holds.

    Examples
    --------
    >>> str(HarmonyError('no site two' + chr(10) + 'lines'))
    'no site two lines'
    """

    exit_code: ExitCode = ExitCode.FAILURE

    def __init__(self, message: str):
        super().__init__(' '.join(message.splitlines()))


class ScanError(HarmonyError):
    """A scan cannot be read or cannot be what it says it is (corrupt, empty, 4D, NaN ...)."""

    exit_code = ExitCode.BAD_DATA


class InputError(HarmonyError):
    """The dataset, a target or another input is missing."""

    exit_code = ExitCode.NO_INPUT


class SelectionError(HarmonyError):
    """The filters select nothing, or name a participant or session that is not there."""

    exit_code = ExitCode.NOTHING_SELECTED


class OptionError(HarmonyError):
    """Options contradict each other or do not fit this machine."""

    exit_code = ExitCode.BAD_OPTIONS


class OutputError(HarmonyError):
    """A result, the output folder or the work folder cannot be written."""

    exit_code = ExitCode.CANNOT_CREATE


class ModelError(HarmonyError):
    """A model folder is incomplete, tampered with, or of another method."""

    exit_code = ExitCode.BAD_DATA
