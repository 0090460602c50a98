"""Methods that decode a one-hot anatomy (beta) and the contrast (theta) of a target.

What HACA3 and CALAMITI have in common. They differ in their networks, and in which scans of a
session lend their anatomy and how much.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harmony_app.engine.anatomy import decode_volumes, encode_anatomy
from harmony_app.methods.base import Style
from harmony_app.methods.decoder import DecoderMethod, Encoded
from harmony_app.nets.anatomy import AnatomyNets


@dataclass
class EncodedAnatomy(Encoded):
    """A source with its anatomy by orientation, which is computed when first asked for."""

    anatomy: dict[str, np.ndarray] = field(default_factory=dict)


class AnatomyMethod(DecoderMethod):
    """Decoding the anatomy of some sources together; parameters as of its base."""

    encoding = EncodedAnatomy
    nets: AnatomyNets

    @abstractmethod
    def weights_of(self, encoded: Sequence[EncodedAnatomy], target: Style) -> list[float]:
        """Weight of the anatomy of each source; they sum to 1."""

    def volumes_of(
        self, encoded: Sequence[EncodedAnatomy], target: Style
    ) -> tuple[np.ndarray, np.ndarray]:
        """Their anatomy, fused by its weights and decoded to the target's theta."""
        for source in encoded:
            if not source.anatomy:
                source.anatomy = encode_anatomy(
                    self.nets, source.scan.working.data, source.mask, self.compute
                )
        return decode_volumes(
            self.nets,
            [source.anatomy for source in encoded],
            [source.mask for source in encoded],
            self.weights_of(encoded, target),
            target.theta,
            self.compute,
        )
