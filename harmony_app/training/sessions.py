"""Preprocessed real sessions, cached once as memory-mapped arrays.

A cached scan is ``NAME_data.npy``, float16 on the working grid with its white-matter peak at
1, and ``NAME_shown.npy``, what it shows; its session ``NAME_maps.npy``, brain mask and
registered GM, WM and CSF maps, 255 is certainty. ``*_half.npy`` are the same at 2 mm. The
name carries a digest of the files that it was made of, so that a changed file is read again.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from harmony_app.errors import InputError, ScanError
from harmony_app.imaging.grid import WORKING_SHAPE, halved
from harmony_app.imaging.profile import measure_profile_coarse
from harmony_app.training.transfer_draws import RealScan

logger = logging.getLogger('harmony_app')

BRIGHTEST = 6.0
"""Intensities above this many white-matter peaks are clipped."""


@dataclass(frozen=True)
class ScanFile:
    """A preprocessed scan among the results of the participant level.

    Parameters
    ----------
    name : str
        Entities and contrast.
    contrast : str
        One of T1w, T2w, PDw, FLAIR.
    path : Path
        Image on the working grid, white-matter peak at 1.
    site : str or None
        Scanner and protocol, where known.
    """

    name: str
    contrast: str
    path: Path
    site: str | None = None


@dataclass(frozen=True)
class SessionFiles:
    """The preprocessed scans of one visit.

    Parameters
    ----------
    name, subject : str
        Name of the session, and label of the person.
    scans : tuple of ScanFile
        At least one, any contrasts.
    brain : Path
        Brain mask on the working grid.
    tissues : tuple of Path
        GM, WM and CSF maps.
    """

    name: str
    subject: str
    scans: tuple[ScanFile, ...]
    brain: Path
    tissues: tuple[Path, ...]


@dataclass(frozen=True)
class CachedScan:
    """A scan in the cache; its arrays are opened where they are read."""

    name: str
    contrast: str
    stem: str
    site: str | None = None

    def data(self, half: bool = False) -> np.ndarray:
        """Intensities, float16, memory-mapped."""
        return _open(f'{self.stem}_data{"_half" * half}.npy')

    def shown(self) -> np.ndarray:
        """What the scan shows, 0 or 255, uint8, memory-mapped."""
        return _open(f'{self.stem}_shown.npy')


@dataclass(frozen=True)
class Session:
    """A session in the cache."""

    name: str
    subject: str
    scans: tuple[CachedScan, ...]
    stem: str

    def maps(self, half: bool = False) -> np.ndarray:
        """Brain and GM, WM, CSF maps (4, X, Y, Z), uint8, memory-mapped."""
        return _open(f'{self.stem}_maps{"_half" * half}.npy')


def cache_sessions(files: Sequence[SessionFiles], folder: Path) -> list[Session]:
    """Read sessions into the cache, those that are there already excepted.

    A scan that cannot be read or in which a tissue is not seen is left out, with a warning.

    Parameters
    ----------
    files : sequence of SessionFiles
    folder : Path
        The cache; made where absent.

    Raises
    ------
    InputError
        Where no scan is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sessions = []
    for number, session in enumerate(files, 1):
        try:
            cached = _cache_session(session, folder)
        except ScanError as error:
            logger.warning('%s is left out: %s', session.name, error)
            continue
        if cached.scans:
            sessions.append(cached)
        if number % 20 == 0:
            logger.info('%d of %d sessions are in the cache', number, len(files))
    if not sessions:
        raise InputError('no preprocessed scan can be used; see the warnings above')
    return sessions


class HalvedScans(Sequence):
    """Scans of sessions at 2 mm, read when asked for, for the draws of the transfer network."""

    def __init__(self, sessions: Sequence[Session]):
        self._items = [(session, scan) for session in sessions for scan in session.scans]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> RealScan:
        session, scan = self._items[int(index)]
        maps = session.maps(half=True)
        return RealScan(
            scan.contrast,
            np.asarray(scan.data(half=True), np.float32),
            np.asarray(maps[0]) > 252,
            np.asarray(maps[1:], np.float32) / 255,
        )


