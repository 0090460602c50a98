"""Which scans the user wants: labels, modalities and the BIDS filter file."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harmony_app.bids.atomic import read_json
from harmony_app.bids.entities import ENTITY_ORDER, LONG_NAMES, short_key
from harmony_app.errors import InputError, OptionError
from harmony_app.methods.base import CONTRASTS

PRESENT = '*'
"""Filter value: the entity must be there, whatever its label."""

OTHER_QUERIES = ('bold', 'sbref', 'fmap', 'dwi', 'roi', 'meg', 'eeg', 'pet', 'asl', 't2star')
"""Queries of other BIDS Apps, so that one filter file serves them all; not ours, passed over."""


@dataclass(frozen=True)
class Selection:
    """What to take from a dataset.

    Parameters
    ----------
    participants, sessions : tuple of str
        Labels without ``sub-`` and ``ses-``; empty for all.
    modalities : tuple of str
        Contrasts to harmonize.
    filters : dict of str to dict
        By contrast: entity key to None (absent), ``'*'`` (present) or a tuple of labels.
    include_contrast_enhanced : bool
        Whether scans with ``ce-`` are taken.
    """

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    modalities: tuple[str, ...] = CONTRASTS
    filters: Mapping[str, Mapping[str, tuple[str, ...] | str | None]] = field(default_factory=dict)
    include_contrast_enhanced: bool = False


def read_labels(given: Sequence[str], entity: str) -> tuple[str, ...]:
    """Labels from a command line: with or without ``sub-``, or files that list them.

    Parameters
    ----------
    given : sequence of str
        Labels, lists separated by commas, or paths of text files with one label a line.
    entity : str
        ``'sub'`` or ``'ses'``; taken off the front of a label.

    Examples
    --------
    >>> read_labels(['sub-01', '02'], 'sub')
    ('01', '02')
    """
    labels = []
    for item in given:
        path = Path(item)
        # A label holds letters and digits only, so a path can be told from it.
        if not re.fullmatch(r'[a-zA-Z0-9+,-]+', item) and path.is_file():
            labels += path.read_text(encoding='utf-8').split()
        else:
            labels += item.split(',')
    labels = [label.strip().removeprefix(f'{entity}-') for label in labels if label.strip()]
    for label in labels:
        if not re.fullmatch('[a-zA-Z0-9+]+', label):
            raise OptionError(
                f'{label!r} is neither a label nor a file of labels; '
                f'give labels such as 01 or {entity}-01, or an existing text file'
            )
    return tuple(dict.fromkeys(labels))


def read_filter_file(path: Path) -> dict[str, dict]:
    """Read a BIDS filter file.

    ``{"t1w": {"acquisition": "mprage", "run": null}, "flair": {"rec": "*"}}``: ``null``
    asks for scans without the entity, ``"*"`` for scans that have it.

    Parameters
    ----------
    path : Path
        JSON file.

    Returns
    -------
    dict of str to dict
        By contrast (``T1w`` ...): entity key to None, ``'*'`` or a tuple of labels.

    Raises
    ------
    InputError
        Where the file cannot be read.
    OptionError
        Where it is not JSON, or a query or an entity is unknown (the nearest is named).
    """
    try:
        queries = read_json(Path(path))
    except OSError as error:
        raise InputError(f'cannot read --bids-filter-file {path}: {error.strerror}') from error
    except ValueError as error:
        raise OptionError(f'--bids-filter-file {path} is not JSON: {error}') from error
    if not isinstance(queries, dict) or not all(isinstance(v, dict) for v in queries.values()):
        raise OptionError(
            f'--bids-filter-file {path} is not of the form {{"t1w": {{"acq": "label"}}}}'
        )
    by_name = {contrast.lower(): contrast for contrast in CONTRASTS}
    filters: dict[str, dict] = {}
    for query, entities in queries.items():
        if query.lower() in OTHER_QUERIES:
            continue
        if query.lower() not in by_name:
            raise OptionError(
                f'--bids-filter-file {path}: unknown query {query!r}{_nearest(query.lower(), by_name)}; '
                f'known are {", ".join(by_name)}'
            )
        filters[by_name[query.lower()]] = _read_entities(entities, path)
    return filters


def rejects(entities: Mapping[str, str], wanted: Mapping) -> str | None:
    """Why a scan does not pass a filter, or None where it does.

    Examples
    --------
    >>> rejects({'sub': '01', 'run': '2'}, {'run': None})
    'filtered out: has run-2'
    >>> rejects({'sub': '01', 'run': '02'}, {'run': ('2',)})
    """
    for key, value in wanted.items():
        label = entities.get(key)
        if value is None:
            if label is not None:
                return f'filtered out: has {key}-{label}'
        elif label is None:
            return f'filtered out: has no {key}-'
        elif value != PRESENT and not any(_same_label(label, v) for v in value):
            return f'filtered out: {key}-{label}'
    return None


def _read_entities(entities: dict, path: Path) -> dict:
    known = {*ENTITY_ORDER, *LONG_NAMES}
    passed_over = {'datatype', 'suffix', 'extension'}
    wanted = {}
    for name, value in entities.items():
        if name in passed_over:
            continue
        if name not in known:
            raise OptionError(
                f'--bids-filter-file {path}: unknown entity {name!r}{_nearest(name, known)}'
            )
        if value is None or value == PRESENT:
            wanted[short_key(name)] = value
        else:
            values = value if isinstance(value, list) else [value]
            wanted[short_key(name)] = tuple(_plain_label(short_key(name), v) for v in values)
    return wanted


def _plain_label(key: str, value) -> str:
    return str(value).removeprefix(f'{key}-')


def _same_label(label: str, wanted: str) -> bool:
    """Whether labels are equal; indices are equal with and without leading zeros."""
    if label.isdigit() and wanted.isdigit():
        return int(label) == int(wanted)
    return label == wanted


def _nearest(word: str, known) -> str:
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' (did you mean {match[0]!r}?)' if match else ''
