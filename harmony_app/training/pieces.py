"""A folder as a few files of bounded size, and back: ``python -m harmony_app.training.pieces``.

What comes back from a lent machine may be bounded in the number and the size of files.
"""

import argparse
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from harmony_app.errors import InputError
from harmony_app.methods.model_folder import write_atomically
from harmony_app.training.script import run_script

LIMIT = 15 << 20
"""Bytes of a piece."""

TABLE = 'pieces.json'
"""Says how many pieces there are, and the sha256 of all of them together."""


def split_folder(folder: Path, out: Path, limit: int = LIMIT) -> list[Path]:
    """Write the files of a folder as pieces; older pieces are replaced.

    Parameters
    ----------
    folder : Path
        Its files, also those in folders within it.
    out : Path
        Folder of the pieces, made where absent.
    limit : int
        Bytes of a piece at most.

    Returns
    -------
    list of Path
        The pieces, the table last.
    """
    if limit < 1:
        raise ValueError('a piece holds at least one byte')
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w') as archive:
        for path in sorted(folder.rglob('*')):
            if path.is_file():
                archive.add(path, path.relative_to(folder).as_posix())
    content = stream.getvalue()
    out.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(content), limit)
    pieces = [out / f'piece.{number:03d}' for number in range(len(starts))]
    for path, start in zip(pieces, starts, strict=True):
        write_atomically(path, content[start : start + limit])
    digest = hashlib.sha256(content).hexdigest()
    table = out / TABLE
    write_atomically(table, json.dumps({'pieces': len(pieces), 'sha256': digest}).encode())
    for old in out.glob('piece.*'):
        if old not in pieces:
            old.unlink()
    return [*pieces, table]


def join_folder(pieces: Path, out: Path) -> None:
    """Put the files back that :func:`split_folder` took apart.

    Parameters
    ----------
    pieces : Path
        Folder of the pieces.
    out : Path
        Folder of the files, made where absent.

    Raises
    ------
    InputError
        Where a piece is absent or not that of the others.
    """
    try:
        told = json.loads((pieces / TABLE).read_text(encoding='utf-8'))
        content = b''.join(
            (pieces / f'piece.{number:03d}').read_bytes() for number in range(told['pieces'])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'{pieces} does not hold all pieces: {error}') from error
    if hashlib.sha256(content).hexdigest() != told.get('sha256'):
        raise InputError(f'{pieces}: the pieces are not of one moment; take an earlier copy')
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(out, filter='data')


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the way back."""
    parser = argparse.ArgumentParser(description='Join the pieces of a folder.')
    parser.add_argument('pieces', type=Path, help='folder of the pieces')
    parser.add_argument('out', type=Path, help='folder of the files')
    options = parser.parse_args(arguments)
    join_folder(options.pieces, options.out)


if __name__ == '__main__':
    run_script(main)
