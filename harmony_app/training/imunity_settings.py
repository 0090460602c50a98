"""What a training of ImUnity is told."""

from dataclasses import dataclass, replace

from harmony_app.errors import OptionError
from harmony_app.training import slice_settings
from harmony_app.training.slice_settings import SliceSettings

LOOP = replace(
    slice_settings.LOOP,
    rate=2e-3,
    warm_steps=30,
    # the losses are weighted as in equation 4, so gradients are a hundred times those of an L1
    clip=100.0,
    validation_steps=500,
)
"""What the loop is told unless asked otherwise."""

UNLEARNED = ('anatomy', 'latent')
"""What the module of sites reads: the latent of the anatomy, or theta with it."""


@dataclass(frozen=True)
class Settings(SliceSettings):
    """Widths, crops, draws, and the weights of the losses (equation 4).

    The weights are those of the paper (section 2.3). The draws are wider than its own, which
    are ``gammas=1, maps=0, protocols=0, others=0, t1w=1, edges=0, tissue=0, levels=0`` and
    ``unlearned='latent'``.

    Parameters
    ----------
    variant : str
        Widths, a name in :data:`harmony_app.nets.imunity.VARIANTS`.
    size : int
        Edge of the crops; a multiple of 16.
    adversarial, confusion, biological, reconstruction, kl : float
        Lambda 1 to 5: of what the discriminator, the module of sites and the module of biology
        tell the generator, of the L1 to the slice to make, and of the KL divergence.
    edges : float
        Share in the reconstruction of the L1 of differences of neighbours: ours.
    tissue, levels : float
        Weights of the cross entropy of the decoder's soft levels against the phantom's tissues,
        and of the error of the tissue intensities that a small network reads off theta. Ours, and
        only of examples whose truth is known; they spare hours. 0 for the paper's losses alone.
    tissue_until : float
        Share of the budget over which both fall to a tenth.
    discriminator, sites : float
        Weights of the losses of the discriminator and of the module of sites themselves; no
        other network learns from them, so they set their pace alone.
    warm : float
        Share of the budget before the generator hears of either of both.
    unlearned : str
        One of :data:`UNLEARNED`. The paper's module is connected to both encoders; but theta is
        where a target's contrast has to be, so only anatomy is to lose its site here.
    gamma : tuple of two float
        Range of the exponents.
    gammas, maps : float
        Share of the draws whose contrast is altered by a gamma, and by a random monotone map,
        which is our addition of the kind that the paper's discussion asks for.
    map_strength : float
        Strongest map, as for :func:`harmony_app.training.randomize.random_monotone_map`.
    protocols : float
        Share of the phantom's draws in which the contrast slice, and so the slice to make, is at
        another protocol than the anatomy slice: ours, for gamma does not turn MPRAGE to SPGR.
    others : float
        Share of the phantom's draws whose contrast slice shows another person at that protocol:
        ours, for a target is as a rule encoded from other people.
    sited : float
        Share of the phantom's draws whose anatomy slice is of a named site, which tells the
        module of sites what to unlearn; the others are at random protocols and tell it nothing.
    slices : int
        Slices of one scan that the module of sites reads together, ours: a crop alone says next to
        nothing of its site, for its field, noise and anatomy differ more than protocols do. The
        paper's module reads one.
    kept, reread : int
        Scans of past steps that the module of sites keeps to learn from and to standardise what it
        reads, and how many of them are encoded anew in a step for the encoder to unlearn on: ours.
    t1w : float
        Share of T1w among the draws; the other contrasts share the rest evenly.
    features : int
        Biological features of a person, of which nothing is known on the phantom.
    """

    size: int = 96
    adversarial: float = 1.0
    confusion: float = 1.0
    biological: float = 1.0
    reconstruction: float = 100.0
    kl: float = 1e-3
    edges: float = 0.5
    tissue: float = 20.0
    levels: float = 20.0
    tissue_until: float = 0.8
    discriminator: float = 1.0
    sites: float = 1.0
    warm: float = 0.1
    unlearned: str = 'anatomy'
    gamma: tuple[float, float] = (0.5, 1.5)
    gammas: float = 0.15
    maps: float = 0.15
    map_strength: float = 0.3
    protocols: float = 0.75
    others: float = 0.3
    sited: float = 0.5
    slices: int = 1
    kept: int = 256
    reread: int = 16
    t1w: float = 0.5
    features: int = 0

    def __post_init__(self):
        if self.unlearned not in UNLEARNED:
            raise OptionError(f'unlearned {self.unlearned}: choose one of {", ".join(UNLEARNED)}')
        if not 0 < self.gamma[0] <= self.gamma[1]:
            raise OptionError(f'gamma {self.gamma}: a range of exponents lies above 0 and rises')
        if self.slices < 1:
            raise OptionError(f'slices {self.slices}: one of a scan at least')
        if not 1 <= self.reread <= self.kept:
            raise OptionError(
                f'reread {self.reread}: from 1 to the {self.kept} scans that are kept'
            )
        if self.gammas + self.maps > 1:
            raise OptionError('gammas and maps are shares of all draws: together at most 1')
