"""Results of a session appear at once, and a marker says which they are."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harmony_app.bids.atomic import write_json
from harmony_app.errors import OutputError


def marker_path(root: Path, session: str) -> Path:
    """Marker of a session, for example ``logs/sessions/sub-01_ses-a.json``."""
    return Path(root) / 'logs' / 'sessions' / f'{session}.json'


def read_marker(root: Path, session: str) -> dict | None:
    """Marker of a session, None where there is none that can be read."""
    try:
        marker = json.loads(marker_path(root, session).read_text(encoding='utf-8'))
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
    if not marker or digest not in (None, marker.get('digest')):
        return False
    scans = marker.get('scans', {})
    files = [file for scan in scans.values() for file in scan['files']] + marker.get('files', [])
    return all(scan['status'] != 'failed' for scan in scans.values()) and all(
        (Path(root) / file).is_file() for file in files
    )


@contextmanager
def staging(root: Path, session: str) -> Iterator[Path]:
    """A folder on the disk of the results that is moved into place by :func:`publish`."""
    folder = Path(root) / 'logs' / '.staging' / f'{session}-{uuid.uuid4().hex[:8]}'
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


def _make_folder(folder: Path, tries: int = 20) -> None:
    """Make a folder whose parent another session may remove just now, when it is empty."""
    for left in reversed(range(tries)):
        try:
            folder.mkdir(parents=True)
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


def write_marker(root: Path, session: str, marker: dict) -> None:
    """Replace the marker of a session; results of its scans that are no more are removed.

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
    for name, scan in old.get('scans', {}).items():
        # A scan that was not asked for this time keeps what it has.
        for file in scan['files'] if name in marker['scans'] else ():
            stale = (Path(root) / file).resolve()
            if file not in new and Path(root).resolve() in stale.parents:
                stale.unlink(missing_ok=True)
    write_json(marker_path(root, session), marker)
