"""How the group level trains HACA3."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harmony_app.errors import InputError
from harmony_app.methods.base import Method
from harmony_app.methods.haca3 import Haca3
from harmony_app.methods.model_folder import read_metadata
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.crops import check_size
from harmony_app.training.fusion import fuse_trained
from harmony_app.training.haca3 import Haca3Training
from harmony_app.training.haca3_settings import LOOP, Settings
from harmony_app.training.material import Material, PhantomConfig
from harmony_app.training.mixture import mixed
from harmony_app.training.recipe import Recipe
from harmony_app.training.session_slices import SessionSlices, has_pairs
from harmony_app.training.sessions import Session
from harmony_app.training.slices import SliceSampler


class Haca3Recipe(Recipe):
    """HACA3, then its fusion network.

    Fitted to a new site are the parts that CALAMITI names (section 2.4; HACA3's paper names
    none): the output block of the anatomy encoder and the fully connected layers of theta's.
    The decoder stays, so what the encoders learn has to lie where the old sites put it, and
    styles of old sites stay valid.
    """

    method = 'haca3'
    loop = LOOP
    adapted = ('beta.up.0.', 'beta.head.', 'theta.head.')

    def training(
        self, material: Material, device: str, seed: int, begin_from: Path | None
    ) -> Training:
        """Slices of sessions with two contrasts, and of the phantom."""
        file = material.phantom or PhantomConfig()
        settings = Settings()
        given = {'size': file.size, 'variant': file.variant}
        if begin_from is not None:
            given['variant'] = _variant(begin_from)
            given['eta_first'] = 0.0  # it is learned already
        if begin_from is not None or not material.heads:
            given['warm'] = 0.0  # there is no truth to warm up with, or no need
        settings = replace(settings, **{k: v for k, v in given.items() if v is not None})
        check_size(settings.size)
        if not material.heads and not has_pairs(material.training):
            if begin_from is None:
                raise InputError(
                    'no session has two contrasts, from which HACA3 learns what anatomy is: add '
                    '--phantom FILE, or start from a model with --model'
                )
            settings = replace(settings, anatomy=0.0)

        def real(sessions, judged):
            if not sessions:
                return None
            remapped = {'remapped': 0.0} if judged else {}
            return SessionSlices(sessions, settings.size, artifacts=not judged, **remapped)

        def phantom(heads, judged):
            return SliceSampler(heads, settings.size, artifacts=not judged) if heads else None

        source = mixed(
            real(material.training, False), phantom(material.heads, False), material.shares()
        )
        check = mixed(
            real(material.validation, True), phantom(material.held_out, True), material.shares()
        )
        training = Haca3Training(settings, source, check, device, seed)
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
        """Reconstruction, cycle and KL; the helpers of the other losses are not in a model."""
        off = dict.fromkeys(('anatomy', 'artifact', 'tissue', 'levels', 'attention'), 0.0)
        settings = Settings(_variant(parent), eta_first=0.0, warm=0.0, **off)
        source = SessionSlices(learning, settings.size, remapped=0.0)
        check = SessionSlices(judged, settings.size, artifacts=False, remapped=0.0)
        training = Haca3Training(settings, source, check, device, seed)
        training.begin_from(parent)
        for helper in training.helpers.values():
            helper.requires_grad_(False)
        return training

    def finish(
        self, network, material: Material, settings: LoopSettings, device: str
    ) -> tuple[Method, dict]:
        """Train the fusion network; it is kept where it is better than the median."""
        fusion, facts = fuse_trained(
            network,
            material.heads,
            material.training,
            seed=settings.seed,
            minutes=max(1.0, 0.1 * settings.minutes),
            steps=-(-settings.steps // 4),  # rounded up: 0 is no budget of steps
            device=device,
        )
        return Haca3(network, fusion, {}), {'fusion': facts}

    @staticmethod
    def network_of(method: Method):
        """All networks but the fusion."""
        return method.nets


def _variant(folder: Path) -> str:
    return read_metadata(folder)['networks']['variant']
