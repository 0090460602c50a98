"""HACA3: harmonization with attention to contrast, anatomy and artifacts (Zuo 2023)."""

from collections.abc import Mapping, Sequence

from harmony_app.engine.anatomy import shared_parts
from harmony_app.methods.anatomy_method import AnatomyMethod, EncodedAnatomy
from harmony_app.methods.artifact_scale import ArtifactScale
from harmony_app.methods.base import Scan, Style
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.haca3 import Haca3Config, Haca3Nets


class Haca3(AnatomyMethod):
    """HACA3 with the transfer as its last stage; parameters as of its base.

    All scans of a session lend their anatomy, each as far as the attention of the target's
    theta and eta goes to its own.
    """

    name = 'haca3'
    label = 'Haca3'

    @classmethod
    def build(cls, metadata: Mapping) -> tuple[Haca3Nets, FusionNet | None]:
        """Networks, and one fusion network for all contrasts."""
        config = Haca3Config.from_dict(metadata['networks'])
        return Haca3Nets(config), FusionNet(config.fusion_width) if metadata['fusion'] else None

    def fusion_for(self, contrast: str) -> FusionNet | None:
        """The same for every contrast."""
        return self.fusion

    def sources_of(self, scan: Scan | None, others: Sequence[Scan]) -> list[Scan]:
        """All there are."""
        return [*others] if scan is None else [scan, *others]

    def weights_of(self, encoded: Sequence[EncodedAnatomy], target: Style) -> list[float]:
        """Attention of the target to each source."""
        import torch

        rows = [[*e.representation.theta, *e.representation.eta] for e in encoded]
        with self.compute.running():
            wanted = torch.tensor([[*target.theta, *target.eta]], device=self.compute.device)
            given = torch.tensor([rows], device=self.compute.device)
            present = torch.ones(given.shape[:2], dtype=torch.bool, device=self.compute.device)
            weights = self.nets.attention(wanted, given, present)[0].double().cpu()
        return (weights / weights.sum()).tolist()

    def attention_of(self, encoded: Sequence[EncodedAnatomy], target: Style) -> dict[str, float]:
        """Part of each source in the fused anatomy, over the union of what they show."""
        parts = shared_parts([source.mask for source in encoded], self.weights_of(encoded, target))
        return {e.scan.name: part for e, part in zip(encoded, parts, strict=True)}

    def artifacts_of(self, encoded: Sequence[EncodedAnatomy]) -> dict[str, tuple[float, str]]:
        """What eta means, where the model has a scale of it."""
        told = self.metadata.get('artifact_scale')
        if not told:
            return {}
        judge = ArtifactScale.from_dict(told).judge
        return {e.scan.name: judge(e.representation.eta, e.scan.contrast) for e in encoded}
