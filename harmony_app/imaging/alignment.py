"""Affine alignment of the template's tissue maps to a scan of any contrast.

How well an alignment is, is how much of the scan's variance the tissue maps explain: at
each step the scan inside the template's mask is regressed on the maps of GM, WM and CSF
and on two shells around the brain (skull, scalp). The regression finds the contrast by
itself, so one code serves T1w, T2w, PDw and FLAIR, whole heads and bare brains. It is the
correlation ratio (Roche 1998, MICCAI, LNCS 1496: 1115-1124) with fuzzy classes, and its
gradient is known in closed form: the regression is at its optimum, so only the warped scan
counts for the derivative.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from harmony_app.imaging.grid import coarse_grid
from harmony_app.imaging.head import align_head
from harmony_app.imaging.masks import head_mask, otsu_threshold
from harmony_app.imaging.resample import isotropic_grid, resample
from harmony_app.imaging.template import load_template
from harmony_app.imaging.volume import Volume

SHELLS = (3.0, 8.0)
"""Outer borders in mm of the shells around the brain."""

SHELL_WEIGHT = 0.1
"""Weight of a point of the shells against one of the brain.

With equal weights the brain of a scan with bright fat would swell to the scalp.
"""

CENTRE = np.array([0.0, -18.0, 10.0])
"""Centre of the template's brain in mm, about which rotations and scales are taken."""

OUTSIDE_PENALTY = 0.5
"""Score lost where the whole brain of the template is outside the field of view."""

PAD = 3
"""Voxels added around a scan, where weights fall to zero."""

KNEE = 1.3
"""Brightness over the head's median from which intensities are bent down."""

TURN_PENALTY = 0.5
"""Score lost by a turn, times one less its cosine (15 degrees lose 0.017, 30 lose 0.067)."""

MOST_POINTS = 40_000
"""Points of the template that are compared at most; more are thinned evenly."""

USUAL_SIZE = 0.93
"""Size of a usual brain over that of the template, which is known to be large."""

PITCHES, FORWARD, UP = (-30, -15, 0, 15, 30), (-20, 0, 20), (-50, -25, 0, 25, 50)
"""Degrees of nodding and millimetres from where the head was laid that are looked at too."""

CLIMBED, KEPT, APART = 8, 3, 5.0
"""Places that are climbed from, ends that are climbed again finely, and mm between two of these."""

COARSE_STEPS, FINE_STEPS = 40, 30
"""Steps of a climb on the grid of 4 mm and of 2 mm."""

STRAIN_PENALTY = 3.0
"""Score lost per square of the strain against a usual brain (0.05 along each axis loses 0.02).

Without it the bright border of the scalp draws the border of the brain to itself.
"""


@dataclass(frozen=True)
class Model:
    """Points of the template and what is there.

    Parameters
    ----------
    points : ndarray, shape (N, 3)
        Template mm.
    design : ndarray, shape (N, 6)
        A constant, GM, WM, CSF and the two shells.
    brain : ndarray, shape (N,), bool
        Which points lie in the brain.
    """

    points: np.ndarray
    design: np.ndarray
    brain: np.ndarray


