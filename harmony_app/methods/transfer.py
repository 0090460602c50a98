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

from harmony_app.errors import ModelError
from harmony_app.imaging.curves import (
    IDENTITY,
    apply_curve,
    bounded_distance,
    bounded_levels,
    calibration_curve,
    compose_curves,
)
from harmony_app.imaging.denoise import edge_preserving_mean, noise_level
from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.profile import TISSUES, TissueProfile, measure_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Harmonized, Method, Scan, Style
from harmony_app.methods.fluid import shift_fluid
from harmony_app.methods.model_folder import load_weights, read_model_folder, write_model_folder
from harmony_app.methods.transfer_features import CONDITION, condition_vector, features_of_working
from harmony_app.nets.bilateral import (
    TransferConfig,
    TransferNetwork,
    sample_grid,
    slice_grid,
)

CHUNK = 1 << 19
"""Voxels sliced at once: bounds the memory whatever the scan's size."""

CALIBRATIONS = 2
"""Times the tissue levels are measured and corrected."""

WHITE, SURE = TISSUES.index('WM'), 242
"""White matter among the maps, and from where on it is sure (of 255)."""

LEVELS_CLOSED = 0.7
"""Share of the distance in the tissue levels that is closed at least."""

MEDIANS_CLOSED = 0.65
"""The same of the plain medians under the registered maps, where the target is one scan."""


@dataclass(frozen=True)
class BilateralGrid:
    """Smooth affine intensity maps over place and intensity.

    Parameters
    ----------
    coefficients : Tensor, shape (2 * bins, X / 8, Y / 8, Z / 8)
        Gain less one, then offset, of every intensity bin.
    last_bin : float
        Compressed intensity of the last bin.
    base : tuple of (float, float)
        Knots of the monotone map of the scan that the coefficients act on.
    curve : tuple of (float, float)
        Knots of a monotone map of the result that brings its tissues near the target's.
    """

    coefficients: torch.Tensor
    last_bin: float
    base: tuple[tuple[float, float], ...] = IDENTITY
    curve: tuple[tuple[float, float], ...] = IDENTITY

    def apply(
        self, volume: Volume, to_working: np.ndarray | None = None, noise: float = 0.0
    ) -> Volume:
        """Transfer a volume on any grid.

        Parameters
        ----------
        volume : Volume
            White-matter peak at 1.
        to_working : ndarray, shape (4, 4), optional
            Millimetres of the volume to millimetres of the working grid; identity where None.
        noise : float
            Standard deviation of the noise. The maps then act on the scan without it, and
            what was taken off is added back, smaller where the maps darken: noise is never
            amplified.

        Returns
        -------
        Volume
            On the same grid; what is zero stays zero.
        """
        guide = edge_preserving_mean(volume, noise)
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
            share = np.clip(result / np.maximum(guide.data, 1e-3), 0, 1)
            result = np.maximum(result + share * (volume.data - guide.data), 0)
            result[volume.data <= 0] = 0
        return volume.with_data(result)

    @torch.inference_mode()
    def map(self, volume: Volume, to_working: np.ndarray | None = None) -> np.ndarray:
        """Apply the coefficients alone: neither the final curve nor any care for noise."""
        device = self.coefficients.device
        world = np.eye(4) if to_working is None else to_working
        matrix = np.linalg.inv(WORKING_AFFINE) @ world @ volume.affine
        matrix = torch.from_numpy(matrix).float().to(device)
        flat = np.ascontiguousarray(volume.data, np.float32).reshape(-1)
        result = np.zeros_like(flat)
        shown = np.flatnonzero(flat > 0)
        for start in range(0, len(shown), CHUNK):
            part = shown[start : start + CHUNK]
            index = np.stack(np.unravel_index(part, volume.shape), axis=1)
            points = torch.from_numpy(index).float().to(device) @ matrix[:3, :3].T + matrix[:3, 3]
            intensity = torch.from_numpy(flat[part]).to(device)
            base = torch.from_numpy(apply_curve(flat[part], self.base)).to(device)
            sampled = sample_grid(self.coefficients, points)
            result[part] = slice_grid(sampled, intensity, base, self.last_bin).cpu().numpy()
        return result.reshape(volume.shape)


