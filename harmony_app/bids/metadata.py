"""Sidecars by BIDS inheritance, and the site of a scan."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from harmony_app.bids.atomic import read_json, read_table
from harmony_app.bids.entities import parse_name

SCANNER_FIELDS = (
    'InstitutionName',
    'Manufacturer',
    'ManufacturersModelName',
    'DeviceSerialNumber',
    'MagneticFieldStrength',
    'ProtocolName',
)
"""Sidecar fields that make a site where the dataset has no ``site`` column."""


class Metadata:
    """Sidecars and sites of the images of one dataset; each file is read once.

    Parameters
    ----------
    root : Path
        The dataset.
    """

    def __init__(self, root: Path):
        self.root = root
        self._sidecars = lru_cache(maxsize=None)(_list_sidecars)
        self._json = lru_cache(maxsize=None)(_read_json)
        self._column = lru_cache(maxsize=None)(_read_column)

    def sidecar(self, path: Path) -> dict:
        """Metadata of an image by BIDS inheritance: the nearest sidecar wins.

        Parameters
        ----------
        path : Path
            Image inside the dataset.

        Returns
        -------
        dict
            Empty where there is no sidecar. One that cannot be read counts as absent.
        """
        entities, suffix, _ = parse_name(path.name)
        folders = [path.parent, *path.parent.parents]
        folders = folders[: folders.index(self.root) + 1]
        metadata: dict = {}
        for folder in reversed(folders):
            applying = []
            for sidecar in self._sidecars(folder):
                named, sidecar_suffix, _ = parse_name(sidecar.name)
                if sidecar_suffix == suffix and named.items() <= entities.items():
                    applying.append((len(named), sidecar))
            for _, sidecar in sorted(applying):
                metadata |= self._json(sidecar)
        return metadata

    def site(self, path: Path) -> str | None:
        """Site of an image, None where nothing tells it.

        A ``site`` column says it; of several the most specific wins: scans.tsv, then
        sessions.tsv, then participants.tsv. Without one, the scanner and protocol fields
        of the sidecar make the site.
        """
        entities, _, _ = parse_name(path.name)
        subject, session = f'sub-{entities["sub"]}', entities.get('ses')
        folder = self.root / subject
        session_folder = folder / f'ses-{session}' if session else folder
        stem = f'{subject}_ses-{session}' if session else subject
        try:
            within = path.relative_to(session_folder).as_posix()
        except ValueError:
            within = path.name
        site = self._column(session_folder / f'{stem}_scans.tsv', 'filename').get(within)
        if site is None and session:
            sessions = self._column(folder / f'{subject}_sessions.tsv', 'session_id')
            site = sessions.get(f'ses-{session}')
        if site is None:
            site = self._column(self.root / 'participants.tsv', 'participant_id').get(subject)
        return site or site_of_scanner(self.sidecar(path))


def site_of_scanner(metadata: Mapping) -> str | None:
    """Site by the scanner and protocol fields of a sidecar, None where it has none.

    Examples
    --------
    >>> site_of_scanner({'Manufacturer': 'Siemens', 'MagneticFieldStrength': 3})
    'Siemens 3T'
    """
    parts = []
    for name in SCANNER_FIELDS:
        value = metadata.get(name)
        if value not in (None, '', 'n/a'):
            is_field = name == 'MagneticFieldStrength'
            parts.append(f'{value}T' if is_field else str(value).strip())
    return ' '.join(parts) or None


def _read_column(path: Path, index: str) -> dict[str, str]:
    """The ``site`` column of a table by its index column; empty where there is none."""
    try:
        rows = read_table(path)
    except (OSError, UnicodeDecodeError):
        return {}
    return {row[index]: row['site'] for row in rows if index in row and 'site' in row}


def _list_sidecars(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob('*.json') if p.name != 'dataset_description.json')


def _read_json(path: Path) -> dict:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
