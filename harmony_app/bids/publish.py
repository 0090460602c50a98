"""Results of a session appear at once, and a marker says which they are."""

import fnmatch
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harmony_app.bids.atomic import read_json, write_json
from harmony_app.bids.locks import only_one
from harmony_app.errors import OutputError


def marker_path(root: Path, session: str) -> Path:
    """Marker of a session, for example ``logs/sessions/sub-01_ses-a.json``."""
    return Path(root) / 'logs' / 'sessions' / f'{session}.json'


def read_marker(root: Path, session: str) -> dict | None:
    """Marker of a session, None where there is none that can be read."""
    try:
        marker = read_json(marker_path(root, session))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def is_finished(root: Path, session: str, digest: str | None) -> bool:
    """Whether the results of a session are there, whole, and of these settings and inputs.

    Parameters
    ----------
    root : Path
        Output folder.
    session : str
        Name of the session.
    digest : str or None
        Hash of settings and inputs; None for whatever they were.
    """
    marker = read_marker(root, session)
    if not marker or digest not in (None, marker.get('digest')) or 'unfinished' in marker:
        return False
    scans = marker.get('scans', {})
    files = [file for scan in scans.values() for file in scan['files']] + marker.get('files', [])
    return all(scan['status'] != 'failed' for scan in scans.values()) and all(
        (Path(root) / file).is_file() for file in files
    )


@contextmanager
def staging(root: Path, session: str) -> Iterator[Path]:
    """A folder on the disk of the results that is moved into place by :func:`publish`.

    Of several runs one at a time has that of a session: the last one's results stand, whole.
    """
    everything = Path(root) / 'logs'
    folder = everything / '.staging' / f'{session}-{uuid.uuid4().hex[:8]}'
    _make_folder(everything)
    with only_one(everything / f'.{session}.lock'):
        # Those of runs that were killed; a living one would hold the lock.
        for left in fnmatch.filter(_names_in(folder.parent), f'{session}-????????'):
            shutil.rmtree(folder.parent / left, ignore_errors=True)
        _make_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            # Another session may be using the parent; it stays then.
            try:
                folder.parent.rmdir()
            except OSError:
                pass


def _names_in(folder: Path) -> list[str]:
    """What a folder holds; nothing where another session has just removed it."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _make_folder(folder: Path, tries: int = 20) -> None:
    """Make a folder whose parent another session may remove just now, when it is empty."""
    for left in reversed(range(tries)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return
        except OSError as error:
            # Gone between two steps, or there for the first and gone for the second.
            raced = isinstance(error, FileNotFoundError | FileExistsError)
            if not (raced and left):
                raise OutputError(f'cannot write {folder}: {error.strerror}') from error
            time.sleep(0.01)


def publish(root: Path, folder: Path) -> None:
    """Move everything below a staging folder to its place in the results.

    A folder ``anat`` that is not there yet appears in one step; files that are replaced
    are replaced one by one.

    Parameters
    ----------
    root : Path
        Output folder.
    folder : Path
        From :func:`staging`.

    Raises
    ------
    OutputError
        Where a file cannot be put in place.
    """
    try:
        for anat in sorted(folder.rglob('anat')):
            target = root / anat.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                os.rename(anat, target)
        for file in sorted(path for path in folder.rglob('*') if path.is_file()):
            target = root / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    except OSError as error:
        raise OutputError(f'cannot put results into {root}: {error.strerror}') from error


def mark_unfinished(root: Path, session: str, files: Sequence[str]) -> None:
    """Say in the marker of a session that its results are being put in place.

    A run that is killed on the way leaves some old and some new ones; whoever comes next
    must not take them for those that the marker tells of, nor leave them beside its own.

    Parameters
    ----------
    root : Path
        Output folder.
    session : str
        Name of the session.
    files : sequence of str
        What will be put in place.
    """
    marker = read_marker(root, session) or {'session': session, 'run': '', 'scans': {}, 'files': []}
    left = {*marker.get('unfinished', ()), *files}
    write_json(marker_path(root, session), marker | {'unfinished': sorted(left)})


def write_marker(root: Path, session: str, marker: dict) -> None:
    """Replace the marker of a session; results of it that are no more are removed.

    Parameters
    ----------
    root : Path
        Output folder.
    session : str
        Name of the session.
    marker : dict
        ``digest``, ``run``, ``files`` and ``scans``: by name ``status`` (done, failed,
        skipped), ``message``, ``exit_code`` and ``files``.
    """
    old = read_marker(root, session) or {}
    new = {file for scan in marker['scans'].values() for file in scan['files']}
    new |= set(marker['files'])
    # A scan that was not asked for this time keeps what it has, unless a run was killed over it.
    before = old.get('scans', {})
    asked = [scan for name, scan in before.items() if name in marker['scans']]
    known = {file for scan in asked for file in scan['files']} | set(old.get('unfinished', ()))
    if len(asked) == len(before):
        # What was made of all of them: a contrast that is not imputed this time.
        known |= set(old.get('files', ()))
    for file in known - new:
        stale = (Path(root) / file).resolve()
        if Path(root).resolve() in stale.parents:
            stale.unlink(missing_ok=True)
    write_json(marker_path(root, session), marker)
