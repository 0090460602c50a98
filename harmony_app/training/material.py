"""What a group trains on: real sessions, heads of the phantom, or both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harmony_app.training.biology import Biology
from harmony_app.training.heads import Head
from harmony_app.training.sessions import Session


@dataclass(frozen=True)
class PhantomConfig:
    """What ``--phantom`` names: a YAML file with these keys, all optional.

    Parameters
    ----------
    heads : Path or None
        Folder that ``python -m harmony_app.training.heads`` wrote.
    label_maps : Path or None
        Folder of FreeSurfer-style label maps of whole heads, of which heads are built once;
        without both the ICBM head alone.
    subjects_per_head : int
        People that are drawn of each head (method transfer).
    share : float
        Share of the examples that are drawn from the phantom where there are sessions too.
    sites, contrasts : sequence of str or None
        Scanners of the phantom and their contrasts (method mispel); those of its paper without.
    minutes, steps, batch, size, variant, patience : float, int and str
        Settings of the training, where the command line does not give them.
    """

    heads: Path | None = None
    label_maps: Path | None = None
    subjects_per_head: int = 8
    share: float = 0.5
    sites: Sequence[str] | None = None
    contrasts: Sequence[str] | None = None
    minutes: float | None = None
    steps: int | None = None
    batch: int | None = None
    size: int | None = None
    variant: str | None = None
    patience: int | None = None


@dataclass(frozen=True)
class Material:
    """What a training learns from and is judged by.

    Parameters
    ----------
    training, validation : list of Session
        Real sessions; no person is in both.
    heads, held_out : list of Head
        Of the phantom.
    phantom : PhantomConfig or None
    biology : Biology or None
        What is to be kept of the people of the sessions.
    """

    training: Sequence[Session]
    validation: Sequence[Session]
    heads: Sequence[Head]
    held_out: Sequence[Head]
    phantom: PhantomConfig | None
    biology: Biology | None = None

    def shares(self) -> tuple[float, float]:
        """Share of the examples from real sessions and from the phantom."""
        if not self.training:
            return 0.0, 1.0
        phantom = self.phantom.share if self.phantom else 0.0
        return 1 - phantom, phantom

    def describe(self) -> dict:
        """For ``model.json``."""
        sessions = [*self.training, *self.validation]
        told: dict = {'sessions': len(sessions)}
        if sessions:
            scans = [scan for session in sessions for scan in session.scans]
            contrasts = sorted({scan.contrast for scan in scans})
            told |= {
                'subjects': sorted({session.subject for session in self.training}),
                'validation_subjects': sorted({session.subject for session in self.validation}),
                'scans': {c: sum(scan.contrast == c for scan in scans) for c in contrasts},
                'sites': sorted({scan.site for scan in scans if scan.site}),
            }
        if self.biology:
            told['biology'] = self.biology.describe()
        if self.phantom:
            told['phantom'] = {
                'share': self.shares()[1],
                'heads': [head.name for head in self.heads],
                'validation_heads': [head.name for head in self.held_out],
            }
        return told
