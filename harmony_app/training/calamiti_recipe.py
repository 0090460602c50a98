"""How the group level trains CALAMITI and fits it to a new site."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.calamiti import Calamiti
from harmony_app.nets.calamiti import CalamitiNets
from harmony_app.training.calamiti import CalamitiTraining
from harmony_app.training.calamiti_draws import HomeSessions, most_common_site
from harmony_app.training.calamiti_settings import LOOP, Settings
from harmony_app.training.fusion import fuse_trained
from harmony_app.training.fusion_blocks import EDGE
from harmony_app.training.heads import Head
from harmony_app.training.material import Material
from harmony_app.training.session_slices import SessionSlices
from harmony_app.training.sessions import Session
from harmony_app.training.slice_recipe import SliceRecipe


def fuse_contrasts(
    nets: CalamitiNets,
    heads: Sequence[Head],
    sessions: Sequence[Session],
    *,
    seed: int,
    minutes: float,
    steps: int = 0,
    blocks: int = 6,
    device: str = 'cpu',
    edge: int = EDGE,
) -> tuple[nn.ModuleDict | None, dict]:
    """Train a fusion network for each contrast there is (section 2.5).

    Parameters
    ----------
    nets : CalamitiNets
        Trained.
    heads, sessions, seed, minutes, steps, blocks, device, edge
        As for :func:`harmony_app.training.fusion.fuse_trained`; minutes of all together, steps
        and blocks of each.

    Returns
    -------
    fusion : ModuleDict or None
        By contrast, those that are better than the median on blocks held out.
    facts : dict
        What was measured, by contrast.
    """
    known = {scan.contrast for session in sessions for scan in session.scans}
    contrasts = [c for c in CONTRASTS if heads or c in known]
    fusion, facts = {}, {}
    for contrast in contrasts:
        own = [s for s in sessions if any(scan.contrast == contrast for scan in s.scans)]
        network, facts[contrast] = fuse_trained(
            nets,
            heads,
            own,
            seed=seed,
            minutes=minutes / len(contrasts),
            steps=steps,
            blocks=blocks,
            device=device,
            edge=edge,
            contrast=contrast,
        )
        if network is not None:
            fusion[contrast] = network
    return (nn.ModuleDict(fusion) if fusion else None), facts


class CalamitiRecipe(SliceRecipe):
    """CALAMITI, then a fusion network for each contrast.

    Fitted to a new site are the output block of the anatomy encoder and the fully connected
    layers of theta's (section 2.4); the discriminator is fixed and is part of the model.
    """

    method = 'calamiti'
    loop = LOOP
    adapted = ('beta_output.', 'theta.head.')
    decoder = Calamiti
    trainer = CalamitiTraining
    settings = Settings()
    fuse = staticmethod(fuse_contrasts)

    def settings_for(self, settings: Settings, material: Material, begun: bool) -> Settings:
        """Where there is but one site nothing tells sites apart: no discriminator."""
        if begun or not material.heads:
            settings = replace(settings, warm=0.0)
        if not material.heads and most_common_site(material.training) is None:
            settings = replace(settings, adversarial=0.0, discriminator=0.0)
        return settings

    def drawn(self, slices: SessionSlices, material: Material | None) -> HomeSessions:
        """Site A is the phantom's where there is one, else the site of most sessions.

        A site to be fitted to is not Site A.
        """
        own = material is None or material.heads
        return HomeSessions(slices, None if own else most_common_site(material.training))

    def adapted_settings(self, settings: Settings, metadata: Mapping) -> Settings:
        """Regular training, but for what needs the truth or Site A.

        The discriminator costs the anatomy encoder until its maps look as those of Site A do;
        not so where the model was trained without one.
        """
        told = metadata.get('training', {}).get('settings', {})
        off = dict.fromkeys(('tissue', 'levels', 'discriminator', 'warm'), 0.0)
        settings = replace(settings, hot=settings.cold, **off)
        if not told.get('adversarial', settings.adversarial):
            settings = replace(settings, adversarial=0.0)
        return settings
