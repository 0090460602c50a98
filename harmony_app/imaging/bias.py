"""Bias field correction by the N4 algorithm on a coarse grid, applied at full resolution.

The two steps of N4 (sharpen the histogram of logarithms, fit cubic B-splines to what the
sharpening changed) are written here with separable sums: on a 4 mm grid the whole costs
about a second, against minutes for a general scattered-data fit, and gives the same
voxels each time.

N4 takes what differs between parts of the head for a field and leaves some of the field: 2 to 6 %
on phantoms. Once a scan lies on the template its tissues are known, and what varies smoothly
over them all is a field too (:func:`tissue_field`).

References
----------
Sled et al. 1998, IEEE Trans. Medical Imaging 17: 87-97 (sharpening).
Tustison et al. 2010, IEEE Trans. Medical Imaging 29: 1310-1320 (N4).
Lee et al. 1997, IEEE Trans. Visualization 3: 228-244 (multilevel B-spline approximation).
Wells et al. 1996, IEEE Trans. Medical Imaging 15: 429-442 (a field from known tissues).
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from harmony_app.imaging.grid import coarse_grid, halved
from harmony_app.imaging.intensity import histogram_mode
from harmony_app.imaging.masks import head_mask
from harmony_app.imaging.profile import TISSUES
from harmony_app.imaging.resample import isotropic_grid, resample
from harmony_app.imaging.volume import Volume

SPACING = 4.0
"""Voxel edge in mm of the grid on which the field is estimated; fields are smooth over 5 cm."""

SPLINE_DISTANCE = 200.0
"""Distance in mm of the spline's knots at the first level."""

ITERATIONS = (50, 50, 50)
"""Most iterations at each level; each level halves the distance of the knots."""

CONVERGED = 1e-3
"""Coefficient of variation of the ratio of two successive fields that ends a level."""

BINS, SHARPENING_FWHM, WIENER_NOISE = 200, 0.15, 0.01
"""Histogram bins, width of the blur that bias makes (in logarithms), noise of the Wiener filter."""

SPANS = 2
"""Knot intervals along each axis of the brain of the field that its tissues tell: 6 to 9 cm."""

TELLING = {'WM': (0.8, 1.0), 'GM': (0.7, 0.5)}
"""Tissues that tell it: from which probability on, and the weight of a voxel."""

FLATTEST, GRADIENT_BLUR = 0.5, 0.7
"""Share of a tissue's voxels, of the smallest gradients, that tell it; blur before, in voxels."""

DARKEST, START_MODE = 0.05, 0.05
"""Intensity from which on a voxel shows something; kernel of the mode that a level starts from."""

WIDTHS = (0.25, 0.19, 0.13, 0.08, 0.08, 0.08, 0.08, 0.08)
"""Scale in logarithms, round by round, beyond which a voxel counts little: lesions and misplaced
maps are no field."""

ROUGHNESS = 1e-2
"""Weight of the field's second differences beside the mean weight of a spline's coefficient."""

FEWEST = 4000
"""Fewest voxels of 2 mm (32 ml) of a tissue that a field is read from."""

FIELD_STEP = 4
"""Voxels of the working grid in the edge of those that the field is kept on."""


