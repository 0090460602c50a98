"""Heads as tissue fractions: from FreeSurfer-style label maps or from the ICBM maps.

A fraction map says how much of a voxel a tissue fills, so that partial volume at the
borders is there before any sequence is.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from harmony_app.errors import InputError, ScanError
from harmony_app.phantom.tissues import TISSUES

LABELS = {
    'wm': (2, 41, 7, 46, 16, 28, 60, 85, 192, 250, 251, 252, 253, 254, 255, 512),
    'gm': (3, 42, 8, 47, 17, 53, 18, 54, 136, 137, 163, 164),
    'deep_gm': (10, 49, 11, 50, 12, 51, 13, 52, 26, 58),
    'csf': (4, 43, 5, 44, 14, 15, 24, 31, 63, 72, 221),
    'lesion': (77, 78, 79, 25, 57),
    'vessel': (30, 62, 502, 514, 530),
    'bone': (515, 165),
    'marrow': (516,),
    'skin': (511,),
    'vitreous': (506,),
    'mucosa': (509, 508),
}
"""FreeSurfer labels of each tissue; from 500 up the extra-cerebral labels of the SynthSeg heads,
read by their place. 507 is soft tissue, divided into fat and muscle by depth."""

SOFT_TISSUE = (507, 258, 259)

BORDER = 0.6
"""Standard deviation in mm of the blur that makes partial volume of label borders."""


@dataclass(frozen=True)
class Anatomy:
    """A head.

    Parameters
    ----------
    fractions : Tensor, shape (K, X, Y, Z), float32
        Fraction of each of :data:`~harmony_app.phantom.tissues.TISSUES`, 0 to 1; what is
        left to one is air. Axes are RAS.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm.
    """

    fractions: torch.Tensor
    affine: np.ndarray

    def __getitem__(self, tissue: str) -> torch.Tensor:
        """Fraction map of one tissue, shape (X, Y, Z)."""
        return self.fractions[TISSUES.index(tissue)]

    def with_fractions(self, fractions: torch.Tensor) -> 'Anatomy':
        """Other fractions on the same grid."""
        return replace(self, fractions=fractions)


def label_map_anatomy(path: Path | str, seed: int = 0) -> Anatomy:
    """Read a whole-head FreeSurfer-style label map.

    Parameters
    ----------
    path : path
        NIfTI with integer labels (aseg, extra-cerebral labels from 500 up).
    seed : int
        Draws where the soft tissue of the neck and face is fat and where muscle.

    Raises
    ------
    InputError, ScanError
        Where the file is absent, unreadable, or shows no cerebral label.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'{path}: no such label map')
    try:
        image = nib.as_closest_canonical(nib.load(path))
        labels = np.rint(np.asanyarray(image.dataobj)).astype(np.int16)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise ScanError(f'{path}: not a readable label map ({error})') from error
    if labels.ndim != 3 or not np.isin(labels, (2, 41)).any():
        raise ScanError(
            f'{path}: not a FreeSurfer-style label map (no cerebral white matter, label 2 or 41)'
        )
    labels, affine = _crop(labels, image.affine)
    classes = _classes(labels, np.random.default_rng(seed))
    return Anatomy(_partial_volume(classes, nib.affines.voxel_sizes(affine)), affine)


