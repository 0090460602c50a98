"""How the group level trains CALAMITI and fits it to a new site."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from harmony_app.errors import InputError
from harmony_app.methods.base import CONTRASTS, Method
from harmony_app.methods.calamiti import Calamiti
from harmony_app.methods.model_folder import read_metadata
from harmony_app.nets.calamiti import CalamitiNets
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.calamiti import CalamitiTraining
from harmony_app.training.calamiti_draws import HomePhantom, HomeSessions, most_common_site
from harmony_app.training.calamiti_settings import LOOP, Settings
from harmony_app.training.crops import check_size
from harmony_app.training.fusion import fuse_trained
from harmony_app.training.heads import Head
from harmony_app.training.material import Material, PhantomConfig
from harmony_app.training.mixture import mixed
from harmony_app.training.recipe import Recipe
from harmony_app.training.session_slices import SessionSlices, has_pairs
from harmony_app.training.sessions import Session


class CalamitiRecipe(Recipe):
    """CALAMITI, then a fusion network for each contrast.

    Fitted to a new site are the output block of the anatomy encoder and the fully connected
    layers of theta's (section 2.4); the discriminator is fixed and is part of the model.
    """

    method = 'calamiti'
    loop = LOOP
    adapted = ('beta_output.', 'theta.head.')

    def training(
        self, material: Material, device: str, seed: int, begin_from: Path | None
    ) -> Training:
        """Slices of sessions with two contrasts, and of the phantom.

        Site A is the phantom's where there is one, else the site of most sessions. Where
        there is but one site nothing tells sites apart and the discriminator is left out.
        """
        file = material.phantom or PhantomConfig()
        settings = Settings()
        given = {'size': file.size, 'variant': file.variant}
        if begin_from is not None:
            given['variant'] = read_metadata(begin_from)['networks']['variant']
        if begin_from is not None or not material.heads:
            given['warm'] = 0.0
        home = None if material.heads else most_common_site(material.training)
        if home is None and not material.heads:
            given |= {'adversarial': 0.0, 'discriminator': 0.0}
        settings = replace(settings, **{k: v for k, v in given.items() if v is not None})
        check_size(settings.size)
        if not material.heads and not has_pairs(material.training) and begin_from is None:
            raise InputError(
                'no session has two contrasts, from which CALAMITI learns what anatomy is: add '
                '--phantom FILE, or start from a model with --model'
            )

        def real(sessions, judged):
            if not sessions:
                return None
            remapped = {'remapped': 0.0} if judged else {}
            slices = SessionSlices(sessions, settings.size, artifacts=not judged, **remapped)
            return HomeSessions(slices, home)

        def phantom(heads, judged):
            if not heads:
                return None
            return HomePhantom(heads, settings.size, settings.home, artifacts=not judged)

        source = mixed(
            real(material.training, False), phantom(material.heads, False), material.shares()
        )
        check = mixed(
            real(material.validation, True), phantom(material.held_out, True), material.shares()
        )
        training = CalamitiTraining(settings, source, check, device, seed)
        if begin_from is not None:
            training.begin_from(begin_from)
        return training

    def adaptation(
        self,
        parent: Path,
        learning: Sequence[Session],
        judged: Sequence[Session],
        device: str,
        seed: int,
    ) -> Training:
        """Regular training on the new site alone; its scans are none of Site A.

        The discriminator costs the anatomy encoder until its maps look as those of Site A do;
        not so where the model was trained without one.
        """
        metadata = read_metadata(parent)
        told = metadata.get('training', {}).get('settings', {})
        off = dict.fromkeys(('tissue', 'levels', 'discriminator', 'warm'), 0.0)
        settings = Settings(metadata['networks']['variant'], hot=Settings.cold, **off)
        if not told.get('adversarial', settings.adversarial):
            settings = replace(settings, adversarial=0.0)
        source, check = (
            HomeSessions(SessionSlices(s, settings.size, artifacts=a, remapped=0.0), None)
            for s, a in ((learning, True), (judged, False))
        )
        training = CalamitiTraining(settings, source, check, device, seed)
        training.begin_from(parent)
        for helper in training.helpers.values():
            helper.requires_grad_(False)
        return training

    def finish(
        self, network, material: Material, settings: LoopSettings, device: str
    ) -> tuple[Method, dict]:
        """Train the fusion networks."""
        fusion, facts = fuse_contrasts(
            network,
            material.heads,
            material.training,
            seed=settings.seed,
            minutes=max(1.0, 0.1 * settings.minutes),
            steps=-(-settings.steps // 4),  # rounded up: 0 is no budget of steps
            device=device,
        )
        return Calamiti(network, fusion, {}), {'fusion': facts}

    @staticmethod
    def network_of(method: Method):
        """All networks but the fusion."""
        return method.nets


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
    edge: int = 96,
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
