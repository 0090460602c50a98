"""How the group level trains ImUnity and fits it to a new site."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harmony_app.methods.base import Method
from harmony_app.methods.imunity import ImUnity
from harmony_app.methods.model_folder import read_metadata
from harmony_app.nets.imunity import ImUnityNets
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.crops import check_size
from harmony_app.training.fusion import fuse_trained
from harmony_app.training.imunity import ImUnityTraining
from harmony_app.training.imunity_draws import PhantomPairs, SessionPairs, training_sites
from harmony_app.training.imunity_settings import LOOP, Settings
from harmony_app.training.material import Material, PhantomConfig
from harmony_app.training.mixture import mixed
from harmony_app.training.recipe import Recipe
from harmony_app.training.sessions import Session


class ImUnityRecipe(Recipe):
    """ImUnity, then a network that fuses the three orientations.

    The paper harmonizes new sites without any fitting. Where it is asked for, the dense layers
    of the contrast encoder and the last block of the decoder move: how a contrast is read and
    how it is drawn, not what anatomy is.
    """

    method = 'imunity'
    loop = LOOP
    adapted = ('theta.head.', 'decoder.last.', 'decoder.head.')
    keeps_biology = True

    def training(
        self, material: Material, device: str, seed: int, begin_from: Path | None
    ) -> Training:
        """Slices of scans of sessions, and of the phantom.

        The sites that are unlearned are those of the phantom and of the sessions. Where there is
        but one, nothing tells sites apart and the module is left out.
        """
        file = material.phantom or PhantomConfig()
        given = {'size': file.size, 'variant': file.variant}
        if begin_from is not None:
            given['variant'] = read_metadata(begin_from)['networks']['variant']
            given['warm'] = 0.0
        settings = replace(Settings(), **{k: v for k, v in given.items() if v is not None})
        check_size(settings.size)
        known = training_sites() if material.heads else {}
        names = [*known, *(name for name in _sites_of(material.training) if name not in known)]
        numbers = {name: number for number, name in enumerate(names)}
        people, features = {}, ()
        if material.biology is not None:
            people, features = material.biology.people, material.biology.features

        def real(sessions, judged):
            if not sessions:
                return None
            return SessionPairs(sessions, settings, numbers, people, len(features), judged)

        def phantom(heads, judged):
            return PhantomPairs(heads, settings, known, len(features), judged) if heads else None

        source, check = (
            mixed(real(sessions, judged), phantom(heads, judged), material.shares())
            for sessions, heads, judged in (
                (material.training, material.heads, False),
                (material.validation, material.held_out, True),
            )
        )
        training = ImUnityTraining(settings, source, check, names, features, device, seed)
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
        """Its self-supervised part on the new site alone: there is no other site to unlearn."""
        off = dict.fromkeys(('adversarial', 'discriminator', 'confusion', 'sites'), 0.0)
        settings = Settings(read_metadata(parent)['networks']['variant'], **off)
        source, check = (
            SessionPairs(sessions, settings, {}, judged=held_out)
            for sessions, held_out in ((learning, False), (judged, True))
        )
        training = ImUnityTraining(settings, source, check, device=device, seed=seed)
        training.begin_from(parent)
        return training

    def finish(
        self, network: ImUnityNets, material: Material, settings: LoopSettings, device: str
    ) -> tuple[Method, dict]:
        """Train the fusion network."""
        fusion, facts = fuse_trained(
            network,
            material.heads,
            material.training,
            seed=settings.seed,
            minutes=max(1.0, 0.1 * settings.minutes),
            steps=settings.steps,
            device=device,
        )
        return ImUnity(network, fusion, {}), {'fusion': facts}

    @staticmethod
    def network_of(method: Method):
        """The generator."""
        return method.nets


def _sites_of(sessions: Sequence[Session]) -> list[str]:
    return sorted({scan.site for session in sessions for scan in session.scans if scan.site})