def native_noise(scan: Scan) -> float:
    """Standard deviation of the noise of a scan on its own grid, in its white matter."""
    white = Volume((scan.tissues[WHITE] > SURE).astype(np.uint8), WORKING_AFFINE)
    to_native = np.linalg.inv(scan.native_to_working)
    mask = resample(white, scan.native.shape, scan.native.affine, to_native, order=0)
    return noise_level(scan.native, mask.data > 0)


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
    """

    name = 'transfer'
    needs_training = True

    def __init__(self, network: TransferNetwork, metadata: dict, device: str = 'cpu'):
        self.network = network.to(device).eval()
        self.metadata = metadata
        self.device = device

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """Bring every scan of the target's contrast to the target; others are left out."""
        results = []
        for scan in session:
            if scan.contrast != target.contrast:
                continue
            moved = shift_fluid(scan, session, target.profile)
            source = moved.scan if moved else scan
            grid, working = self.predict(source, target.profile, target.scans == 1)
            results.append(
                Harmonized(
                    source=scan.name,
                    contrast=scan.contrast,
                    working=working,
                    native=grid.apply(source.native, scan.native_to_working, native_noise(scan)),
                    settings={
                        'TransferBase': [list(knot) for knot in grid.base],
                        'TransferCalibration': [list(knot) for knot in grid.curve],
                        'TransferModel': self.metadata.get('weights_sha256', ''),
                        **(moved.settings if moved else {}),
                    },
                )
            )
        return results

    @torch.inference_mode()
    def predict(
        self, scan: Scan, target: TissueProfile, one_scan: bool = False
    ) -> tuple[BilateralGrid, Volume]:
        """Predict the grid that brings a scan to a style, and calibrate it.

        Parameters
        ----------
        scan : Scan
            The source.
        target : TissueProfile
            The measured style to reach.
        one_scan : bool
            The style is that of a single scan, whose plain medians are to be met too; those
            of a style averaged over people are no single person's.

        Returns
        -------
        grid : BilateralGrid
            For the scan on any grid.
        working : Volume
            The scan on the working grid under it.
        """
        features = features_of_working(scan.working.data, scan.brain, scan.tissues, self.device)
        condition = condition_vector(scan.profile, target, scan.contrast).to(self.device)
        coefficients = self.network(features[None], condition[None])[0]
        base = calibration_curve(scan.profile, target)
        grid = BilateralGrid(coefficients, self.network.config.last_bin, base)
        noise = noise_level(scan.working, scan.tissues[WHITE] > SURE)
        guide = edge_preserving_mean(scan.working, noise)
        mapped = grid.map(guide)
        curve = grid.curve
        rounds = [('levels', bounded_levels, LEVELS_CLOSED)] * CALIBRATIONS
        if one_scan:
            rounds += [('medians', bounded_distance, MEDIANS_CLOSED)] * CALIBRATIONS
        for measure, bounded, closed in rounds:
            reached = measure_profile(apply_curve(mapped, curve), scan.brain, scan.tissues)
            here, start, goal = (getattr(p, measure) for p in (reached, scan.profile, target))
            wanted = bounded(here, start, goal, closed)
            step = calibration_curve(replace(reached, levels=here), replace(target, levels=wanted))
            curve = compose_curves(curve, step)
        grid = replace(grid, curve=curve)
        return grid, grid.finish(scan.working, guide, mapped)

    def save(self, folder: Path) -> None:
        """Write the model folder."""
        metadata = self.metadata | {'method': self.name, 'network': asdict(self.network.config)}
        write_model_folder(Path(folder), metadata, self.network.state_dict())

    @classmethod
    def load(cls, folder: Path, device: str = 'cpu') -> 'Transfer':
        """Read a model folder; ModelError where it is not whole or not of this method."""
        metadata, tensors = read_model_folder(Path(folder), cls.name)
        try:
            config = TransferConfig(**metadata['network'])
        except (KeyError, TypeError) as error:
            raise ModelError(f'{folder}/model.json does not describe a transfer network') from error
        if config.condition != CONDITION:
            raise ModelError(
                f'{folder}: made for a condition of {config.condition} numbers, this version '
                f'gives {CONDITION}; train it again'
            )
        network = TransferNetwork(config)
        load_weights(network, tensors, folder)
        return cls(network, metadata, device)
