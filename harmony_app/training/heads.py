"""The heads that networks train on, once on the working grid and then read from disk.

``python -m harmony_app.training.heads OUT --label-maps DIR`` writes for every head

- ``NAME_fractions.npy``, uint8 (K, 192, 224, 192): tissue fractions, 255 is all of a voxel;
- ``NAME_maps.npy``, uint8 (4, 192, 224, 192): brain mask (0 or 255) and the GM, WM, CSF
  maps, registered by the code that serves the participant level, not taken from the labels.

Memory-mapped, so that any number of training processes shares them.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from harmony_app.errors import InputError
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.registration import GOOD_QUALITY
from harmony_app.imaging.volume import Volume
from harmony_app.phantom.anatomy import Anatomy, icbm_anatomy, label_map_anatomy
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.sequences import signal
from harmony_app.phantom.tissues import TISSUES, tissue_properties
from harmony_app.training.script import run_script

logger = logging.getLogger(__name__)

ICBM = 'icbm'
VALIDATION = ('training_seg_11', 'training_seg_12')
"""Heads by which models are chosen; never trained on."""
TEST = ('training_seg_13', 'training_seg_14')
"""Heads of the benchmark; never trained on and never chosen by."""

_CLEAN = Protocol(
    'T1w', 'MPRAGE', field=3.0, repetition_time=2300, echo_time=2.9, inversion_time=900,
    flip_angle=9, excitation_interval=7,
)  # fmt: skip


@dataclass(frozen=True)
class Head:
    """A head on the working grid.

    Parameters
    ----------
    name : str
        Of its label map, or ``icbm``.
    fractions : ndarray, shape (K, 192, 224, 192), uint8
        Tissue fractions, 255 is all of a voxel; memory-mapped.
    maps : ndarray, shape (4, 192, 224, 192), uint8
        Brain mask and registered GM, WM, CSF maps; memory-mapped.
    """

    name: str
    fractions: np.ndarray
    maps: np.ndarray


def render(fractions: torch.Tensor, signals: torch.Tensor) -> torch.Tensor:
    """Noise-free image of tissue fractions.

    Parameters
    ----------
    fractions : Tensor, shape (K, ...)
        Tissue fractions, 0 to 1.
    signals : Tensor, shape (K,)
        Signal of each tissue.
    """
    return torch.tensordot(signals, fractions, dims=1)


def to_working_grid(anatomy: Anatomy, rigid: np.ndarray, chunk: int = 4) -> np.ndarray:
    """Resample tissue fractions to the working grid, uint8.

    Parameters
    ----------
    anatomy : Anatomy
        Head on its own grid.
    rigid : ndarray, shape (4, 4)
        Millimetres of the head to millimetres of the working grid.
    chunk : int
        Tissues resampled at once.
    """
    to_voxel = np.linalg.inv(rigid @ anatomy.affine) @ WORKING_AFFINE
    size = np.array(anatomy.fractions.shape[1:])
    # voxel coordinates 0 .. size - 1 to -1 .. 1, in the axis order of grid_sample
    scale = np.diag([*(2 / (size - 1)), 1.0])
    scale[:3, 3] = -1
    axes = [torch.arange(n, dtype=torch.float32) for n in WORKING_SHAPE]
    points = torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=-1)
    matrix = torch.from_numpy(scale @ to_voxel).float()
    grid = (points @ matrix[:3, :3].T + matrix[:3, 3]).flip(-1)[None]
    resampled = np.empty((len(TISSUES), *WORKING_SHAPE), np.uint8)
    for start in range(0, len(TISSUES), chunk):
        part = functional.grid_sample(
            anatomy.fractions[None, start : start + chunk], grid, align_corners=True
        )[0]
        resampled[start : start + chunk] = (part * 255).round().clamp(0, 255).byte().numpy()
    return resampled


def build_head(anatomy: Anatomy, register: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Put a head on the working grid and register the template's maps to it.

    Parameters
    ----------
    anatomy : Anatomy
        Head on its own grid.
    register : callable
        ``register(volume, contrast)`` giving ``rigid``, ``brain``, ``tissues`` and ``quality``, as
        :func:`harmony_app.imaging.registration.register_template`.

    Returns
    -------
    fractions, maps : ndarray, uint8
        As in :class:`Head`.

    Raises
    ------
    InputError
        Where the head does not lie well on the template.
    """
    signals = signal(_CLEAN, tissue_properties(_CLEAN.field))
    image = render(anatomy.fractions, signals / signals[TISSUES.index('wm')]).numpy()
    registration = register(Volume(image, anatomy.affine), 'T1w')
    if registration.quality < GOOD_QUALITY:
        raise InputError(
            f'the head does not lie well on the template (quality {registration.quality:.2f}): '
            'leave its label map out'
        )
    brain = registration.brain.astype(np.uint8)[None] * np.uint8(255)
    maps = np.concatenate([brain, registration.tissues.astype(np.uint8)])
    return to_working_grid(anatomy, registration.rigid), maps


