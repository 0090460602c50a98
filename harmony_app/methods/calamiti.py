"""CALAMITI: contrast and anatomy told apart by an information bottleneck (Zuo 2021).

One scan is enough at use: its anatomy (beta, a one-hot map of a few levels) is joined with the
contrast (theta, two numbers) of the target, slice by slice in three orientations, and the three
volumes are fused by a network of the target's contrast or by their median (section 2.5).
"""

from collections.abc import Mapping, Sequence

from torch import nn

from harmony_app.methods.anatomy_method import AnatomyMethod, EncodedAnatomy
from harmony_app.methods.base import CONTRASTS, Style
from harmony_app.nets.calamiti import CalamitiConfig, CalamitiNets
from harmony_app.nets.fusion import FusionNet


class Calamiti(AnatomyMethod):
    """CALAMITI with the transfer as its last stage; parameters as of its base.

    ``fusion`` is a ModuleDict of fusion networks by contrast; contrasts that it lacks are fused by
    their median. The paper harmonizes a scan to its own contrast; a contrast that was not
    acquired is made of the first scan of the session, in the order of
    :data:`~harmony_app.methods.base.CONTRASTS`.
    """

    name = 'calamiti'
    label = 'Calamiti'

    @classmethod
    def build(cls, metadata: Mapping) -> tuple[CalamitiNets, nn.ModuleDict | None]:
        """Networks, and a fusion network for each contrast that is named."""
        config = CalamitiConfig.from_dict(metadata['networks'])
        contrasts = list(metadata['fusion'])
        if not set(contrasts) <= set(CONTRASTS):
            raise ValueError('fusion networks are named by their contrasts')
        fusion = {contrast: FusionNet(config.fusion_width) for contrast in contrasts}
        return CalamitiNets(config), nn.ModuleDict(fusion) if fusion else None

    def describe_fusion(self) -> list[str]:
        """Contrasts that have a fusion network."""
        return [] if self.fusion is None else list(self.fusion)

    def fusion_for(self, contrast: str) -> FusionNet | None:
        """The network of the contrast."""
        if self.fusion is None or contrast not in self.fusion:
            return None
        return self.fusion[contrast]

    def weights_of(self, encoded: Sequence[EncodedAnatomy], target: Style) -> list[float]:
        """All of it to the one source; several, where :meth:`decode` is given them, share evenly."""
        return [1 / len(encoded)] * len(encoded)
