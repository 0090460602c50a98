"""What a training of HACA3 is told."""

from dataclasses import dataclass

from harmony_app.training.slice_settings import SliceSettings


@dataclass(frozen=True)
class Settings(SliceSettings):
    """Widths, crops and weights of the losses.

    Parameters
    ----------
    variant : str
        Widths, a name in :data:`harmony_app.nets.haca3.VARIANTS`.
    size : int
        Edge of the crops.
    reconstruction, edges, kl, anatomy, artifact, cycle : float
        Weights of the losses (equation 2 of the paper; ``edges`` is ours).
    tissue, levels : float
        Weights of the cross entropy of the anatomy against the phantom's tissues, and of the
        error of the tissue intensities that a small network reads off theta. Ours: anatomy and
        contrast find their meaning long before the losses of the paper alone would give it.
    attention : float
        Weight of the term that shows the attention which source explains the tissues better;
        ours too.
    eta_first : float
        Share of the budget in which nothing but eta learns, before all else; the shares below
        are of the rest. Alone it sees many more slices in a minute.
    warm : float
        Share of the budget in which anatomy and theta learn from the tissues only, and the
        decoder is given the true anatomy every other step.
    tissue_until : float
        Share of the budget over which both weights fall to a tenth.
    dropout : float
        Chance that one of the two sources is left out of the attention.
    inter_every : int
        Steps between two with a cycle between sites.
    """

    reconstruction: float = 10.0
    edges: float = 0.5
    kl: float = 0.003
    anatomy: float = 0.3
    artifact: float = 0.3
    cycle: float = 0.1
    tissue: float = 2.0
    levels: float = 2.0
    attention: float = 0.3
    eta_first: float = 0.1
    warm: float = 0.3
    tissue_until: float = 0.8
    dropout: float = 0.35
    inter_every: int = 12
