"""One process at a time: locks that end with the process that holds them, however it ends."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harmony_app.errors import ExitCode, HarmonyError, OutputError

UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What file systems without locks say."""

WAIT = 0.1
"""Seconds between two looks at a lock that another process holds."""


class BusyError(HarmonyError):
    """Another run holds what this one needs."""

    exit_code = ExitCode.RETRY


@contextmanager
def only_one(path: Path, busy: str = '') -> Iterator[None]:
    """Hold a lock file while the block runs; it is gone afterwards.

    The operating system lets go of it where the process is killed. On a file system without
    locks the block runs without one.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    busy : str
        What to raise where another process holds it; waits for it where empty.

    Raises
    ------
    BusyError
        With ``busy`` as its message.
    OutputError
        Where the file cannot be made.
    """
    handle = _take(path, busy)
    try:
        yield
    finally:
        if handle is not None:
            # While it is held: who waits for it looks whether the file is still this one.
            Path(path).unlink(missing_ok=True)
            os.close(handle)


def _take(path: Path, busy: str) -> int | None:
    """A handle that holds the lock; None where the file system has none."""
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:
            raise OutputError(
                f'cannot write {path}: {error.strerror}; choose another folder'
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in UNSUPPORTED:
                return None
            if busy:
                raise BusyError(busy) from error
            time.sleep(WAIT)
            continue
        if _is_still(path, handle):
            return handle
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    """Whether a file is what a handle was opened on: its last holder may have removed it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
