"""How the group level trains networks on slices, of real sessions and of the phantom."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from harmony_app.errors import InputError
from harmony_app.methods.base import Method
from harmony_app.methods.decoder import DecoderMethod
from harmony_app.methods.model_folder import read_metadata
from harmony_app.nets.contrast import ContrastNets
from harmony_app.training.base import LoopSettings
from harmony_app.training.crops import check_size
from harmony_app.training.material import Material, PhantomConfig
from harmony_app.training.mixture import mixed
from harmony_app.training.recipe import Recipe
from harmony_app.training.session_slices import SessionSlices, has_pairs
from harmony_app.training.sessions import Session
from harmony_app.training.slice_settings import SliceSettings
from harmony_app.training.slice_training import SliceTraining


class SliceRecipe(Recipe):
    """A training on slices, then the fusion of the orientations.

    Attributes
    ----------
    decoder : type of DecoderMethod
        The method.
    trainer : type of SliceTraining
    settings : SliceSettings
        Of a training from chance with all there could be.
    pairs : bool
        Whether the method learns what anatomy is from sessions of two contrasts, so that from
        chance it needs those or the phantom.
    fuse : callable or None
        Trains the fusion, called as :func:`harmony_app.training.fusion.fuse_trained`; the median
        fuses without.
    """

    decoder: type[DecoderMethod]
    trainer: type[SliceTraining]
    settings: SliceSettings
    pairs: bool = True
    fuse: Callable[..., tuple[nn.Module | None, dict]] | None = None

    def settings_for(
        self, settings: SliceSettings, material: Material, begun: bool
    ) -> SliceSettings:
        """Settings for some material: what cannot be learned from it, or is learned already, is off.

        Parameters
        ----------
        settings : SliceSettings
            With widths and crops as asked.
        material : Material
        begun : bool
            Whether training begins from a model.
        """
        return settings

    @abstractmethod
    def adapted_settings(self, settings: SliceSettings, metadata: Mapping) -> SliceSettings:
        """Settings that fit a model to a site: without truth, and without its original data.

        Parameters
        ----------
        settings : SliceSettings
            With the widths of the model.
        metadata : mapping
            What its ``model.json`` says.
        """

    def drawn(self, slices: SessionSlices, material: Material | None) -> object:
        """Source of examples of real sessions.

        Parameters
        ----------
        slices : SessionSlices
        material : Material or None
            What the training is made of; None for a site to be fitted to.
        """
        return slices

    def made(
        self,
        settings: SliceSettings,
        source: object,
        check: object | None,
        device: str,
        seed: int,
        material: Material | None,
    ) -> SliceTraining:
        """The training, its networks by chance; arguments as of trainer and :meth:`drawn`."""
        return self.trainer(settings, source, check, device, seed)

    def training(
        self, material: Material, device: str, seed: int, begin_from: Path | None
    ) -> SliceTraining:
        """Slices of sessions and of the phantom, with the settings that its file names."""
        file = material.phantom or PhantomConfig()
        given = {'size': file.size, 'variant': file.variant}
        if begin_from is not None:
            given['variant'] = read_metadata(begin_from)['networks']['variant']
        settings = replace(self.settings, **{k: v for k, v in given.items() if v is not None})
        check_size(settings.size)
        learnable = material.heads or begin_from is not None or has_pairs(material.training)
        if self.pairs and not learnable:
            raise InputError(
                f'no session has two contrasts, from which {self.method.upper()} learns what '
                'anatomy is: add --phantom FILE, or start from a model with --model'
            )
        settings = self.settings_for(settings, material, begin_from is not None)
        source, check = (
            mixed(
                self.real(sessions, settings, judged, material),
                self.trainer.phantom(heads, settings, judged) if heads else None,
                material.shares(),
            )
            for sessions, heads, judged in (
                (material.training, material.heads, False),
                (material.validation, material.held_out, True),
            )
        )
        training = self.made(settings, source, check, device, seed, material)
        if begin_from is not None:
            training.begin_from(begin_from)
        return training

    def real(
        self, sessions: Sequence[Session], settings: SliceSettings, judged: bool, material: Material
    ) -> object | None:
        """Source of examples of real sessions, which are judged as they are; None without any."""
        if not sessions:
            return None
        remapped = {'remapped': 0.0} if judged else {}
        slices = SessionSlices(sessions, settings.size, artifacts=not judged, **remapped)
        return self.drawn(slices, material)

    def adaptation(
        self,
        parent: Path,
        learning: Sequence[Session],
        judged: Sequence[Session],
        device: str,
        seed: int,
        site: str,
    ) -> SliceTraining:
        """Regular training on the new site alone; what is no part of the model stays as it is."""
        metadata = read_metadata(parent)
        settings = replace(self.settings, variant=metadata['networks']['variant'])
        settings = self.adapted_settings(settings, metadata)
        source, check = (
            self.drawn(SessionSlices(s, settings.size, artifacts=a, remapped=0.0), None)
            for s, a in ((learning, True), (judged, False))
        )
        training = self.made(settings, source, check, device, seed, None)
        training.begin_from(parent)
        for helper in training.helpers.values():
            helper.requires_grad_(False)
        return training

    def finish(
        self, network: ContrastNets, material: Material, settings: LoopSettings, device: str
    ) -> tuple[Method, dict]:
        """Train the fusion, where the method has one; it is kept where better than the median."""
        if self.fuse is None:
            return self.decoder(network, None, {}), {}
        fusion, facts = self.fuse(
            network,
            material.heads,
            material.training,
            seed=settings.seed,
            minutes=max(1.0, 0.1 * settings.minutes),
            steps=-(-settings.steps // 4),  # rounded up: 0 is no budget of steps
            device=device,
        )
        return self.decoder(network, fusion, {}), {'fusion': facts}

    @staticmethod
    def network_of(method: DecoderMethod) -> ContrastNets:
        """All networks but the fusion."""
        return method.nets
