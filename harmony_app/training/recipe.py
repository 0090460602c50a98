"""How the group level trains a method: one recipe each, found by the method's name."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch

from harmony_app.errors import OptionError
from harmony_app.methods.base import Method, Scan
from harmony_app.methods.registry import get_method
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.material import Material
from harmony_app.training.parts import SLOWER
from harmony_app.training.sessions import Session, SessionFiles

_RECIPES = {
    'transfer': 'harmony_app.training.transfer_recipe:TransferRecipe',
    'haca3': 'harmony_app.training.haca3_recipe:Haca3Recipe',
    'calamiti': 'harmony_app.training.calamiti_recipe:CalamitiRecipe',
    'imunity': 'harmony_app.training.imunity_recipe:ImUnityRecipe',
    'mispel': 'harmony_app.training.mispel_recipe:MispelRecipe',
    'dlest': 'harmony_app.training.dlest_recipe:DlestRecipe',
}

TRAINED = tuple(_RECIPES)
"""Methods that can be trained."""

ADAPTATION_STEPS = 200
"""Budget of an adaptation where none is given."""


class Recipe(ABC):
    """What the group level has to know of a method to train it.

    Attributes
    ----------
    method : str
        Name in the registry.
    loop : LoopSettings
        What the loop is told unless asked otherwise.
    adapted : tuple of str
        Beginnings of the names of the weights that are fitted to a new site.
    keeps_biology : bool
        Whether it learns from what is known of people (``Material.biology``).
    matched : bool
        Whether a site is fitted by people who were at other sites too.
    reaches_by_it : bool
        Whether nothing but an adaptation lets a model reach a site, so that it is kept however it
        was judged.
    slower : float
        The learning rate of an adaptation is divided by this.
    adaptation_steps : int
        Budget of an adaptation where none is given.
    """

    method: str
    loop: LoopSettings
    adapted: tuple[str, ...]
    keeps_biology: bool = False
    matched: bool = False
    reaches_by_it: bool = False
    slower: float = SLOWER
    adaptation_steps: int = ADAPTATION_STEPS

    def usable(
        self, sessions: Sequence[SessionFiles], site: str | None = None
    ) -> Sequence[SessionFiles]:
        """Sessions that the method can learn from.

        Parameters
        ----------
        sessions : sequence of SessionFiles
        site : str, optional
            That a model is fitted to.

        Raises
        ------
        InputError
            Where there are sessions, but none of use.
        """
        return sessions

    @abstractmethod
    def training(
        self, material: Material, device: str, seed: int, begin_from: Path | None
    ) -> Training:
        """The training on some material.

        Parameters
        ----------
        material : Material
            Sessions, heads of the phantom, or both.
        device : str
            Of the networks.
        seed : int
            Of the initial weights.
        begin_from : Path or None
            Model folder to start from; chance without.

        Raises
        ------
        InputError
            Where the method cannot learn from it.
        """

    @abstractmethod
    def adaptation(
        self,
        parent: Path,
        learning: Sequence[Session],
        judged: Sequence[Session],
        device: str,
        seed: int,
        site: str,
    ) -> Training:
        """The losses that fit a model to a site with neither truth nor its original data.

        Parameters
        ----------
        parent : Path
            Model folder to start from.
        learning, judged : sequence of Session
            Sessions of the site to learn from and to be judged by; the same where there are few.
        device : str
            Of the networks.
        seed : int
            Of whatever is not part of the model.
        site : str
            Its name.
        """

    def adaptation_loop(self) -> LoopSettings:
        """What the loop is told for that: a fraction of the rate and a short budget."""
        return replace(self.loop, rate=self.loop.rate / self.slower, steps=self.adaptation_steps)

    @abstractmethod
    def finish(
        self,
        network: torch.nn.Module,
        material: Material,
        settings: LoopSettings,
        device: str,
    ) -> tuple[Method, dict]:
        """The method of a trained network, and what ``model.json`` is to say of its making.

        Parameters
        ----------
        network : Module
            With the weights that are kept, on the CPU, in evaluation mode.
        material : Material
            What it was trained on.
        settings : LoopSettings
            Of the training that ended.
        device : str
            Where anything left may be computed.
        """

    def parts(self, training: Training) -> tuple[str, ...]:
        """Beginnings of the names of the weights that an adaptation moves."""
        return self.adapted

    def beginning(self, training: Training, parent: Path, device: str) -> torch.nn.Module:
        """The network that an adaptation has to be better than: the one that it begins from."""
        return training.network

    def adapted_method(self, parent: Path, network: torch.nn.Module, device: str) -> Method:
        """The method of a model folder with the network that was fitted to a site."""
        method = get_method(self.method, parent, device)
        self.network_of(method).load_state_dict(network.state_dict())
        return method

    def simulated_scans(self, material: Material) -> list[Scan]:
        """Scans of the phantom, of all that a model without a target brings to one style."""
        return []

    @staticmethod
    def network_of(method: Method) -> torch.nn.Module:
        """The network of a loaded method that a training fits."""
        return method.network


def get_recipe(method: str) -> Recipe:
    """Recipe of a method.

    Raises
    ------
    OptionError
        Where the method is not trained.

    Examples
    --------
    >>> get_recipe('transfer').adapted
    ('local.', 'everywhere.')
    """
    if method not in _RECIPES:
        raise OptionError(f'--method {method} has no model: choose one of {", ".join(TRAINED)}')
    module, name = _RECIPES[method].split(':')
    return getattr(import_module(module), name)()