@lru_cache(maxsize=4)
def template_model(step: int, most: int = MOST_POINTS) -> Model:
    """Tissue maps and shells on the working grid averaged to ``step`` mm, thinned to ``most`` points."""
    template = load_template()
    shape, affine = coarse_grid(step)
    tissues = np.stack([block_mean(t, step) for t in template.tissues])
    brain = block_mean(template.brain.astype(np.float32), step)
    distance = ndimage.distance_transform_edt(brain < 0.5) * step
    shells = []
    inner = 0.0
    for outer in SHELLS:
        shells.append(((distance > inner) & (distance <= outer)) * (1 - brain))
        inner = outer
    # Under the brain lie neck and throat, which no shell describes.
    z = (np.arange(shape[2]) * step + affine[2, 3])[None, None, :]
    use = (distance <= SHELLS[-1]) & ((z > -50) | (brain > 0.5))
    index = np.argwhere(use)
    maps = np.stack([*tissues, *shells], axis=-1)[use]
    design = np.column_stack([np.ones(len(index)), maps[:, 0:3], maps[:, 3:]])
    model = Model(index @ affine[:3, :3].T + affine[:3, 3], design, brain[use] > 0.5)
    if len(index) <= most:
        return model
    keep = slice(None, None, -(-len(index) // most))
    return Model(model.points[keep], model.design[keep], model.brain[keep])


class Score:
    """Variance of a scan explained by the template, as a function of an affine.

    Parameters
    ----------
    volume : Volume
        Scan; NaN-free, isotropic voxels of about ``step`` mm.
    step : int
        Voxel edge of the template's model in mm.
    most : int, optional
        Points that are compared at most.
    """

    def __init__(self, volume: Volume, step: int, most: int = MOST_POINTS):
        self.model = template_model(step, most)
        self.to_voxel = np.linalg.inv(volume.affine)
        self.to_voxel[:3, 3] += PAD
        self.shape = np.array(volume.shape) + 2 * PAD
        self.data = np.pad(volume.data, PAD, mode='edge').astype(np.float64).ravel()
        # Air around the head says nothing, or else the border of the scalp would pass for
        # that of the brain; a brain in the air is wrong and counts. What lies outside the
        # field of view counts nowhere. Soft borders keep the score smooth.
        seen = ndimage.gaussian_filter(np.pad(np.ones(volume.shape), PAD), 0.7)
        head = ndimage.gaussian_filter(np.pad(head_mask(volume).astype(float), PAD), 1.0)
        self.weights = np.concatenate([seen.ravel(), SHELL_WEIGHT * (seen * head).ravel()])

    def __call__(self, matrix: np.ndarray, slope: bool = False):
        """Score of ``matrix`` (template mm to scan mm), and its derivative by the matrix.

        Returns
        -------
        score : float
            Explained share of variance, at most 1, less the penalty for what lies outside.
        derivative : ndarray, shape (3, 4), or None
            Of the score by the upper rows of the matrix.
        """
        values, value_slopes, weights, weight_slopes = self._look(matrix)
        brain = self.model.brain
        count = np.count_nonzero(brain)
        lost = 1 - weights[brain].sum() / count
        beta, left, total, residual, centred = self._fit(values, weights)
        score = 1 - left / total - OUTSIDE_PENALTY * lost
        if not slope:
            return score, None
        ratio = left / total
        by_value = 2 * weights * (ratio * centred - residual) / total
        by_weight = (ratio * centred**2 - residual**2) / total
        by_weight[brain] += OUTSIDE_PENALTY / count
        by_voxel = value_slopes * by_value + weight_slopes * by_weight
        by_point = self.to_voxel[:3, :3].T @ by_voxel
        return score, np.column_stack([by_point @ self.model.points, by_point.sum(axis=1)])

    def contrast(self, matrix: np.ndarray) -> np.ndarray:
        """Intensities (6,) of the regressors that fit the scan best."""
        values, _, weights, _ = self._look(matrix)
        return self._fit(values, weights)[0]

    def _fit(self, values: np.ndarray, weights: np.ndarray) -> tuple:
        """Weighted regression: coefficients, residual and total sums, residuals, deviations."""
        design = self.model.design
        weighted = (design * weights[:, None]).T
        normal = weighted @ design
        normal[np.diag_indices_from(normal)] += 1e-6 * len(design)
        beta = np.linalg.solve(normal, weighted @ values)
        residual = values - design @ beta
        centred = values - np.sum(weights * values) / max(np.sum(weights), 1e-6)
        left = float(np.sum(weights * residual**2))
        total = float(np.sum(weights * centred**2))
        # Where nothing varies nothing is explained.
        return beta, left, max(total, left, 1e-6), residual, centred

    def _look(self, matrix: np.ndarray) -> tuple[np.ndarray, ...]:
        """Values and weights (N,) at the model's points, each with its slopes by voxel (3, N)."""
        to_voxel = self.to_voxel @ matrix
        voxels = to_voxel[:3, :3] @ self.model.points.T + to_voxel[:3, 3:]
        np.clip(voxels, 0, self.shape[:, None] - 1 - 1e-6, out=voxels)
        corner = voxels.astype(np.intp)
        strides = int(self.shape[1] * self.shape[2]), int(self.shape[2]), 1
        flat = np.tensordot(strides, corner, 1)
        share = voxels - corner
        in_shell = np.where(self.model.brain, 0, self.data.size)
        return (
            *_trilinear(self.data, flat, strides, share),
            *_trilinear(self.weights, flat + in_shell, strides, share),
        )


def _trilinear(
    data: np.ndarray, flat: np.ndarray, strides: tuple[int, int, int], share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values and exact slopes between the eight voxels that begin at ``flat``."""
    x, y, z = share
    c = [
        data.take(flat + i * strides[0] + j * strides[1] + k)
        for i in (0, 1)
        for j in (0, 1)
        for k in (0, 1)
    ]
    # Along z, then y, then x; the differences met on the way are the slopes.
    along_z = [c[n + 1] - c[n] for n in (0, 2, 4, 6)]
    at_z = [c[2 * n] + z * along_z[n] for n in range(4)]
    along_y = [at_z[1] - at_z[0], at_z[3] - at_z[2]]
    at_y = [at_z[0] + y * along_y[0], at_z[2] + y * along_y[1]]
    along_x = at_y[1] - at_y[0]
    slope_y = along_y[0] + x * (along_y[1] - along_y[0])
    low, high = (along_z[n] + y * (along_z[n + 1] - along_z[n]) for n in (0, 2))
    return at_y[0] + x * along_x, np.stack([along_x, slope_y, low + x * (high - low)])


def align_template(
    volume: Volume, start: np.ndarray | None = None, bare: bool | None = None
) -> tuple[np.ndarray, float, np.ndarray]:
    """Affine of template mm to scan mm: by the whole head, then by the tissues.

    Parameters
    ----------
    volume : Volume
        Scan in RAS, bias-corrected, whole head or brain.
    start : ndarray, shape (4, 4), optional
        Template mm to scan mm where this is known already: it is only climbed from there.
    bare : bool, optional
        Whether the scan shows a brain only; by default its background tells.

    Returns
    -------
    matrix : ndarray, shape (4, 4)
        Template mm to scan mm.
    score : float
        Share of the scan's variance that the template explains, at most 1.
    contrast : ndarray, shape (6,)
        Intensities of constant, GM, WM, CSF and shells in the compressed scan.
    """
    if start is None:
        middle = Score(prepare(volume, 4.0), 4)
        head = max(align_head(volume, bare), key=lambda m: middle(m)[0])
        starts = [head, *_other_starts(middle, head)]
    else:
        usual = _about_centre(USUAL_SIZE * np.eye(3), np.zeros(3))
        starts = [start, start @ usual]
    # the head brought it here; the tissues inside the brain have the last word
    fine = Score(prepare(volume, 2.0), 2)
    ends = [_climb(fine, start, FINE_STEPS) for start in starts]
    matrix, _ = max(ends, key=lambda end: end[1])
    return matrix, float(fine(matrix)[0]), fine.contrast(matrix)


def _other_starts(score: Score, head: np.ndarray) -> list[np.ndarray]:
    """Where the brain may lie too, best first, at least :data:`APART` mm from each other.

    A long neck in the field of view draws a whole head half a brain too low, thick slices
    and a bent head lay it on the forehead; from there the tissues cannot find home. Looking
    at a place takes milliseconds and a climb on the coarse grid a quarter of a second.
    """
    places = []
    for pitch, forward, up in itertools.product(PITCHES, FORWARD, UP):
        turn = Rotation.from_euler('x', pitch, degrees=True).as_matrix()
        matrix = head @ _about_centre(turn, np.array([0.0, forward, up]))
        places.append((score(matrix)[0] - _prior(matrix)[0], matrix))
    places.sort(key=lambda place: -place[0])
    ends = [_climb(score, matrix, COARSE_STEPS) for _, matrix in places[:CLIMBED]]
    kept: list[np.ndarray] = []
    points = score.model.points[score.model.brain][::50]
    for matrix, _ in sorted(ends, key=lambda end: -end[1]):
        apart = [
            np.linalg.norm(points @ (matrix - k)[:3, :3].T + (matrix - k)[:3, 3], axis=1).mean()
            for k in kept
        ]
        if min(apart, default=np.inf) > APART:
            kept.append(matrix)
    return kept[:KEPT]


def prepare(volume: Volume, spacing: float) -> Volume:
    """Scan on an isotropic grid, smoothed to it, bright outliers compressed.

    Intensities above :data:`KNEE` times the head's median (fat, eyes in T2w, enhancing vessels) are
    bent down, so that they do not rule the regression; the head's median becomes 1.
    """
    shape, affine = isotropic_grid(volume, spacing)
    coarse = resample(volume, shape, affine, order=1)
    data = np.maximum(coarse.data, 0)
    head = data[data > 0.5 * otsu_threshold(data)]
    data = data / max(float(np.median(head)), 1e-6)
    data = np.where(data > KNEE, KNEE + 0.4 * np.tanh((data - KNEE) / 0.8), data)
    sigma = 0.6 if spacing > 2 else 0.5
    return Volume(ndimage.gaussian_filter(data, sigma).astype(np.float32), affine)


def block_mean(data: np.ndarray, step: int) -> np.ndarray:
    """Mean over cubes of ``step`` voxels; ``step`` divides every axis."""
    x, y, z = (n // step for n in data.shape)
    return data.reshape(x, step, y, step, z, step).mean(axis=(1, 3, 5))


def _about_centre(linear: np.ndarray, shift: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = CENTRE - linear @ CENTRE + shift
    return matrix


def _full(parameters: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Start after a general linear map (9) about the centre and a shift (3), with slopes."""
    linear = np.eye(3) + parameters[:9].reshape(3, 3)
    matrix = start @ _about_centre(linear, 60 * parameters[9:])
    slopes = []
    for k in range(9):
        unit = np.zeros(9)
        unit[k] = 1
        slopes.append(_slope(start, unit.reshape(3, 3)))
    return matrix, slopes + [_shift_slope(start, axis) for axis in range(3)]


def _slope(start: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Derivative of the matrix by a parameter that changes the linear part."""
    slope = np.zeros((4, 4))
    slope[:3, :3] = linear
    slope[:3, 3] = -linear @ CENTRE
    return start @ slope


def _shift_slope(start: np.ndarray, axis: int) -> np.ndarray:
    slope = np.zeros((4, 4))
    slope[axis, 3] = 60
    return start @ slope


def _climb(score: Score, start: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
    """Best matrix from a start by L-BFGS, less a penalty on strain and turn."""

    def cost(parameters):
        matrix, slopes = _full(parameters, start)
        value, derivative = score(matrix, slope=True)
        by_parameter = np.array([np.sum(derivative * s[:3]) for s in slopes])
        prior, by_prior = _prior(matrix)
        by_parameter -= np.array([np.sum(by_prior * s[:3, :3]) for s in slopes])
        return prior - value, -by_parameter

    result = optimize.minimize(
        cost, np.zeros(12), jac=True, method='L-BFGS-B', options={'maxiter': steps}
    )
    matrix = _full(result.x, start)[0]
    return matrix, -float(result.fun)


def _prior(matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """Penalty on sizes, shears and turns, and its derivative by the linear part.

    Heads of adults differ in size by about 8 % along an axis and hardly in shear; the
    penalty is small against a real gain of the score.
    """
    linear = matrix[:3, :3]
    strain = (linear.T @ linear / USUAL_SIZE**2 - np.eye(3)) / 2
    # For a turn of angle t the trace is 1 + 2 cos t.
    turn = (3 - np.trace(linear) / USUAL_SIZE) / 2
    penalty = STRAIN_PENALTY * float(np.sum(strain**2)) + TURN_PENALTY * float(turn)
    slope = 2 * STRAIN_PENALTY / USUAL_SIZE**2 * linear @ strain
    return penalty, slope - TURN_PENALTY / 2 / USUAL_SIZE * np.eye(3)
