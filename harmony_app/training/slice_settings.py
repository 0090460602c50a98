"""What every training of networks on slices is told."""

from dataclasses import dataclass

from harmony_app.training.base import LoopSettings

LOOP = LoopSettings(
    minutes=60.0,
    batch=4,
    rate=1.5e-3,
    warm_steps=100,
    plateau=0.33,
    average=0.99,
    validation_steps=250,
    checkpoint_minutes=5.0,
)
"""What the loop is told unless the method or the user asks otherwise."""


@dataclass(frozen=True)
class SliceSettings:
    """Widths and crops; a method adds the weights of its losses by their names.

    Parameters
    ----------
    variant : str
        Name of the widths among the method's variants.
    size : int
        Edge of the crops; a multiple of 16.
    """

    variant: str = 'compact'
    size: int = 128
