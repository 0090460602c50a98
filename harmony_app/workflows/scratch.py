"""Where a run keeps what it computes: one run at a time, and nobody else's folder."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.locks import only_one
from harmony_app.config import RunConfig, digest
from harmony_app.errors import OutputError


def work_folder(config: RunConfig) -> Path:
    """Scratch of this dataset, these results and this version: what may share a cache."""
    key = digest(
        {
            'input': str(config.bids_dir.resolve()),
            'output': str(config.output_dir.resolve()),
            'participants': sorted(config.participants),
            'sessions': sorted(config.sessions),
        }
    )
    return config.work_dir / f'harmony_app-{__version__}-{key}'


@contextmanager
def scratch_of_run(config: RunConfig) -> Iterator[None]:
    """Have the scratch of a run for oneself while the block runs.

    Raises
    ------
    BusyError
        Where another run has it.
    OutputError
        Where it belongs to another user.
    """
    base = work_folder(config)
    check_owner(base)
    busy = (
        f'another run works on this dataset in {base}: wait until it ends, or give this one '
        'a --work-dir of its own'
    )
    with only_one(base.with_name(f'.{base.name}.lock'), busy):
        yield


def is_shared(folder: Path) -> bool:
    """Whether everybody may write into a folder, as into that of temporary files."""
    return folder.is_dir() and bool(folder.stat().st_mode & stat.S_IWOTH)


def check_owner(folder: Path) -> None:
    """Refuse scratch that another user has laid out where everybody may write.

    Its name can be guessed, and what Nipype finds there is believed.

    Raises
    ------
    OutputError
        With what to give instead.
    """
    if not (folder.is_dir() and is_shared(folder.parent)):
        return
    with tempfile.NamedTemporaryFile(dir=folder, prefix='.probe-') as ours:
        # Not by the id of the process: a network drive may give its own.
        if os.fstat(ours.fileno()).st_uid != folder.stat().st_uid:
            raise OutputError(
                f'{folder} belongs to another user; give --work-dir, a folder of your own'
            )
