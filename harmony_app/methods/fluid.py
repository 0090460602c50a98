"""Bring the CSF of a scan to where a map of intensity can take it to the target.

Where the CSF of a scan and of the target lie on different sides of grey or white matter (PDw, above
all), no map of intensity that keeps tissues apart brings one to the other. The other contrasts of the
session say how much of a voxel is fluid; its signal is a mixture, so moving the
level of CSF moves a voxel by its share of fluid and leaves brain as it was.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from harmony_app.imaging.curves import fluid_level
from harmony_app.imaging.fluid import FluidReader, fit_fluid_reader
from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.profile import TISSUES, TissueProfile, measure_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan

logger = logging.getLogger('harmony_app')

BORDER = 8.0
"""Standard deviation in mm with which the border of the brain mask is faded out."""

AROUND = 5
"""Edge in voxels of a cube that shows nothing outside the field of view."""

CSF = TISSUES.index('CSF')


@dataclass(frozen=True)
class FluidShift:
    """A scan whose CSF was moved, and how.

    Parameters
    ----------
    scan : Scan
        The scan, its profile measured again.
    settings : dict
        For the sidecar.
    """

    scan: Scan
    settings: dict


def shift_fluid(scan: Scan, session: Sequence[Scan], target: TissueProfile) -> FluidShift | None:
    """Move the CSF of a scan where the target is out of reach otherwise.

    Parameters
    ----------
    scan : Scan
        The source.
    session : sequence of Scan
        All scans of its session; the first one of every other contrast helps.
    target : TissueProfile
        Style to reach.

    Returns
    -------
    FluidShift or None
        None where a map of intensity is enough. Where it is not and the session does not tell fluid
        from brain, the scan as it is, and why.
    """
    level = fluid_level(scan.profile, target)
    if level is None:
        return None
    try:
        return _shift(scan, _partners(scan, session), level)
    except ValueError as error:
        logger.warning('%s: its CSF stays apart from the target: %s', scan.name, error)
        return FluidShift(scan, {'TransferFluidLeft': str(error)})


def _shift(scan: Scan, partners: Sequence[Scan], level: float) -> FluidShift:
    if scan.doubtful:
        raise ValueError('its registration is doubtful')
    if not partners:
        raise ValueError('its session has no other contrast that would tell it')
    scans = [scan, *partners]
    images = [s.working.data for s in scans]
    fluid = [s.profile.levels[CSF] for s in scans]
    reader = fit_fluid_reader(images, fluid, scan.brain, scan.tissues)
    change = level - fluid[0]
    near = ndimage.gaussian_filter(scan.brain.astype(np.float32), BORDER)
    near = np.where(scan.brain, np.float32(1), np.minimum(2 * near, 1))
    working = _shifted(scan.working, images, near, reader, change)
    profile = measure_profile(working.data, scan.brain, scan.tissues, scan.fluid)
    native = _shift_native(scan, partners, near, reader, change)
    return FluidShift(
        replace(scan, working=working, native=native, profile=profile),
        {
            'TransferFluidLevel': level,
            'TransferFluidContrasts': [s.contrast for s in scans],
            'TransferFluidSeparation': reader.separation,
        },
    )


def _partners(scan: Scan, session: Sequence[Scan]) -> list[Scan]:
    """The first scan of every other contrast."""
    found: dict[str, Scan] = {}
    for other in session:
        if other.contrast != scan.contrast:
            found.setdefault(other.contrast, other)
    return list(found.values())


def _shift_native(
    scan: Scan, partners: Sequence[Scan], near: np.ndarray, reader: FluidReader, change: float
) -> Volume:
    """The same on the scan's own grid; only what tells the fluid is resampled."""
    shape, affine = scan.native.shape, scan.native.affine
    to_native = np.linalg.inv(scan.native_to_working)
    images = [scan.native.data]
    for partner in partners:
        transform = to_native @ partner.native_to_working
        images.append(resample(partner.native, shape, affine, transform).data)
    weight = resample(Volume(near, WORKING_AFFINE), shape, affine, to_native, order=1)
    return _shifted(scan.native, images, weight.data, reader, change)


def _shifted(
    volume: Volume,
    images: Sequence[np.ndarray],
    near: np.ndarray,
    reader: FluidReader,
    change: float,
) -> Volume:
    share = near * reader.read(images)
    for image in images:
        # outside the field of view; single voxels of black fluid are 0 as well
        share[ndimage.maximum_filter(image, AROUND) <= 0] = 0
    return volume.with_data(np.maximum(volume.data + np.float32(change) * share, 0))
