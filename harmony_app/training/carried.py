"""Heads in a form small enough to be carried to another machine.

``python -m harmony_app.training.carried METHOD HEADS OUT`` writes one ``NAME.npz`` for every head to
train on and to choose models by, 1 to 3 MB instead of 140. Nothing is left to register over there,
and :func:`unpack_heads` gives a folder of heads as :mod:`harmony_app.training.heads` reads it.

- ``haca3``: tissue fractions at 1 mm in 4 bits, off by 1 in 30 at most, and the brain. Labels
  and a blur would be a tenth of that, but the soft borders of the heads, most of all of the ICBM
  one, cannot be had back from them.
- ``transfer``: tissue fractions and registered maps as means over 2 mm, which is all that its
  examples are made of.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harmony_app.errors import InputError
from harmony_app.training.heads import VALIDATION, Head, load_heads
from harmony_app.training.script import run_script
from harmony_app.training.subjects import plain_subject

logger = logging.getLogger(__name__)

METHODS = ('haca3', 'transfer')
"""Methods that heads can be carried for."""

STEP = 17
"""Levels of 255 between two that are kept: 0, 17, ..., 255."""


def pack_heads(heads: Path, out: Path, method: str) -> list[Path]:
    """Write the heads for training and validation of a folder.

    Parameters
    ----------
    heads : Path
        Folder of :func:`harmony_app.training.heads.build_heads`.
    out : Path
        Folder of the files, made where absent.
    method : str
        One of :data:`METHODS`, the one to train.

    Returns
    -------
    list of Path
        The files.
    """
    names = [head.name for head in load_heads(heads)]
    names += [name for name in VALIDATION if (Path(heads) / f'{name}_maps.npy').exists()]
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for head in load_heads(heads, names):
        path = out / f'{head.name}.npz'
        arrays = _fine(head) if method == 'haca3' else _coarse(head)
        np.savez_compressed(path, method=method, **arrays)
        files.append(path)
        logger.info('%s: %.1f MB', path.name, path.stat().st_size / 1e6)
    return files


def _fine(head: Head) -> dict[str, np.ndarray]:
    return {
        'shape': np.array(head.fractions.shape[1:]),
        'fractions': to_nibbles(np.asarray(head.fractions)),
        'brain': np.packbits(np.asarray(head.maps[0]) > 127),
    }


def _coarse(head: Head) -> dict[str, np.ndarray]:
    subject = plain_subject(head)
    return {'fractions': subject.fractions, 'maps': subject.maps}


def unpack_heads(carried: Path, out: Path, method: str) -> list[str]:
    """Write carried heads as they are trained on; those that are there already stay.

    Parameters
    ----------
    carried : Path
        Folder of :func:`pack_heads`.
    out : Path
        Folder of the heads, made where absent. What was not carried is zero there.
    method : str
        The method to train.

    Returns
    -------
    list of str
        Their names.

    Raises
    ------
    InputError
        Where there is none, or they were packed for another method.
    """
    paths = sorted(Path(carried).glob('*.npz'))
    if not paths:
        raise InputError(f'{carried}: no heads; write them with python -m {__name__}')
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            if str(file['method']) != method:
                raise InputError(f'{path} was packed for {file["method"]}, not for {method}')
            if (out / f'{path.stem}_maps.npy').exists():
                continue
            fractions, maps = _from_fine(file) if method == 'haca3' else _from_coarse(file)
        np.save(out / f'{path.stem}_fractions.npy', fractions)
        np.save(out / f'{path.stem}_maps.npy', maps)
    return [path.stem for path in paths]


def _from_fine(file) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(int(n) for n in file['shape'])
    fractions = from_nibbles(file['fractions'])
    # rounding may have put a little over the whole of a voxel
    total = fractions.sum(axis=0, dtype=np.uint16)
    over = total > 255
    fractions[:, over] = fractions[:, over].astype(np.uint16) * 255 // total[over]
    maps = np.zeros((4, *shape), np.uint8)
    maps[0] = 255 * np.unpackbits(file['brain'], count=int(np.prod(shape))).reshape(shape)
    return fractions, maps


def _from_coarse(file) -> tuple[np.ndarray, ...]:
    """Every voxel eight times: their mean over 2 mm is what was carried."""
    return tuple(
        file[name].repeat(2, axis=1).repeat(2, axis=2).repeat(2, axis=3)
        for name in ('fractions', 'maps')
    )


def to_nibbles(values: np.ndarray) -> np.ndarray:
    """Round uint8 values to 16 levels, two to a byte.

    Parameters
    ----------
    values : ndarray, uint8
        Its last axis even.

    Examples
    --------
    >>> from_nibbles(to_nibbles(np.array([0, 8, 9, 255], np.uint8))).tolist()
    [0, 0, 17, 255]
    """
    levels = ((values.astype(np.uint16) + STEP // 2) // STEP).astype(np.uint8)
    return (levels[..., ::2] << 4) | levels[..., 1::2]


def from_nibbles(packed: np.ndarray) -> np.ndarray:
    """Inverse of :func:`to_nibbles`, but for the rounding."""
    levels = np.stack([packed >> 4, packed & 15], axis=-1)
    return (levels * np.uint8(STEP)).reshape(*packed.shape[:-1], -1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('method', choices=METHODS, help='the method to train')
    parser.add_argument('heads', type=Path, help='folder of the heads')
    parser.add_argument('out', type=Path, help='folder to carry')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    files = pack_heads(options.heads, options.out, options.method)
    logger.info('%.1f MB in all', sum(path.stat().st_size for path in files) / 1e6)


if __name__ == '__main__':
    run_script(main)
