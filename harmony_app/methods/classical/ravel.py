"""RAVEL of Fortin et al. 2016, doi:10.1016/j.neuroimage.2016.02.036: a method for groups.

After White Stripe, what varies between the scans of a group in voxels that hold no biology of
interest (CSF) is unwanted. A singular value decomposition of these control voxels gives its
factors, and a linear regression in every voxel removes them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harmony_app.errors import ModelError, OptionError, ScanError
from harmony_app.imaging.profile import TissueProfile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Harmonized, Method, Scan, Style
from harmony_app.methods.classical.white_stripe import WhiteStripe, white_stripe
from harmony_app.methods.model_folder import read_model_folder, write_model_folder

logger = logging.getLogger('harmony_app')

CERTAIN = 0.8
"""Probability of CSF from which on a voxel counts as control, in every scan of the group."""

MINIMUM_CONTROLS = 50
"""Fewest control voxels that factors are taken of."""

SLAB = 8
"""Planes of the working grid that are regressed at once, which bounds the memory."""


@dataclass(frozen=True)
class GroupFactors:
    """What is learnt of a group.

    Parameters
    ----------
    style : Style
        Average of the group; intensities are in the unit of its white stripe.
    controls : tuple of 3 ndarray, shape (c,), int
        Voxel indices of the control voxels.
    means : ndarray, shape (c,), float32
        Mean of the control voxels over the group.
    loadings : ndarray, shape (c, k), float32
        Left singular vectors times singular values: control voxels are means + loadings @ factors.
    factors : ndarray, shape (n, k), float64
        Unwanted factors of each scan of the group, orthonormal columns.
    coefficients : ndarray, shape (k, X, Y, Z), float32
        Change of a voxel with each factor; 0 where fewer than half of the group show brain.
    """

    style: Style
    controls: tuple[np.ndarray, ...]
    means: np.ndarray
    loadings: np.ndarray
    factors: np.ndarray
    coefficients: np.ndarray


class Ravel(Method):
    """Remove the factors that the CSF of a group of scans shares.

    A group method: it has to be fitted on the group, so it is for the benchmark and the group
    level and no choice of ``--method``. Where the paper is silent or its data differ:

    - the paper brings all scans to a template without shape differences; the working grid is
      reached rigidly, so the factors and the regression of a voxel see anatomy too, in a group of
      few people more of it than of the scanner (docs/methods.md);
    - control voxels are those where the registered CSF map is sure in all scans;
    - control voxels are centred over the group before the decomposition, and the regression has an
      intercept, so that the factors hold what differs and the mean of every
      voxel is kept (the authors' code does neither and adds the mean of every voxel back);
    - a voxel is regressed over the scans whose brain it lies in, and left where these are less
      than half of the group;
    - the paper corrects the scans that it was fitted on. The factors of any scan are read by
      least squares from its own control voxels: for the scans of the group these are
      the singular vectors, for a new scan its projection;
    - covariates are not entered, the paper's one factor is the default;
    - White Stripe brings scans to the target's stripe, which is one linear map of all scans and does not
      change what RAVEL removes. RAVEL itself reaches the mean of its group, not the target.

    Parameters
    ----------
    factors : int
        Unwanted factors to remove; 1 in the paper.
    width : float
        As of :class:`~harmony_app.methods.classical.white_stripe.WhiteStripe`.

    Raises
    ------
    OptionError
        For less than one factor, or a width out of its range.
    """

    name = 'ravel'

    def __init__(self, factors: int = 1, width: float = 0.05):
        if factors < 1:
            raise OptionError(f'{self.name} removes one factor at least, not {factors}')
        self.factors = int(factors)
        self.stripe = WhiteStripe(width)
        self.group: GroupFactors | None = None

    def fit(self, scans: Sequence[Scan]) -> None:
        """Find the unwanted factors of a group and what they do to every voxel.

        Scans that may be laid wrongly on the template are left out where enough others remain:
        their control voxels are not CSF.

        Parameters
        ----------
        scans : sequence of Scan
            The group: scans of one contrast on one working grid, two more than factors at least.

        Raises
        ------
        ValueError
            For several contrasts, too few scans or control voxels, or scans that do not differ.
        ScanError
            Where a scan has no white stripe.
        """
        contrasts = {scan.contrast for scan in scans}
        if len(contrasts) != 1:
            raise ValueError(f'a group has one contrast, not {sorted(contrasts)}: fit one each')
        fewest = self.factors + 2
        if len(scans) < fewest:
            raise ValueError(
                f'{self.factors} factors need a group of {fewest} scans at least, '
                f'not {len(scans)}: give more scans'
            )
        scans = _sure_scans(scans, fewest)
        style = Style('group', contrasts.pop(), TissueProfile.average([s.profile for s in scans]))
        maps = [self.stripe.fit_map(scan, style)[0] for scan in scans]

        sure = np.logical_and.reduce([_sure_fluid(scan) for scan in scans])
        controls = np.nonzero(sure)
        if len(controls[0]) < MINIMUM_CONTROLS:
            raise ValueError(
                f'only {len(controls[0])} voxels are CSF in all {len(scans)} scans, '
                f'{MINIMUM_CONTROLS} are needed: leave out scans whose registration is doubtful'
            )
        values = np.stack(
            [fitted(s.working.data[controls]) for fitted, s in zip(maps, scans, strict=True)], 1
        )
        means = values.mean(axis=1)
        left, size, right = np.linalg.svd(values - means[:, None], full_matrices=False)
        if not size[self.factors - 1] > 1e-6 * np.linalg.norm(values):
            raise ValueError('the CSF of the group does not vary enough: give scans that differ')
        factors = right[: self.factors].T.astype(np.float64)
        self.group = GroupFactors(
            style=style,
            controls=controls,
            means=means,
            loadings=left[:, : self.factors] * size[: self.factors],
            factors=factors,
            coefficients=_regress(scans, maps, factors),
        )

    def factors_of(self, scan: Scan) -> np.ndarray:
        """Unwanted factors of a scan, of the group or new.

        Returns
        -------
        ndarray, shape (k,)
            Least squares over the control voxels that the scan shows.

        Raises
        ------
        OptionError
            Where nothing was fitted.
        ScanError
            Where the scan shows too few of the control voxels.
        """
        group = self._fitted()
        intensity_map, _ = self.stripe.fit_map(scan, group.style)
        seen = scan.working.data[group.controls] > 0
        if np.count_nonzero(seen) < MINIMUM_CONTROLS:
            raise ScanError(
                f'{scan.name} shows {np.count_nonzero(seen)} of the control voxels of {self.name}, '
                f'{MINIMUM_CONTROLS} are needed: is its field of view that of the group?'
            )
        values = intensity_map(scan.working.data[group.controls][seen])
        found, *_ = np.linalg.lstsq(group.loadings[seen], values - group.means[seen], rcond=None)
        return found

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """Remove the group's factors from every scan of the target's contrast.

        On the native grid the field that is removed is interpolated, the scan is not.

        Raises
        ------
        OptionError
            Where nothing was fitted, or on another contrast.
        ScanError
            As :meth:`factors_of`.
        """
        group = self._fitted()
        if target.contrast != group.style.contrast:
            raise OptionError(
                f'{self.name} was fitted on {group.style.contrast}, not on {target.contrast}: '
                'fit one for each contrast'
            )
        own, reached = (
            white_stripe(style.profile, self.stripe.width) for style in (group.style, target)
        )
        scale = reached.deviation / own.deviation
        results = []
        for scan in session:
            if scan.contrast != target.contrast:
                continue
            (plain,) = self.stripe.harmonize([scan], target)
            factors = self.factors_of(scan)
            removed = np.tensordot(factors * scale, group.coefficients, 1).astype(np.float32)
            removed[~scan.brain] = 0
            on_native = resample(
                Volume(removed, scan.working.affine),
                scan.native.shape,
                scan.native.affine,
                np.linalg.inv(scan.native_to_working),
                order=1,
            )
            results.append(
                Harmonized(
                    source=scan.name,
                    contrast=scan.contrast,
                    working=_remove(plain.working, removed),
                    native=_remove(plain.native, on_native.data),
                    settings={
                        **plain.settings,
                        'method': self.name,
                        'scans': len(group.factors),
                        'control_voxels': len(group.means),
                        'factors': factors.round(5).tolist(),
                    },
                )
            )
        return results

    def save(self, folder: Path) -> None:
        """Write the fitted group as a model folder, numbers in single precision.

        Raises
        ------
        OptionError
            Where nothing was fitted.
        OutputError
            Where the folder cannot be written.
        """
        import torch

        group = self._fitted()
        metadata = {
            'method': self.name,
            'contrasts': [group.style.contrast],
            'settings': {'factors': self.factors, 'width': self.stripe.width},
            'scans': len(group.factors),
            'style': group.style.to_dict(),
        }
        arrays = {
            'controls': np.stack(group.controls).astype(np.int32),
            'means': group.means,
            'loadings': group.loadings,
            'factors': group.factors,
            'coefficients': group.coefficients,
        }
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        write_model_folder(Path(folder), metadata, tensors, half=False)

    @classmethod
    def load(cls, folder: Path | None, device: str = 'cpu') -> 'Ravel':
        """Read a model folder; without one, a method that has to be fitted.

        Raises
        ------
        ModelError
            Where it is not whole or not of this method.
        OptionError
            As the constructor.
        """
        if folder is None:
            return cls()
        metadata, tensors = read_model_folder(Path(folder), cls.name)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        try:
            method = cls(**metadata['settings'])
            method.group = GroupFactors(
                style=Style.from_dict(metadata['style']),
                controls=tuple(arrays['controls'].astype(np.intp)),
                means=arrays['means'],
                loadings=arrays['loadings'],
                factors=arrays['factors'].astype(np.float64),
                coefficients=arrays['coefficients'],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f'{folder}/model.json does not describe a fitted RAVEL') from error
        _check_shapes(method.group, method.factors, folder)
        return method

    def _fitted(self) -> GroupFactors:
        if self.group is None:
            raise OptionError(
                f'{self.name} is fitted on a group of scans first: it serves the benchmark and the '
                'group level, where a group is at hand'
            )
        return self.group


def _sure_scans(scans: Sequence[Scan], fewest: int) -> Sequence[Scan]:
    """Scans without the doubtful ones, where no fewer than ``fewest`` are left."""
    sure = [scan for scan in scans if not scan.doubtful]
    enough = len(sure) >= fewest
    for scan in scans:
        if scan.doubtful:
            fate = 'left out' if enough else f'kept, {fewest} scans are needed'
            logger.warning('ravel: the registration of %s is doubtful: it is %s', scan.name, fate)
    return sure if enough else scans


def _check_shapes(group: GroupFactors, factors: int, folder: Path) -> None:
    count = len(group.means)
    fits = (
        len(group.controls) == 3
        and group.loadings.shape == (count, factors)
        and group.factors.ndim == 2
        and group.factors.shape[1] == factors
        and group.coefficients.ndim == 4
        and len(group.coefficients) == factors
        and all(
            index.shape == (count,) and index.min() >= 0 and index.max() < size
            for index, size in zip(group.controls, group.coefficients.shape[1:], strict=True)
        )
    )
    if not fits:
        raise ModelError(f'the weights of {folder} do not fit each other: copy the folder again')


def _sure_fluid(scan: Scan) -> np.ndarray:
    fluid = scan.tissues[2]
    certain = 255.0 if np.issubdtype(fluid.dtype, np.integer) else 1.0
    return (fluid >= CERTAIN * certain) & scan.brain & (scan.working.data > 0)


def _regress(scans: Sequence[Scan], maps: Sequence, factors: np.ndarray) -> np.ndarray:
    """Coefficients of the factors in every voxel, by least squares with an intercept.

    Returns
    -------
    ndarray, shape (k, X, Y, Z), float32
    """
    design = np.column_stack([np.ones(len(factors)), factors])
    products = np.einsum('ni,nj->nij', design, design)
    shape = scans[0].working.shape
    coefficients = np.zeros((factors.shape[1], *shape), np.float32)
    for start in range(0, shape[0], SLAB):
        slab = slice(start, start + SLAB)
        brain = np.stack([scan.brain[slab] & (scan.working.data[slab] > 0) for scan in scans])
        common = brain.sum(axis=0) >= max(len(scans) / 2, design.shape[1] + 1)
        if not common.any():
            continue
        weights = brain[:, common].astype(np.float64)
        values = [m(s.working.data[slab][common]) for m, s in zip(maps, scans, strict=True)]
        normal = np.tensordot(weights, products, (0, 0))
        moments = np.einsum('ni,nv->vi', design, weights * np.stack(values))
        # Scans that share a voxel may be alike in a factor: the pseudoinverse leaves that one at 0.
        fitted = np.einsum('vij,vj->vi', np.linalg.pinv(normal, 1e-6, hermitian=True), moments)
        coefficients[:, slab][:, common] = fitted[:, 1:].T
    return coefficients


def _remove(plain: Volume, removed: np.ndarray) -> Volume:
    """Subtract from what is not background; the result is not below 0."""
    return plain.with_data(np.where(plain.data > 0, np.maximum(plain.data - removed, 0), 0))