def correct_bias(volume: Volume, mask: np.ndarray | None = None) -> tuple[Volume, Volume | None]:
    """Divide a scan by its smooth bias field (N4).

    Parameters
    ----------
    volume : Volume
        Scan of any contrast and resolution.
    mask : ndarray, shape of the volume, bool, optional
        Where the field is estimated; the head by default.

    Returns
    -------
    corrected : Volume
        Scan over field; zero stays zero.
    field : Volume or None
        The field on the scan's grid, geometric mean 1 in the mask. None where the mask is
        too small to estimate one; the scan is then given back as it was.
    """
    mask = head_mask(volume) if mask is None else np.asarray(mask, bool)
    shape, affine = isotropic_grid(volume, max(SPACING, *volume.zooms))
    coarse = resample(volume, shape, affine, order=1).data
    inside = resample(volume.with_data(mask.astype(np.float32)), shape, affine, order=1).data > 0.5
    inside &= coarse > 0
    if np.count_nonzero(inside) < 500:
        return volume, None
    # Logarithms of air and bone are noise.
    inside &= coarse > 0.1 * float(np.median(coarse[inside]))
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    log_field = estimate_log_field(np.log(np.maximum(coarse, 1e-30)), inside, zooms)
    log_field -= log_field[inside].mean()
    fine = _interpolate(log_field, affine, volume)
    np.exp(fine, out=fine)
    corrected = (volume.data / fine).astype(np.float32, copy=False)
    return volume.with_data(corrected), volume.with_data(fine)


