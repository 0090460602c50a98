"""Types that options of the command line share, and their two spellings."""

import argparse
import re

_UNITS = {'': 1e-3, 'm': 1e-3, 'g': 1.0, 't': 1e3}


def flags(name: str) -> list[str]:
    """An option in both spellings, with hyphens and underscores.

    Examples
    --------
    >>> flags('work-dir')
    ['--work-dir', '--work_dir']
    """
    return list(dict.fromkeys([f'--{name}', f'--{name.replace("-", "_")}']))


def positive(text: str) -> int:
    """Whole number above 0."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive number')
    return number


def above_zero(text: str) -> float:
    """Finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number above 0')
    return number


def minutes(text: str) -> float:
    """Finite number of minutes, 0 or above."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r} is no number of minutes')
    return number


def parse_memory(text: str) -> float:
    """Gigabytes of an amount of memory; a bare number is megabytes, as in fMRIPrep.

    Examples
    --------
    >>> [parse_memory(t) for t in ('8G', '1.5G', '8 GB', '16g', '8000')]
    [8.0, 1.5, 8.0, 16.0, 8.0]
    """
    match = re.fullmatch(r'\s*(\d+(?:\.\d*)?|\.\d+)\s*([mgt]?)(?:i?b)?\s*', text.lower())
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f'{text!r} is no amount of memory; give 8G or 8000 (MB)')
    return float(match[1]) * _UNITS[match[2]]


def gigabytes(text: str) -> float:
    """Gigabytes of an amount of memory; a bare number is gigabytes, as in MRIQC.

    Examples
    --------
    >>> gigabytes('8'), gigabytes('1.5'), gigabytes('8000M')
    (8.0, 1.5, 8.0)
    """
    return parse_memory(text if re.search('[a-zA-Z]', text) else f'{text}G')


def device(text: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    if not re.fullmatch(r'auto|cpu|cuda(:\d+)?', text):
        raise argparse.ArgumentTypeError(f'{text!r} is none of auto, cpu, cuda, cuda:N')
    return text
