"""Files that appear whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harmony_app.errors import OutputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` and rename it when the block ends well.

    Parameters
    ----------
    path : Path
        Where the file shall be; its folder is made.

    Raises
    ------
    OutputError
        Where the folder or file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The extension stays at the end: writers of images choose the format by it.
        handle, temporary = tempfile.mkstemp(prefix='.tmp-', suffix=path.name, dir=path.parent)
    except OSError as error:
        raise OutputError(
            f'cannot write {path}: {error.strerror}; choose another folder'
        ) from error
    os.close(handle)
    try:
        yield Path(temporary)
        with open(temporary, 'rb') as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f'cannot write {path}: {error.strerror}; is the disk full?') from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically (UTF-8) and give its path.

    A name in another encoding, which UTF-8 cannot hold, is written with its bytes spelled out.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode('utf-8', 'backslashreplace'))
    return Path(path)


def write_json(path: Path, fields: dict | list) -> Path:
    """Write a JSON file atomically and give its path; NaN and infinity are refused."""
    text = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + '\n')


def write_table(path: Path, columns: list[str], rows: list[dict]) -> Path:
    """Write a TSV as BIDS asks for: ``n/a`` where a value is absent.

    Parameters
    ----------
    path : Path
        Where to write.
    columns : list of str
        Names of the columns, in order.
    rows : list of dict
        One dict for each row; keys outside ``columns`` are an error.
    """
    lines = ['\t'.join(columns)]
    for row in rows:
        unknown = set(row) - set(columns)
        if unknown:
            raise ValueError(f'no column for {sorted(unknown)} in {path}')
        lines.append('\t'.join(_cell(row.get(column)) for column in columns))
    return write_text(path, '\n'.join(lines) + '\n')


def read_json(path: Path):
    """Read a JSON file that others may have written.

    NaN and infinity, which JSON does not have, become None; a byte order mark is passed over, and
    characters that no file can hold are replaced.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    OSError
        Where it cannot be read.
    ValueError
        Where it is no JSON, or nested deeper than can be read.
    """
    text = Path(path).read_text(encoding='utf-8-sig')
    try:
        return _plain(json.loads(text, parse_constant=lambda _: None))
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error


def _plain(value):
    """A value of JSON without what cannot be written again."""
    if isinstance(value, str):
        return value.encode('utf-8', 'replace').decode()
    if isinstance(value, float):
        return value if abs(value) < float('inf') else None
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a TSV; ``n/a`` and empty cells are left out of a row."""
    lines = Path(path).read_text(encoding='utf-8-sig').splitlines()
    if not lines:
        return []
    columns = lines[0].split('\t')
    rows = [
        dict(zip(columns, line.split('\t'), strict=False)) for line in lines[1:] if line.strip()
    ]
    return [{k: v.strip() for k, v in row.items() if v.strip() not in ('', 'n/a')} for row in rows]


def _cell(value) -> str:
    if value is None or value == '' or value != value:
        return 'n/a'
    if isinstance(value, float):
        return f'{value:.6g}'
    return ' '.join(str(value).split())


def _umask() -> int:
    """The umask of the process; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
