"""File names of BIDS: taken apart, and built in the order of the schema."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

ENTITY_ORDER = (
    'sub',
    'tpl',
    'ses',
    'cohort',
    'sample',
    'task',
    'tracksys',
    'acq',
    'nuc',
    'voi',
    'ce',
    'trc',
    'stain',
    'rec',
    'dir',
    'run',
    'mod',
    'echo',
    'flip',
    'inv',
    'mt',
    'part',
    'proc',
    'hemi',
    'space',
    'split',
    'recording',
    'chunk',
    'atlas',
    'seg',
    'scale',
    'res',
    'den',
    'label',
    'from',
    'to',
    'mode',
    'desc',
)
"""Entity keys in the order of the BIDS schema 1.11; ``from``, ``to`` and ``mode`` name transforms."""

LONG_NAMES = {
    'subject': 'sub',
    'template': 'tpl',
    'session': 'ses',
    'acquisition': 'acq',
    'ceagent': 'ce',
    'contrast_enhancement': 'ce',
    'reconstruction': 'rec',
    'direction': 'dir',
    'modality': 'mod',
    'inversion': 'inv',
    'resolution': 'res',
    'density': 'den',
    'description': 'desc',
    'staining': 'stain',
    'tracer': 'trc',
    'nucleus': 'nuc',
    'volume': 'voi',
}
"""Names that PyBIDS and the schema give to entities whose key is shorter."""

_LABEL = re.compile(r'[a-zA-Z0-9+]+')
_KEY = re.compile(r'[a-z]+')


def parse_name(name: str) -> tuple[dict[str, str], str, str]:
    """Take a BIDS file name apart.

    Parameters
    ----------
    name : str
        File name, with or without folders.

    Returns
    -------
    entities : dict of str to str
        Entity keys to labels, as written (``run-01`` stays ``'01'``).
    suffix : str
        What stands between the last underscore and the first dot.
    extension : str
        From the first dot on, ``''`` where there is none.

    Examples
    --------
    >>> parse_name('sub-01_ses-a_run-01_T1w.nii.gz')
    ({'sub': '01', 'ses': 'a', 'run': '01'}, 'T1w', '.nii.gz')
    """
    stem, dot, extension = PurePosixPath(name).name.partition('.')
    *parts, suffix = stem.split('_')
    entities = {}
    for part in parts:
        key, dash, label = part.partition('-')
        if dash and _KEY.fullmatch(key):
            entities[key] = label
    return entities, suffix, dot + extension


def build_name(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Build a BIDS file name, entities in the order of the schema.

    Parameters
    ----------
    entities : mapping of str to str
        Entity keys to labels; those that are empty or None are left out.
    suffix : str
        For example ``T1w``.
    extension : str
        For example ``.nii.gz``.

    Raises
    ------
    ValueError
        Where a key is not in :data:`ENTITY_ORDER` or a label is not alphanumeric.

    Examples
    --------
    >>> build_name({'desc': 'harmonized', 'sub': '01', 'acq': '3d'}, 'PDw', '.nii.gz')
    'sub-01_acq-3d_desc-harmonized_PDw.nii.gz'
    """
    given = {key: label for key, label in entities.items() if label}
    unknown = sorted(set(given) - set(ENTITY_ORDER))
    if unknown:
        raise ValueError(f'not an entity of BIDS: {", ".join(unknown)}')
    for key, label in given.items():
        if not _LABEL.fullmatch(label):
            raise ValueError(f'the label of {key}-{label} is not alphanumeric')
    if not _LABEL.fullmatch(suffix):
        raise ValueError(f'{suffix!r} is not a suffix')
    parts = [f'{key}-{given[key]}' for key in ENTITY_ORDER if key in given]
    return '_'.join([*parts, suffix]) + extension


def unusable_name(name: str) -> str:
    """Why results cannot be named after a file; empty where they can.

    Examples
    --------
    >>> unusable_name('sub-01_acq-high-res_T1w.nii.gz')
    'acq-high-res is not of letters and digits: rename the file'
    >>> unusable_name('sub-01_acq-3d_T1w.nii.gz')
    ''
    """
    parts = PurePosixPath(name).name.partition('.')[0].split('_')[:-1]
    for part in parts:
        key, _, label = part.partition('-')
        if key not in ENTITY_ORDER:
            return f'{part} is no entity of BIDS: rename the file'
        if not _LABEL.fullmatch(label):
            return f'{part} is not of letters and digits: rename the file'
    return ''


def clean_label(text: str) -> str:
    """Keep the letters and digits of a text, for use as a label."""
    return re.sub(r'[^a-zA-Z0-9]', '', text)


def short_key(name: str) -> str:
    """Entity key of a key or of the long name of PyBIDS (``acquisition`` is ``acq``)."""
    return LONG_NAMES.get(name, name)