def estimate_log_field(log_data: np.ndarray, mask: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Logarithm of the bias field of a coarse scan.

    Parameters
    ----------
    log_data : ndarray, shape (X, Y, Z)
        Logarithm of the scan; only read inside the mask.
    mask : ndarray, shape (X, Y, Z), bool
        Where the field is estimated.
    zooms : array of 3 float
        Voxel edges in mm.

    Returns
    -------
    ndarray, shape (X, Y, Z), float64
        Smooth everywhere, also outside the mask.
    """
    # The lattice spans the mask only, so that no knot lies where nothing is known.
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    inside = mask[box]
    values = log_data[box][inside].astype(np.float64)
    extent = np.array(inside.shape) * zooms
    total = np.zeros(inside.shape)
    for level, iterations in enumerate(ITERATIONS):
        spans = np.maximum(1, np.ceil(extent / SPLINE_DISTANCE).astype(int)) * 2**level
        basis = [_spline_basis(n, s) for n, s in zip(inside.shape, spans, strict=True)]
        for _ in range(iterations):
            current = values - total[inside]
            change = _fit(current - _sharpen(current), inside, basis)
            total += change
            ratio = np.exp(change[inside])
            if ratio.std() / ratio.mean() < CONVERGED:
                break
    pad = [(b.start, n - b.stop) for b, n in zip(box, mask.shape, strict=True)]
    return np.pad(total, pad, mode='edge')


def tissue_field(data: np.ndarray, brain: np.ndarray, tissues: np.ndarray) -> np.ndarray | None:
    """Logarithm of the smooth field that white and grey matter of a scan share.

    One spline and one level for each tissue are fitted to the logarithm of the scan, robustly,
    where each is flattest. White matter alone would be told better and would tell more than a
    field: in real T2w and FLAIR scans it is brighter in the middle, and grey matter is not.

    Parameters
    ----------
    data : ndarray, shape of the working grid, float32
        Scan with its white-matter peak near 1.
    brain : ndarray, same shape, bool
        Brain mask.
    tissues : ndarray, shape (3, X, Y, Z), uint8 or float
        Registered GM, WM and CSF maps; uint8 maps are certain at 255, float maps at 1.

    Returns
    -------
    ndarray, float32, or None
        On ``coarse_grid(FIELD_STEP)``, zero in the mean over white matter; beyond the brain it
        goes on as at its edge. None where too little of a tissue is seen.
    """
    inside, image = halved(brain) > 0.5, halved(data)
    sure = 255.0 if np.issubdtype(tissues.dtype, np.integer) else 1.0
    logs = np.log(np.maximum(image, DARKEST))
    steep = ndimage.gaussian_gradient_magnitude(logs, GRADIENT_BLUR)
    if not inside.any():
        return None
    (box,) = ndimage.find_objects(inside.astype(np.uint8))
    parts = []
    for name, (certain, weight) in TELLING.items():
        tissue = halved(tissues[TISSUES.index(name)]) / sure
        where = inside & (tissue > certain) & (image > DARKEST)
        if np.count_nonzero(where) < FEWEST:
            return None
        where &= steep <= np.quantile(steep[where], FLATTEST)
        place = np.argwhere(where) - [b.start for b in box]
        design = _lattice_design(box, place)
        level = np.log(histogram_mode(image[where], START_MODE))
        parts.append(_Part(design, logs[where].astype(np.float64), level, weight))
    lattice = np.zeros(parts[0].design.shape[1])
    for width in WIDTHS:
        normal, moment = 0.0, 0.0
        for part in parts:
            rest = part.values - part.level - part.design @ lattice
            weights = part.weight * np.exp(-0.5 * (rest / width) ** 2)
            part.level += np.average(rest, weights=weights)
            weighted = part.design.T * weights
            normal = normal + weighted @ part.design
            moment = moment + weighted @ (part.values - part.level)
        mean = np.trace(normal) / len(normal)
        normal += mean * (ROUGHNESS * _roughness(SPANS + 3) + 1e-6 * np.eye(len(normal)))
        lattice = np.linalg.solve(normal, moment)
        # splines sum to one: a mean taken off their coefficients is off the field
        lattice -= (parts[0].design @ lattice).mean()
    shape, _ = coarse_grid(FIELD_STEP)
    basis = []
    for n, b in zip(shape, box, strict=True):
        # centres of the coarse voxels among those of 2 mm, not beyond the brain's
        centres = (np.arange(n) + 0.5) * FIELD_STEP / 2 - 0.5 - b.start
        count = b.stop - b.start
        basis.append(_spline_basis(count, SPANS, np.clip(centres, 0, count - 1)))
    cube = lattice.reshape([SPANS + 3] * 3)
    return _project(cube, [b.T for b in basis]).astype(np.float32)


@dataclass
class _Part:
    """Voxels of a tissue: splines and logarithms there, the tissue's level, a voxel's weight."""

    design: np.ndarray
    values: np.ndarray
    level: float
    weight: float


def _lattice_design(box: tuple[slice, ...], place: np.ndarray) -> np.ndarray:
    """Splines over a box at some of its voxels (N, 3), shape (N, coefficients)."""
    x, y, z = (
        _spline_basis(b.stop - b.start, SPANS, index) for b, index in zip(box, place.T, strict=True)
    )
    return np.einsum('na,nb,nc->nabc', x, y, z).reshape(len(place), -1)


def divide_field(volume: Volume, log_field: np.ndarray, to_working: np.ndarray) -> Volume:
    """A volume on any grid over a field of :func:`tissue_field`.

    Parameters
    ----------
    volume : Volume
    log_field : ndarray
        On ``coarse_grid(FIELD_STEP)``.
    to_working : ndarray, shape (4, 4)
        Millimetres of the volume to those of the working grid.
    """
    # the field is smooth over centimetres: a coarse grid along the volume's axes is enough
    shape, affine = isotropic_grid(volume, max(2.0 * FIELD_STEP, *volume.zooms))
    matrix = np.linalg.inv(coarse_grid(FIELD_STEP)[1]) @ to_working @ affine
    place = matrix[:3, :3] @ np.indices(shape).reshape(3, -1) + matrix[:3, 3:]
    moved = ndimage.map_coordinates(log_field, place, order=1, mode='nearest').reshape(shape)
    fine = _interpolate(moved, affine, volume)
    return volume.with_data((volume.data / np.exp(fine)).astype(np.float32, copy=False))


def _roughness(count: int) -> np.ndarray:
    """Sum of squares of second differences along each axis of a cube of coefficients."""
    second, one = np.diff(np.eye(count), 2, axis=0), np.eye(count)
    second = second.T @ second
    parts = ([second, one, one], [one, second, one], [one, one, second])
    return sum(np.kron(np.kron(a, b), c) for a, b, c in parts)


def _sharpen(values: np.ndarray) -> np.ndarray:
    """Expected logarithm of the true intensity given the observed one."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return values
    width = (high - low) / (BINS - 1)
    place = (values - low) / width
    left = np.minimum(place.astype(int), BINS - 2)
    share = place - left
    counts = np.bincount(left, 1 - share, BINS) + np.bincount(left + 1, share, BINS)
    size = 2 ** int(np.ceil(np.log2(BINS)) + 1)
    start = (size - BINS) // 2
    padded = np.zeros(size)
    padded[start : start + BINS] = counts
    sigma = SHARPENING_FWHM / np.sqrt(8 * np.log(2)) / width
    distance = np.minimum(np.arange(size), size - np.arange(size))
    blur = np.exp(-0.5 * (distance / sigma) ** 2)
    blur = np.fft.fft(blur / blur.sum())
    wiener = np.conj(blur) / (np.abs(blur) ** 2 + WIENER_NOISE)
    sharp = np.maximum(np.fft.ifft(np.fft.fft(padded) * wiener).real, 0)
    centres = low + (np.arange(size) - start) * width
    top = np.fft.ifft(np.fft.fft(sharp * centres) * blur).real
    bottom = np.fft.ifft(np.fft.fft(sharp) * blur).real
    expected = np.where(bottom > 1e-9 * bottom.max(), top / np.maximum(bottom, 1e-30), centres)
    return np.interp(values, centres[start : start + BINS], expected[start : start + BINS])


def _spline_basis(count: int, spans: int, voxels: np.ndarray | None = None) -> np.ndarray:
    """Cubic B-splines over ``count`` voxels of ``spans`` knot intervals, at each or at some places.

    Returns
    -------
    ndarray, shape (count or len(voxels), spans + 3)
    """
    voxels = np.arange(count) if voxels is None else voxels
    place = (voxels + 0.5) / count * spans
    span = np.minimum(place.astype(int), spans - 1)
    t = place - span
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )
    basis = np.zeros((len(voxels), spans + 3))
    np.put_along_axis(basis, span[:, None] + np.arange(4), weights / 6, axis=1)
    return basis


