"""DLEST: style translation by energies of latent codes (Wu 2024).

An autoencoder that knows no site codes a slice; short Langevin dynamics lower the energy of the
target's site, and the decoder shows what the code became: slice by slice in three orientations,
whose median is the result. A model holds an energy for every style it can reach, so a target is
a named style or a site of the model; ``--task adapt --site NAME`` adds one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from harmony_app.engine.anatomy import translate_volumes
from harmony_app.errors import OptionError
from harmony_app.methods.base import CONTRASTS, Harmonized, Scan, Style
from harmony_app.methods.decoder import DecoderMethod, Encoded
from harmony_app.nets.dlest import DlestConfig, DlestNets, energy_key


class Dlest(DecoderMethod):
    """DLEST with the transfer as its last stage; parameters as of its base.

    At use a chain only descends, unless ``noise_at_use`` of the networks' ``chain`` in
    ``model.json`` says otherwise: then its noise comes from ``seed`` there, anew at every step and
    for every slice of a batch. Either way the same scan gives the same voxels each time.
    Theta is the mean of a code, for the tables; no result depends on it.
    """

    name = 'dlest'
    label = 'Dlest'
    can_impute = False
    measures_targets = False

    @classmethod
    def build(cls, metadata: Mapping) -> tuple[DlestNets, None]:
        """Networks with an energy for every key that is named; no fusion network."""
        return DlestNets(DlestConfig.from_dict(metadata['networks']), metadata['energies']), None

    def save(self, folder: Path) -> None:
        """Write the model folder, with the names and the contrasts of the energies."""
        keys = list(self.nets.energies)
        reached = {key.split(':', 1)[0] for key in keys}
        contrasts = [contrast for contrast in CONTRASTS if contrast in reached]
        self.metadata = dict(self.metadata) | {'energies': keys, 'contrasts': contrasts}
        super().save(folder)

    def fusion_for(self, contrast: str) -> None:
        """None: the median of the orientations."""

    def check_target(self, target: Style) -> None:
        """Refuse a style that the model has no energy for."""
        if self.reaches(target.name, target.contrast):
            return
        known = [
            style['name']
            for style in self.metadata.get('styles', [])
            if self.reaches(style['name'], style['contrast'])
            and style['contrast'] == target.contrast
        ]
        there = f'it has them for {", ".join(known)}' if known else 'it has none of this contrast'
        raise OptionError(
            f'the model of dlest has no energy for the target {target.name} ({target.contrast}): '
            f'{there}. Run the participant level for scans of the site with another method, then '
            'harmony-app BIDS OUT group --task adapt --method dlest --site NAME, and give '
            '--model and --target NAME'
        )

    def reaches(self, name: str, contrast: str) -> bool:
        """Whether there is an energy for a style or site."""
        return energy_key(name, contrast) in self.nets.energies

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """As of the base; nothing for a session without a scan of the target's contrast.

        Raises
        ------
        OptionError
            Where the target has no energy.
        """
        self.check_target(target)
        if all(scan.contrast != target.contrast for scan in session):
            return []
        return super().harmonize(session, target)

    def volumes_of(
        self, encoded: Sequence[Encoded], target: Style
    ) -> tuple[np.ndarray, np.ndarray]:
        """The scan led to where the energy of the target is low."""
        self.check_target(target)
        key, chain = energy_key(target.name, target.contrast), self.nets.config.chain

        def translate(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
            generator = None
            if chain.noise_at_use:
                generator = torch.Generator(self.compute.device).manual_seed(chain.seed)
            return self.nets.translate(images, masks, key, generator)

        source = encoded[0]
        volumes = translate_volumes(translate, source.scan.working.data, source.mask, self.compute)
        return volumes, source.mask
