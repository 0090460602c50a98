"""Transfer: the contrast from the target, the anatomy from the scan itself (DESIGN 4a).

A small network is told the measured styles of source and target and gives a smooth grid of
affine intensity maps, on top of the monotone map of the tissue levels; the scan is its own
guide. One grid serves the working grid and the scan's own, so that nothing is resampled twice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from harmony_app.errors import ModelError, OptionError
from harmony_app.imaging.curves import (
    IDENTITY,
    apply_curve,
    bounded_distance,
    bounded_levels,
    calibration_curve,
    compose_curves,
)
from harmony_app.imaging.denoise import (
    SURE,
    edge_preserving_mean,
    noise_level,
    white_matter_noise,
)
from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.profile import TISSUES, measure_profile, personal_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Harmonized, Method, Scan, Style
from harmony_app.methods.fluid import shift_fluid
from harmony_app.methods.model_folder import (
    build_networks,
    load_weights,
    read_model_folder,
    write_model_folder,
)
from harmony_app.methods.transfer_features import CONDITION, condition_vector, features_of_working
from harmony_app.nets.bilateral import (
    TransferConfig,
    TransferNetwork,
    sample_planes,
    slice_grid,
)

CALIBRATIONS, MEDIAN_CALIBRATIONS = 2, 3
"""Times the tissue levels, and then the plain medians, are measured and corrected."""

WHITE = TISSUES.index('WM')
"""White matter among the maps."""

NOISE = ('match', 'keep', 'remove')
"""What becomes of a scan's noise: no more than the target's, what it was, or none."""

LEVELS_CLOSED = 0.85
"""Share of the distance in the tissue levels that is closed at least."""

MEDIANS_CLOSED = 0.92
"""The same of the plain medians under the registered maps, where the target is one scan."""


@dataclass(frozen=True)
class BilateralGrid:
    """Smooth affine intensity maps over place and intensity.

    Parameters
    ----------
    coefficients : Tensor, shape (2 * bins, X / cell, Y / cell, Z / cell)
        Gain less one, then offset, of every intensity bin.
    last_bin : float
        Compressed intensity of the last bin.
    base : tuple of (float, float)
        Knots of the monotone map of the scan that the coefficients act on.
    curve : tuple of (float, float)
        Knots of a monotone map of the result that brings its tissues near the target's.
    noise_kept : float
        Share of the scan's noise that stays, 0 to 1.
    cell : int
        Edge of a grid cell in voxels of the working grid.
    guide : Tensor, shape (bins,), optional
        Places of the bins; even where None.
    """

    coefficients: torch.Tensor
    last_bin: float
    base: tuple[tuple[float, float], ...] = IDENTITY
    curve: tuple[tuple[float, float], ...] = IDENTITY
    noise_kept: float = 1.0
    cell: int = 8
    guide: torch.Tensor | None = None

    def apply(
        self, volume: Volume, guide: Volume | None = None, to_working: np.ndarray | None = None
    ) -> Volume:
        """Transfer a volume on any grid.

        Parameters
        ----------
        volume : Volume
            White-matter peak at 1.
        guide : Volume, optional
            The same without its noise, which the maps then act on; what was taken off is added
            back, smaller where the maps darken and by ``noise_kept``: noise is never amplified.
        to_working : ndarray, shape (4, 4), optional
            Millimetres of the volume to millimetres of the working grid; identity where None.

        Returns
        -------
        Volume
            On the same grid; what is zero stays zero.
        """
        guide = volume if guide is None else guide
        return self.finish(volume, guide, self.map(guide, to_working))

    def finish(self, volume: Volume, guide: Volume, mapped: np.ndarray) -> Volume:
        """Bring a mapped guide to its final levels and add what the guide left out.

        Parameters
        ----------
        volume, guide : Volume
            The scan, and the scan without noise.
        mapped : ndarray
            The guide under :meth:`map`.
        """
        result = apply_curve(mapped, self.curve)
        if guide is not volume:
            share = self.noise_kept * np.clip(result / np.maximum(guide.data, 1e-3), 0, 1)
            result = np.maximum(result + share * (volume.data - guide.data), 0)
            result[volume.data <= 0] = 0
        return volume.with_data(result)

    @torch.inference_mode()
    def map(self, volume: Volume, to_working: np.ndarray | None = None) -> np.ndarray:
        """Apply the coefficients alone: neither the final curve nor any care for noise."""
        device = self.coefficients.device
        world = np.eye(4) if to_working is None else to_working
        matrix = np.linalg.inv(WORKING_AFFINE) @ world @ volume.affine
        data = np.ascontiguousarray(volume.data, np.float32)
        result = np.zeros_like(data)
        found = ndimage.find_objects((data > 0).astype(np.uint8))
        if not found:
            return result
        box = found[0]
        part = data[box]
        base = apply_curve(part, self.base)
        planes = sample_planes(self.coefficients, matrix, box, self.cell)
        for index, sampled in enumerate(planes):
            intensity, start = (torch.from_numpy(a[index]).to(device) for a in (part, base))
            mapped = slice_grid(
                sampled.flatten(1).T,
                intensity.flatten(),
                start.flatten(),
                self.last_bin,
                self.guide,
            )
            mapped = mapped.reshape(intensity.shape) * (intensity > 0)
            result[box][index] = mapped.cpu().numpy()
        return result


def native_noise(scan: Scan) -> float:
    """Standard deviation of the noise of a scan on its own grid, in its white matter."""
    white = Volume((scan.tissues[WHITE] > 255 * SURE).astype(np.uint8), WORKING_AFFINE)
    to_native = np.linalg.inv(scan.native_to_working)
    mask = resample(white, scan.native.shape, scan.native.affine, to_native, order=0)
    return noise_level(scan.native, mask.data > 0)


def personal_target(scan: Scan, target: Style) -> Style:
    """The style to bring a scan to, so that people keep what they differ in.

    Parameters
    ----------
    scan : Scan
        The source.
    target : Style
        The style to reach.

    Returns
    -------
    Style
        Where the averages of both sites are known, the person's own style at the target; the target
        itself where it is one person's, or nothing is known of the scan's site.
    """
    if scan.site_average is None or target.scans < 2:
        return target
    profile = personal_profile(scan.profile, scan.site_average, target.profile)
    return replace(target, profile=profile)


class Guides:
    """What is computed of a scan once, whatever it is brought to.

    Parameters
    ----------
    scan : Scan
    device : str
        Where the network runs.

    Attributes
    ----------
    noise : float
        Standard deviation of the noise on the working grid.
    working, native : Volume
        The scan without its noise, on both grids.
    features : Tensor
        What the network sees of it.
    """

    def __init__(self, scan: Scan, device: str):
        self.scan = scan
        self.noise = white_matter_noise(scan.working, scan.tissues)
        self.working = edge_preserving_mean(scan.working, self.noise)
        self.native = edge_preserving_mean(scan.native, native_noise(scan))
        self.features = features_of_working(scan.working.data, scan.brain, scan.tissues, device)


class Transfer(Method):
    """The learned bilateral grid.

    Parameters
    ----------
    network : TransferNetwork
        Trained network, in evaluation mode.
    metadata : dict
        What ``model.json`` says.
    device : str
        Where the network runs.
    noise : str
        One of :data:`NOISE`. A target whose noise is not known leaves the scan's as it is.

    Raises
    ------
    OptionError
        For an unknown choice of noise.
    """

    name = 'transfer'
    needs_training = True
    uses_site_average = True

    def __init__(
        self, network: TransferNetwork, metadata: dict, device: str = 'cpu', noise: str = 'match'
    ):
        if noise not in NOISE:
            raise OptionError(f'--noise {noise}: choose one of {", ".join(NOISE)}')
        self.network = network.to(device).eval()
        self.metadata = metadata
        self.device = device
        self.noise = noise
        self._guides: list[Guides] = []

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """Bring every scan of the target's contrast to the target; others are left out."""
        results = []
        same = [scan for scan in session if scan.contrast == target.contrast]
        # the next target of the same session finds these again
        self._guides = [g for g in self._guides if any(g.scan is scan for scan in same)]
        for scan in same:
            goal = personal_target(scan, target)
            moved = shift_fluid(scan, session, goal.profile)
            source = moved.scan if moved else scan
            grid, working = self.predict(source, goal)
            guide = self._guides_of(source).native
            results.append(
                Harmonized(
                    source=scan.name,
                    contrast=scan.contrast,
                    working=working,
                    native=grid.apply(source.native, guide, scan.native_to_working),
                    settings={
                        'TransferStart': 'scan' if goal is target else 'site average',
                        'TransferBase': [list(knot) for knot in grid.base],
                        'TransferCalibration': [list(knot) for knot in grid.curve],
                        'TransferNoiseKept': round(grid.noise_kept, 4),
                        'TransferModel': self.metadata.get('weights_sha256', ''),
                        **(moved.settings if moved else {}),
                    },
                )
            )
        return results

    @torch.inference_mode()
    def predict(self, scan: Scan, style: Style) -> tuple[BilateralGrid, Volume]:
        """Predict the grid that brings a scan to a style, and calibrate it.

        Parameters
        ----------
        scan : Scan
            The source.
        style : Style
            The style to reach. The plain medians are met too where it is that of a single
            scan; those of a style averaged over people are no single person's.

        Returns
        -------
        grid : BilateralGrid
            For the scan on any grid.
        working : Volume
            The scan on the working grid under it.
        """
        target = style.profile
        guides = self._guides_of(scan)
        condition = condition_vector(scan.profile, target, scan.contrast).to(self.device)
        coefficients = self.network(guides.features[None], condition[None])[0]
        config = self.network.config
        base = calibration_curve(scan.profile, target) if config.base else IDENTITY
        grid = BilateralGrid(
            coefficients,
            config.last_bin,
            base,
            noise_kept=self._noise_kept(guides.noise, style.noise),
            cell=config.cell,
            guide=self.network.guide(),
        )
        mapped = grid.map(guides.working)
        curve = grid.curve
        rounds = [('levels', bounded_levels, LEVELS_CLOSED)] * CALIBRATIONS
        if style.scans == 1:
            rounds += [('medians', bounded_distance, MEDIANS_CLOSED)] * MEDIAN_CALIBRATIONS
        for measure, bounded, closed in rounds:
            now = apply_curve(mapped, curve)
            reached = measure_profile(now, scan.brain, scan.tissues, scan.fluid)
            here, start, goal = (getattr(p, measure) for p in (reached, scan.profile, target))
            wanted = bounded(here, start, goal, closed)
            step = calibration_curve(replace(reached, levels=here), replace(target, levels=wanted))
            curve = compose_curves(curve, step)
        grid = replace(grid, curve=curve)
        return grid, grid.finish(scan.working, guides.working, mapped)

    def _guides_of(self, scan: Scan) -> Guides:
        for guides in self._guides:
            if guides.scan is scan:
                return guides
        self._guides.append(Guides(scan, self.device))
        return self._guides[-1]

    def _noise_kept(self, noise: float, wanted: float | None) -> float:
        """Share of a scan's noise that stays in the result."""
        if self.noise == 'remove':
            return 0.0
        if self.noise == 'keep' or wanted is None or noise <= 0:
            return 1.0
        return min(1.0, wanted / noise)

    def save(self, folder: Path) -> None:
        """Write the model folder."""
        metadata = self.metadata | {'method': self.name, 'network': asdict(self.network.config)}
        write_model_folder(Path(folder), metadata, self.network.state_dict())

    @classmethod
    def load(cls, folder: Path, device: str = 'cpu', noise: str = 'match') -> 'Transfer':
        """Read a model folder; ModelError where it is not whole or not of this method."""
        metadata, tensors = read_model_folder(Path(folder), cls.name)
        network = build_networks(
            folder,
            cls.name,
            metadata,
            tensors,
            lambda: TransferNetwork(TransferConfig(**metadata['network'])),
        )
        if network.config.condition != CONDITION:
            raise ModelError(
                f'{folder}: made for a condition of {network.config.condition} numbers, this '
                f'version gives {CONDITION}; train it again'
            )
        load_weights(network, tensors, folder)
        return cls(network, metadata, device, noise)