def build_heads(out: Path, label_maps: Sequence[Path], register: Callable) -> None:
    """Build every head that is not in the folder yet; ``READY`` tells that all are there."""
    out.mkdir(parents=True, exist_ok=True)
    sources = [(ICBM, icbm_anatomy)] + [
        (_stem(path), lambda path=path: label_map_anatomy(path)) for path in label_maps
    ]
    for name, make in sources:
        if (out / f'{name}_maps.npy').exists():
            continue
        try:
            fractions, maps = build_head(make(), register)
        except InputError as error:
            raise InputError(f'{name}: {error}') from error
        np.save(out / f'{name}_fractions.npy', fractions)
        np.save(out / f'{name}_maps.npy', maps)
        logger.info('%s: done', name)
    (out / 'READY').write_text('\n'.join(name for name, _ in sources) + '\n')


def load_heads(folder: Path, names: Sequence[str] | None = None) -> list[Head]:
    """Memory-map heads.

    Parameters
    ----------
    folder : Path
        Written by :func:`build_heads`.
    names : sequence of str, optional
        Which; all but those for validation and test where None.

    Raises
    ------
    InputError
        Where there is none.
    """
    if names is None:
        held_out = (*VALIDATION, *TEST)
        names = sorted(
            path.name.removesuffix('_maps.npy')
            for path in Path(folder).glob('*_maps.npy')
            if path.name.removesuffix('_maps.npy') not in held_out
        )
    try:
        heads = [
            Head(name, *(np.load(Path(folder) / f'{name}_{kind}.npy', mmap_mode='r')
                         for kind in ('fractions', 'maps')))
            for name in names
        ]  # fmt: skip
    except FileNotFoundError as error:
        raise InputError(
            f'{error.filename}: no such head; build with python -m harmony_app.training.heads'
        ) from error
    if not heads:
        raise InputError(f'{folder}: no heads; build with python -m harmony_app.training.heads')
    return heads


def split_heads(folder: Path, seed: int = 1) -> tuple[list[Head], list[Head]]:
    """Heads to learn from, and heads to choose models by.

    The latter are those of :data:`VALIDATION`; where the folder has none of them, one head of
    three or more.

    Parameters
    ----------
    folder : Path
        Written by :func:`build_heads`.
    seed : int
        Chooses that one head.
    """
    heads = load_heads(folder)
    known = [name for name in VALIDATION if (Path(folder) / f'{name}_maps.npy').exists()]
    if known:
        return heads, load_heads(folder, known)
    if len(heads) < 3:
        return heads, []
    chosen = int(np.random.default_rng(seed).integers(len(heads)))
    return heads[:chosen] + heads[chosen + 1 :], [heads[chosen]]


def _stem(path: Path) -> str:
    return path.name.removesuffix('.gz').removesuffix('.nii')


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the cache."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder of the heads')
    parser.add_argument('--label-maps', type=Path, help='folder of FreeSurfer-style label maps')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    from harmony_app.imaging.registration import register_template

    paths = sorted(options.label_maps.glob('*.nii*')) if options.label_maps else []
    build_heads(options.out, paths, register_template)


if __name__ == '__main__':
    run_script(main)