def _fit(residual: np.ndarray, inside: np.ndarray, basis: list[np.ndarray]) -> np.ndarray:
    """B-spline approximation (Lee et al.) of scattered values, evaluated on the whole grid."""
    squares = [b**2 for b in basis]
    # Sum over the control points of a voxel's squared weights: a product over the axes.
    x, y, z = (s.sum(axis=1) for s in squares)
    norm = x[:, None, None] * y[None, :, None] * z[None, None, :]
    data = np.zeros(inside.shape)
    data[inside] = residual
    top = _project(data / norm, [b**3 for b in basis])
    bottom = _project(inside.astype(float), squares)
    lattice = np.where(bottom > 1e-9, top / np.maximum(bottom, 1e-9), 0)
    return _project(lattice, [b.T for b in basis])


def _project(data: np.ndarray, basis: list[np.ndarray]) -> np.ndarray:
    """Sum of an array against one matrix for each axis."""
    for matrix in basis:
        # The first axis goes to the back each time; after three turns all are in place.
        data = np.tensordot(data, matrix, axes=(0, 0))
    return data


def _interpolate(log_field: np.ndarray, affine: np.ndarray, volume: Volume) -> np.ndarray:
    """The coarse field at the voxels of the volume, whose axes are parallel to the coarse ones."""
    to_coarse = np.linalg.inv(affine) @ volume.affine
    field = log_field
    for axis, count in enumerate(volume.shape):
        place = np.arange(count) * to_coarse[axis, axis] + to_coarse[axis, 3]
        place = np.clip(place, 0, log_field.shape[axis] - 1)
        low = np.minimum(place.astype(int), max(log_field.shape[axis] - 2, 0))
        high = np.minimum(low + 1, log_field.shape[axis] - 1)
        shape = [1, 1, 1]
        shape[axis] = count
        share = (place - low).reshape(shape)
        field = field.take(low, axis) * (1 - share) + field.take(high, axis) * share
        field = field.astype(np.float32)
    return field
