"""MISPEL (Torbati 2023): scans of known scanners go to the middle ground between them.

Each scanner has a unit of its own, trained on people who were scanned at several. At use a unit
needs neither a target nor a matched scan: it harmonizes any scan of its scanner.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harmony_app.engine.anatomy import shown_part
from harmony_app.engine.compute import Compute
from harmony_app.engine.mapping import map_slices
from harmony_app.errors import ModelError, OptionError, ScanError
from harmony_app.imaging.denoise import white_matter_noise
from harmony_app.imaging.profile import TissueProfile, measure_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Harmonized, Labelled, Method, Scan, Style
from harmony_app.methods.model_folder import (
    NOT_DESCRIBED,
    build_networks,
    load_weights,
    read_model_folder,
    write_model_folder,
)
from harmony_app.methods.registry import packaged_model
from harmony_app.nets.mispel import MispelConfig, MispelNets

MIDDLE_GROUND = 'middle-ground'
"""Name of the style that all scans of a contrast are brought to."""

ORIENTATION = 'axial'
"""Slices that the units see, as in the paper."""


class Mispel(Method):
    """MISPEL with trained units.

    The image of the unit is the result: there is no target whose contrast a transfer could carry
    onto the scan.

    Parameters
    ----------
    nets : MispelNets
        Trained units.
    metadata : dict
        What ``model.json`` says.
    device : str
        Where the networks run.
    autocast : bool
        Mixed precision on CUDA.
    batch : int
        Slices computed at once.

    Raises
    ------
    OptionError
        For an absent device.
    """

    name = 'mispel'
    needs_training = True
    takes_target = False

    def __init__(
        self,
        nets: MispelNets,
        metadata: dict,
        device: str = 'cpu',
        autocast: bool = False,
        batch: int = 16,
    ):
        self.compute = Compute(device, autocast, batch)
        self.nets = nets.to(device).eval()
        self.metadata = metadata

    def check_scan(self, scan: Labelled) -> None:
        """Refuse a scan of a scanner that has no unit.

        Raises
        ------
        ScanError
            With the scanners that are known.
        """
        config = self.nets.config
        if (scan.contrast, scan.site) in config.units:
            return
        known = ', '.join(s for c, s in config.units if c == scan.contrast) or 'none'
        told = f'is of {scan.site}' if scan.site else 'names no scanner (no site, no sidecar)'
        raise ScanError(
            f'{scan.name} {told}: the MISPEL model has no unit for its {scan.contrast} scans; '
            f'scanners with one: {known}; fit one with group --task adapt --site NAME'
        )

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """Bring every scan of the target's contrast to the middle ground of its scanners.

        Parameters
        ----------
        session : sequence of Scan
        target : Style
            Says which contrast; what it looks like is of no effect.

        Raises
        ------
        ScanError
            Where a scanner has no unit, or a scan shows nothing.
        """
        return [self._harmonized(scan) for scan in session if scan.contrast == target.contrast]

    def _harmonized(self, scan: Scan) -> Harmonized:
        image = self.map(scan)
        to_native = np.linalg.inv(scan.native_to_working)
        native = resample(image, scan.native.shape, scan.native.affine, to_native)
        return Harmonized(
            source=scan.name,
            contrast=scan.contrast,
            working=image,
            native=native.with_data(np.maximum(native.data, 0)),
            settings={
                'MispelModel': self.metadata.get('weights_sha256', ''),
                'Unit': scan.site,
                'Scanners': list(self.nets.config.scanners),
            },
        )

    def map(self, scan: Scan) -> Volume:
        """The image of its unit, on the working grid; zero where the scan shows nothing."""
        self.check_scan(scan)
        mask = shown_part(scan.working)
        if not mask.any():
            raise ScanError(f'{scan.name} shows nothing on the working grid; leave it out')
        unit = self.nets.unit(scan.contrast, scan.site)
        image = map_slices(unit, scan.working.data, mask, ORIENTATION, self.compute)
        return scan.working.with_data(image)

    def middle_ground(self, scans: Sequence[Scan]) -> Style:
        """What the units of a contrast make of some scans, on average.

        Parameters
        ----------
        scans : sequence of Scan
            Of one contrast, best of all scanners in equal parts.

        Raises
        ------
        ValueError
            For none, or several contrasts.
        ModelError
            Where a unit does not make an image of a head: it has hardly been trained.
        """
        contrasts = {scan.contrast for scan in scans}
        if len(contrasts) != 1:
            raise ValueError(f'a middle ground has one contrast, not {sorted(contrasts)}')
        profiles, noises = [], []
        for scan in scans:
            image = self.map(scan)
            try:
                profile = measure_profile(image.data, scan.brain, scan.tissues, scan.fluid)
            except ValueError as error:
                raise ModelError(
                    f'what the unit of {scan.site} makes of {scan.name} is no image of a head '
                    f'({error}): train longer'
                ) from error
            profiles.append(profile)
            noises.append(white_matter_noise(image, scan.tissues))
        profile = TissueProfile.average(profiles)
        noise = float(np.median(noises))
        return Style(MIDDLE_GROUND, *contrasts, profile, scans=len(scans), noise=noise)

    def fit(self, scans: Sequence[Scan]) -> None:
        """MISPEL is trained on its own, before it is used."""
        raise OptionError(
            'mispel is trained by harmony-app BIDS OUT group --task train, not while used'
        )

    def save(self, folder: Path) -> None:
        """Write the model folder."""
        config = self.nets.config
        metadata = self.metadata | {
            'method': self.name,
            'contrasts': list(config.contrasts),
            'networks': config.to_dict(),
        }
        write_model_folder(Path(folder), metadata, self.nets.state_dict())

    @classmethod
    def load(
        cls,
        folder: Path | None = None,
        device: str = 'cpu',
        autocast: bool = False,
        batch: int = 16,
    ) -> 'Mispel':
        """Read a model folder, the packaged one by default; options as for the class.

        Raises
        ------
        ModelError
            Where it is not whole or not of MISPEL.
        """
        folder = packaged_model(cls.name) if folder is None else Path(folder)
        metadata, tensors = read_model_folder(folder, cls.name)
        nets = build_networks(
            folder,
            cls.name,
            metadata,
            tensors,
            lambda: MispelNets(MispelConfig.from_dict(metadata['networks'])),
        )
        try:
            known = {fields['contrast'] for fields in metadata.get('styles', [])}
        except NOT_DESCRIBED as error:
            raise ModelError(f'{folder}/model.json does not describe units of mispel') from error
        if missing := [c for c in nets.config.contrasts if c not in known]:
            raise ModelError(
                f'{folder}/model.json does not tell the middle ground of {", ".join(map(str, missing))}: '
                'train the model again'
            )
        load_weights(nets, tensors, folder)
        return cls(nets, metadata, device, autocast, batch)
