"""Heads in a form small enough to be carried to another machine: 4 bits a tissue, compressed.

``python -m harmony_app.training.carried HEADS OUT`` writes one ``NAME.npz`` for every head to train
on and to choose models by: about 5 MB instead of 140. Nothing is left to register over there, and
:func:`unpack_heads` gives a folder of heads as :mod:`harmony_app.training.heads` reads it. A fraction
is off by 1 in 30 at most; labels and a blur would be smaller by far, but the soft borders of the
heads, most of all of the ICBM one, cannot be had back from them.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harmony_app.errors import InputError
from harmony_app.training.heads import VALIDATION, load_heads

logger = logging.getLogger(__name__)

STEP = 17
"""Levels of 255 between two that are kept: 0, 17, ..., 255."""


def pack_heads(heads: Path, out: Path) -> list[Path]:
    """Write the heads for training and validation of a folder in 4 bits.

    Parameters
    ----------
    heads : Path
        Folder of :func:`harmony_app.training.heads.build_heads`.
    out : Path
        Folder of the files, made where absent.

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
        np.savez_compressed(
            path,
            shape=np.array(head.fractions.shape[1:]),
            fractions=to_nibbles(np.asarray(head.fractions)),
            tissues=to_nibbles(np.asarray(head.maps[1:])),
            brain=np.packbits(np.asarray(head.maps[0]) > 127),
        )
        files.append(path)
        logger.info('%s: %.1f MB', path.name, path.stat().st_size / 1e6)
    return files


def unpack_heads(carried: Path, out: Path) -> list[str]:
    """Write carried heads as they are trained on; those that are there already stay.

    Parameters
    ----------
    carried : Path
        Folder of :func:`pack_heads`.
    out : Path
        Folder of the heads, made where absent.

    Returns
    -------
    list of str
        Their names.

    Raises
    ------
    InputError
        Where there is none.
    """
    paths = sorted(Path(carried).glob('*.npz'))
    if not paths:
        raise InputError(f'{carried}: no heads; write them with python -m {__name__}')
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if (out / f'{path.stem}_maps.npy').exists():
            continue
        with np.load(path, allow_pickle=False) as file:
            shape = tuple(int(n) for n in file['shape'])
            fractions, tissues = (from_nibbles(file[k]) for k in ('fractions', 'tissues'))
            brain = np.unpackbits(file['brain'], count=int(np.prod(shape))).reshape(shape)
        _cap(fractions)
        np.save(out / f'{path.stem}_fractions.npy', fractions)
        np.save(out / f'{path.stem}_maps.npy', np.concatenate([255 * brain[None], tissues]))
    return [path.stem for path in paths]


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


def _cap(fractions: np.ndarray) -> None:
    """Take off what rounding put over the whole of a voxel."""
    total = fractions.sum(axis=0, dtype=np.uint16)
    over = total > 255
    fractions[:, over] = fractions[:, over].astype(np.uint16) * 255 // total[over]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('heads', type=Path, help='folder of the heads')
    parser.add_argument('out', type=Path, help='folder to carry')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    files = pack_heads(options.heads, options.out)
    logger.info('%.1f MB in all', sum(path.stat().st_size for path in files) / 1e6)


if __name__ == '__main__':
    main()
