"""Units of work in several processes, each with its results on disk.

A part is valid for one stamp: what methods, models, study and code made it. Of another stamp all
parts are thrown away. Results come in the order of the units, whatever the number of processes.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from harmony_app.bids.atomic import write_json
from harmony_app.errors import HarmonyError

logger = logging.getLogger(__name__)

STAMP = 'stamp.json'
ROOMS = ('imaging', 'engine', 'nets', 'methods', 'evaluation')
"""Rooms of the package whose code makes the numbers."""

THREADS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


def open_parts(folder: Path, stamp: dict) -> Path:
    """Make the folder of the parts, and empty it where they were made otherwise.

    Parameters
    ----------
    folder : Path
        Of the parts.
    stamp : dict
        All that the parts depend on.
    """
    # as it is read back
    stamp = json.loads(json.dumps(stamp))
    path = folder / STAMP
    if folder.exists():
        old = json.loads(path.read_text(encoding='utf-8')) if path.exists() else None
        if old == stamp:
            return folder
        logger.info('the methods, models, study or code have changed: all is measured anew')
        shutil.rmtree(folder)
    write_json(path, stamp)
    return folder


def code_checksum() -> str:
    """Checksum of the code that makes the numbers."""
    import harmony_app

    package, here = Path(harmony_app.__file__).parent, Path(__file__).parent
    names = ('truth', 'scoring', 'compared', 'networks', 'measures', 'sessions', 'costs')
    paths = [path for room in ROOMS for path in sorted((package / room).rglob('*.py'))]
    return files_checksum([*paths, *(here / f'{name}.py' for name in names)])


def files_checksum(paths: Iterable[Path]) -> str:
    """Checksum of what files hold, in their order."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()


def run_parts(
    folder: Path,
    kind: str,
    units: Sequence[tuple[str, ...]],
    work: Callable[[tuple[str, ...]], dict],
    workers: int,
) -> Iterator[dict]:
    """Results of all units, in their order; those that are there are not worked on again.

    Parameters
    ----------
    folder : Path
        Of :func:`open_parts`.
    kind : str
        Start of the names of the files.
    units : sequence of tuple of str
        What tells the units apart, in letters that file names take.
    work : callable
        Gives what JSON can say of a unit; can be pickled.
    workers : int
        Processes; 0 works in this one.
    """
    paths = {unit: folder / f'{kind}_{"_".join(unit)}.json' for unit in units}
    left = [unit for unit in units if not paths[unit].exists()]
    do = partial(_work, work)
    if workers and left:
        # before the children start: their libraries ask when they are loaded
        for name in THREADS:
            os.environ[name] = '1'
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(min(workers, len(left)), context, _begin) as pool:
            futures = [pool.submit(do, unit, paths[unit]) for unit in left]
            try:
                for number, (unit, future) in enumerate(zip(left, futures, strict=True), 1):
                    future.result()
                    logger.info('%s %s: %d of %d', kind, ' '.join(unit), number, len(left))
            except BrokenProcessPool as error:
                raise HarmonyError(
                    'a process was ended from outside, perhaps for its memory: begin again with '
                    '--workers 1; what is done is kept'
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)
    else:
        for unit in left:
            do(unit, paths[unit])
    for unit in units:
        yield json.loads(paths[unit].read_text(encoding='utf-8'))


def _begin() -> None:
    """Every process computes with one thread, so that sums are added in one order."""
    import torch

    torch.set_num_threads(1)


def _work(work: Callable[[tuple[str, ...]], dict], unit: tuple[str, ...], path: Path) -> None:
    write_json(path, work(unit))
