"""Names of nodes and workflows from BIDS labels."""

import re
from collections.abc import Iterable

from harmony_app.bids.discovery import ScanInput


def session_name(subject: str, session: str | None) -> str:
    """Name of a session for people and files.

    Examples
    --------
    >>> session_name('01', 'a'), session_name('01', None)
    ('sub-01_ses-a', 'sub-01')
    """
    return f'sub-{subject}_ses-{session}' if session else f'sub-{subject}'


def node_name(text: str) -> str:
    """A name that Nipype accepts.

    Examples
    --------
    >>> node_name('acq-3d_run-01_T1w')
    'acq_3d_run_01_T1w'
    """
    return re.sub(r'\W', '_', text)


def scan_node_names(scans: Iterable[ScanInput]) -> list[str]:
    """Short names that tell the scans of one session apart."""
    names = []
    for scan in scans:
        parts = [f'{key}-{label}' for key, label in scan.entities if key not in ('sub', 'ses')]
        names.append(node_name('_'.join([*parts, scan.contrast])))
    return names
