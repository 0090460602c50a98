"""ImUnity: the slice of one scan in the contrast of another, by a VAE-GAN (Cackowski 2023).

The anatomy encoder gives the latent of every slice of a scan, the contrast encoder the contrast
(theta) of the target: of one scan of it, or averaged over several, of a site that was never seen
as well as of one that was (section 2.4.1). Both are decoded slice by slice in three
orientations, and the three volumes are fused by their median; the paper uses axial slices alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from harmony_app.engine.anatomy import translate_volumes
from harmony_app.methods.base import Style
from harmony_app.methods.decoder import DecoderMethod, Encoded
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.imunity import ImUnityConfig, ImUnityNets


@dataclass
class EncodedLatent(Encoded):
    """A source with the latents of its groups of slices, which the first target computes."""

    latents: list[torch.Tensor] = field(default_factory=list)


class ImUnity(DecoderMethod):
    """ImUnity with the transfer as its last stage; parameters as of its base.

    Source and target have one contrast: one that was not acquired cannot be made. A further
    target of the same session costs the decoder alone.
    """

    name = 'imunity'
    label = 'ImUnity'
    can_impute = False
    encoding = EncodedLatent
    nets: ImUnityNets

    @classmethod
    def build(cls, metadata: Mapping) -> tuple[ImUnityNets, FusionNet | None]:
        """Networks, and a fusion network where ``fusion`` says so."""
        config = ImUnityConfig.from_dict(metadata['networks'])
        return ImUnityNets(config), FusionNet(config.fusion_width) if metadata['fusion'] else None

    def fusion_for(self, contrast: str) -> FusionNet | None:
        """One for all contrasts."""
        return self.fusion

    def volumes_of(
        self, encoded: Sequence[EncodedLatent], target: Style
    ) -> tuple[np.ndarray, np.ndarray]:
        """The one source in the target's contrast.

        Raises
        ------
        ValueError
            For several sources: anatomies of several scans are not joined.
        """
        if len(encoded) != 1:
            raise ValueError(f'{self.name} decodes one scan, not {len(encoded)}')
        (source,) = encoded
        known, kept = iter(source.latents), []
        theta = torch.tensor([target.theta], dtype=torch.float32, device=self.compute.device)

        def translate(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            latent = next(known, None)
            if latent is None:
                latent = self.nets.anatomy(images, mask)[0]
            kept.append(latent)
            return self.nets.decode(latent, mask, theta.expand(len(images), -1))

        volumes = translate_volumes(translate, source.scan.working.data, source.mask, self.compute)
        source.latents = kept
        return volumes, source.mask