def split_subjects(
    sessions: Sequence[Session], seed: int, share: float = 0.15
) -> tuple[list[Session], list[Session]]:
    """Sessions to learn from and to validate on; no person is on both sides.

    Parameters
    ----------
    sessions : sequence of Session
    seed : int
        Chooses the people.
    share : float
        Share of the people to validate on; one at least where there are three or more, and
        nobody where there are fewer.

    Returns
    -------
    training, validation : list of Session
    """
    people = sorted({session.subject for session in sessions})
    if len(people) < 3:
        return list(sessions), []
    count = min(len(people) - 1, max(1, round(share * len(people))))
    chosen = set(np.random.default_rng(seed).choice(people, count, replace=False).tolist())
    return (
        [session for session in sessions if session.subject not in chosen],
        [session for session in sessions if session.subject in chosen],
    )


def _cache_session(session: SessionFiles, folder: Path) -> Session:
    paths = [session.brain, *session.tissues]
    stem = str(folder / f'{session.name}-{_stamp(paths)}')
    if not os.path.exists(f'{stem}_maps_half.npy'):
        maps = np.stack([np.clip(_read(path), 0, 1) for path in paths])
        maps = (255 * maps).round().astype(np.uint8)
        _write(f'{stem}_maps.npy', maps)
        _write(f'{stem}_maps_half.npy', np.stack([halved(m).round() for m in maps]), np.uint8)
    cached = Session(session.name, session.subject, (), stem)
    scans = [_cache_scan(scan, cached, folder) for scan in session.scans]
    return Session(cached.name, cached.subject, tuple(filter(None, scans)), stem)


def _cache_scan(scan: ScanFile, session: Session, folder: Path) -> CachedScan | None:
    from harmony_app.engine.anatomy import shown_part
    from harmony_app.imaging.grid import WORKING_AFFINE
    from harmony_app.imaging.volume import Volume

    stem = str(folder / f'{scan.name}-{_stamp([scan.path])}')
    cached = CachedScan(scan.name, scan.contrast, stem, scan.site)
    if os.path.exists(f'{cached.stem}_data_half.npy'):
        return cached
    try:
        data = np.clip(_read(scan.path), 0, BRIGHTEST)
        shown = shown_part(Volume(data, WORKING_AFFINE))
        half, maps = halved(data), session.maps(half=True)
        measure_profile_coarse(half, maps[0] > 252, np.asarray(maps[1:], np.float32) / 255)
        if not shown.any():
            raise ScanError(f'{scan.path} shows nothing')
    except (ScanError, ValueError) as error:
        logger.warning('%s is left out: %s', scan.name, error)
        return None
    _write(f'{cached.stem}_data.npy', data, np.float16)
    _write(f'{cached.stem}_shown.npy', 255 * shown.astype(np.uint8))
    _write(f'{cached.stem}_data_half.npy', half, np.float16)
    return cached


def _read(path: Path) -> np.ndarray:
    """Image on the working grid, float32."""
    from harmony_app.imaging.io import read_scan

    data = read_scan(path).volume.data
    if data.shape != WORKING_SHAPE:
        raise ScanError(f'{path} is not on the working grid; run the participant level again')
    return np.asarray(data, np.float32)


def _stamp(paths: Sequence[Path]) -> str:
    """Digest of what tells whether files are still the same."""
    try:
        stats = [(str(path), os.stat(path)) for path in paths]
    except OSError as error:
        raise ScanError(f'{error.filename} is missing among the results') from error
    told = '|'.join(f'{path},{s.st_size},{s.st_mtime_ns}' for path, s in stats)
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _write(path: str, data: np.ndarray, dtype: type = np.uint8) -> None:
    temporary = f'{path}.{os.getpid()}'
    with open(temporary, 'wb') as stream:
        np.save(stream, data.astype(dtype))
    os.replace(temporary, path)


@lru_cache(maxsize=256)
def _open(path: str) -> np.ndarray:
    return np.load(path, mmap_mode='r')