def _crop(labels: np.ndarray, affine: np.ndarray, margin: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Cut the air around the head, but for a margin in voxels."""
    where = [np.flatnonzero((labels > 0).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    start = [max(0, w[0] - margin) for w in where]
    stop = [min(n, w[-1] + 1 + margin) for w, n in zip(where, labels.shape, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    moved = affine.copy()
    moved[:3, 3] = nib.affines.apply_affine(affine, start)
    return labels[box], moved


def _classes(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tissue index + 1 of every voxel, 0 for air, uint8."""
    lookup = np.zeros(max(int(labels.max()), 1000) + 1, np.uint8)
    for tissue, values in LABELS.items():
        lookup[list(values)] = TISSUES.index(tissue) + 1
    classes = lookup[np.maximum(labels, 0)]
    soft = np.isin(labels, SOFT_TISSUE)
    if soft.any():
        depth = ndimage.distance_transform_edt(~np.isin(labels, (0, *LABELS['skin'])))
        patches = ndimage.zoom(
            rng.standard_normal([max(2, n // 12) for n in labels.shape]).astype(np.float32),
            [n / max(2, n // 12) for n in labels.shape],
            order=1,
        )
        patches = patches[tuple(slice(n) for n in labels.shape)]
        # The layer under the skin is fat; muscle lies deeper with fat between.
        fat = (depth < 5.0 + 1.5 * patches) | (patches > 1.1)
        near_eye = ndimage.binary_dilation(np.isin(labels, LABELS['vitreous']), iterations=9)
        fat |= near_eye
        classes[soft] = np.where(fat[soft], TISSUES.index('fat') + 1, TISSUES.index('muscle') + 1)
    return classes


def _partial_volume(classes: np.ndarray, zooms: np.ndarray) -> torch.Tensor:
    """Blurred class memberships, shape (K, X, Y, Z), float32."""
    fractions = torch.empty((len(TISSUES), *classes.shape))
    members = torch.from_numpy(classes)
    for index in range(len(TISSUES)):
        member = (members == index + 1).float()[None, None]
        fractions[index] = blur(member, [BORDER / float(z) for z in zooms])[0, 0]
    return fractions


def blur(image: torch.Tensor, sigma: list[float] | tuple[float, ...]) -> torch.Tensor:
    """Gaussian blur along the three last axes.

    Parameters
    ----------
    image : Tensor, shape (B, C, X, Y, Z)
        Zero outside.
    sigma : sequence of 3 float
        Standard deviations in voxels; zero leaves an axis as it is.
    """
    for axis, width in enumerate(sigma):
        if width <= 0.05:
            continue
        radius = max(1, int(3 * width + 0.5))
        points = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
        kernel = torch.exp(-0.5 * (points / width) ** 2)
        shape, padding = [1, 1, 1], [0, 0, 0]
        shape[axis], padding[axis] = 2 * radius + 1, radius
        weight = (kernel / kernel.sum()).view(1, 1, *shape).repeat(image.shape[1], 1, 1, 1, 1)
        image = functional.conv3d(image, weight, padding=padding, groups=image.shape[1])
    return image


def icbm_anatomy() -> Anatomy:
    """The ICBM 2009a symmetric brain with a procedural head around it.

    The skull, marrow, scalp, muscle and eyes follow the distance from the brain; their
    thickness is anatomical on average (skull 6 to 8 mm with a marrow core, scalp 5 to 9 mm).

    Returns
    -------
    Anatomy
        On the working grid.
    """
    # heads stand beside the workflow; the template is an imaging matter
    from harmony_app.imaging.grid import WORKING_AFFINE
    from harmony_app.imaging.template import load_template

    template = load_template()
    brain = template.brain
    # the average of many brains is soft: a power makes it as crisp as one brain is
    sharp = np.clip(template.tissues, 0, 1) ** 2.5
    sharp = sharp / np.maximum(sharp.sum(0), 1e-3)
    gm, wm, csf = sharp * ndimage.gaussian_filter(brain.astype(np.float32), 0.6)

    outside = ndimage.distance_transform_edt(~brain).astype(np.float32)
    x, y, z = _world(brain.shape, WORKING_AFFINE)
    # a skull is smooth: measure from the closed brain, not from its sulci
    hull = ndimage.distance_transform_edt(outside <= 12) > 12
    distance = np.where(
        hull, -ndimage.distance_transform_edt(hull), ndimage.distance_transform_edt(~hull)
    ).astype(np.float32)
    distance = ndimage.gaussian_filter(distance, 2.0)
    lower = np.clip((-20 - z) / 40, 0, 1)
    skull = 6.5 + 1.5 * np.clip(-y / 90, -0.5, 1)
    scalp = 6.0 + 2.0 * np.clip(-y / 90, 0, 1) + 14 * lower

    def shell(inner, outer):
        return np.clip(distance - inner + 0.5, 0, 1) * np.clip(outer - distance + 0.5, 0, 1)

    gap = 2.5
    fractions = dict.fromkeys(TISSUES)
    fractions['wm'], fractions['gm'] = wm, gm
    deep = np.exp(-((np.abs(x) - 16) ** 2 / 160 + (y + 2) ** 2 / 420 + (z - 6) ** 2 / 130))
    fractions['deep_gm'] = gm * np.clip(2 * deep, 0, 1)
    fractions['gm'] = gm - fractions['deep_gm']
    inside = np.clip(gap - distance + 0.5, 0, 1)
    fractions['csf'] = np.maximum(csf, inside * (1 - gm - wm))
    bone = shell(gap, gap + skull)
    marrow = shell(gap + 2.0, gap + skull - 2.0)
    fractions['marrow'] = marrow
    fractions['bone'] = bone * (1 - marrow)
    soft = shell(gap + skull, gap + skull + scalp)
    temporal = np.clip((np.abs(x) - 45) / 15, 0, 1) * np.clip((15 - z) / 20, 0, 1)
    deepness = np.clip((gap + skull + scalp - distance - 4.5) / 2, 0, 1)
    fractions['muscle'] = soft * deepness * np.maximum(temporal, lower)
    fractions['fat'] = soft - fractions['muscle']
    fractions['skin'] = shell(gap + skull + scalp, gap + skull + scalp + 2.0)
    for side in (-1, 1):
        radius = np.sqrt((x - 33 * side) ** 2 + (y - 62) ** 2 + (z + 34) ** 2)
        eye = np.clip(12 - radius + 0.5, 0, 1)
        orbit = np.clip(19 - radius + 0.5, 0, 1) * (distance > 0)
        for name, value in fractions.items():
            if value is not None and name not in ('wm', 'gm', 'deep_gm'):
                fractions[name] = value * (1 - np.maximum(orbit, eye))
        fractions['fat'] = fractions['fat'] + np.clip(orbit - eye, 0, 1)
        previous = fractions['vitreous']
        fractions['vitreous'] = eye if previous is None else previous + eye
    # the superior sagittal sinus
    sinus = np.exp(-((x / 3.5) ** 2)) * shell(0, gap) * (z > 10)
    fractions['vessel'] = sinus
    fractions['csf'] = fractions['csf'] * (1 - sinus)
    below = np.clip(z + 84, 0, 1)
    stacked = np.stack(
        [
            np.zeros_like(gm) if fractions[name] is None else fractions[name] * below
            for name in TISSUES
        ]
    ).astype(np.float32)
    stacked /= np.maximum(stacked.sum(0), 1.0)
    return Anatomy(torch.from_numpy(stacked), WORKING_AFFINE.copy())


def _world(shape: tuple[int, int, int], affine: np.ndarray) -> list[np.ndarray]:
    """Open coordinate axes in mm of a grid whose axes are those of the world."""
    axes = [affine[i, i] * np.arange(n) + affine[i, 3] for i, n in enumerate(shape)]
    return [a.astype(np.float32) for a in np.meshgrid(*axes, indexing='ij', sparse=True)]
