"""What is drawn for the transfer network, and what it is judged by; each can be ablated."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DrawSettings:
    """How examples are drawn.

    Parameters
    ----------
    factors, curves : bool
        Randomisation that no physics explains: factors on class means, and monotone maps.
    labels : bool
        Styles of the phantom are read off its true tissues; under the registered maps, as in
        real scans, otherwise. For ablation.
    cube : int
        Edge, in voxels of 2 mm, of the cubes whose voxels are judged; 1 for single voxels.
    """

    factors: bool = True
    curves: bool = True
    labels: bool = False
    cube: int = 1


@dataclass(frozen=True)
class LossSettings:
    """Weights of the loss.

    Parameters
    ----------
    brain : float
        Weight of a voxel in the brain; 1 outside.
    smoothness : float
        Of the squared difference of neighbouring cells of the grid.
    scales : float
        Of the L1 of means over 2 voxels and over whole cubes; needs cubes of an even edge.
    structure : float
        Of 1 - SSIM of the cubes.
    """

    brain: float = 3.0
    smoothness: float = 0.02
    scales: float = 0.0
    structure: float = 0.0
