"""What travels between nodes: one file with plain facts and arrays, read array by array."""

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

FACTS = 'facts.json'


def write_record(
    path: Path, facts: Mapping, arrays: Iterable[tuple[str, np.ndarray]] | Mapping = ()
) -> Path:
    """Write a record in one step; an iterable of arrays is taken one by one.

    The file is a zip of ``.npy`` members without compression (its voxels are used once),
    without times, so that equal content gives equal bytes.

    Parameters
    ----------
    path : Path
        File to write.
    facts : mapping
        What JSON can say.
    arrays : mapping or iterable of (str, ndarray)
        Arrays by name.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    items = arrays.items() if isinstance(arrays, Mapping) else arrays
    try:
        with zipfile.ZipFile(temporary, 'w', zipfile.ZIP_STORED) as archive:
            for name, array in items:
                with archive.open(_member(f'{name}.npy'), 'w', force_zip64=True) as stream:
                    array = np.ascontiguousarray(array)
                    np.lib.format.write_array(stream, array, allow_pickle=False)
            archive.writestr(_member(FACTS), json.dumps(dict(facts), allow_nan=False))
        with open(temporary, 'rb') as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


class Record:
    """A record on disk.

    Parameters
    ----------
    path : path
        File of :func:`write_record`.

    Attributes
    ----------
    facts : dict
        Its facts.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        with zipfile.ZipFile(self.path) as archive:
            self.facts = json.loads(archive.read(FACTS))
            self._names = {name.removesuffix('.npy') for name in archive.namelist()} - {FACTS}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def array(self, name: str) -> np.ndarray:
        """Read one array; KeyError where the record has none of that name."""
        with zipfile.ZipFile(self.path) as archive, archive.open(f'{name}.npy') as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    @property
    def failure(self) -> dict | None:
        """What went wrong with the scan or session (``message``, ``exit_code``), or None."""
        return self.facts.get('failure')


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
