"""The model folder of a method that decodes: its networks and its fusion."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from torch import nn

from harmony_app.errors import OptionError
from harmony_app.methods.base import CONTRASTS, Method, Scan
from harmony_app.methods.model_folder import (
    build_networks,
    load_weights,
    read_model_folder,
    write_model_folder,
)
from harmony_app.methods.registry import packaged_model
from harmony_app.nets.contrast import ContrastNets


class DecoderModel(Method):
    """Saves and loads networks, a fusion and what ``model.json`` says of them.

    Attributes
    ----------
    nets : ContrastNets
    fusion : Module or None
        None for the median.
    metadata : dict
    """

    needs_training = True
    nets: ContrastNets
    fusion: nn.Module | None
    metadata: dict

    @classmethod
    @abstractmethod
    def build(cls, metadata: Mapping) -> tuple[ContrastNets, nn.Module | None]:
        """Networks and fusion as ``model.json`` describes them, their weights by chance.

        KeyError, TypeError or ValueError where it does not describe them.
        """

    def describe_fusion(self) -> object:
        """What ``model.json`` says of the fusion, for :meth:`build`."""
        return self.fusion is not None

    def fit(self, scans: Sequence[Scan]) -> None:
        """Such methods are trained on their own, before they are used."""
        raise OptionError(
            f'{self.name} is trained by harmony-app BIDS OUT group --task train, not while used'
        )

    def save(self, folder: Path) -> None:
        """Write the model folder."""
        tensors = {f'nets.{key}': tensor for key, tensor in self.nets.state_dict().items()}
        if self.fusion is not None:
            tensors |= {f'fusion.{key}': t for key, t in self.fusion.state_dict().items()}
        metadata = {'method': self.name, 'contrasts': list(CONTRASTS)} | self.metadata
        metadata |= {
            'method': self.name,
            'networks': self.nets.config.to_dict(),
            'fusion': self.describe_fusion(),
        }
        write_model_folder(Path(folder), metadata, tensors)

    @classmethod
    def load(
        cls,
        folder: Path | None = None,
        device: str = 'cpu',
        transfer: Method | None = None,
        detail: str = 'transfer',
        keep_decoder: bool = False,
        decoder_profile_weight: float = 0.0,
        autocast: bool = False,
        batch: int = 16,
        fusion: str | None = None,
        noise: str = 'match',
    ) -> Self:
        """Read a model folder, the packaged one by default; options as for the class.

        Parameters
        ----------
        fusion : str, optional
            ``median`` or ``network``: how the three orientations become one volume; the
            network where the model has one by default.

        Raises
        ------
        ModelError
            Where it is not whole or not of this method.
        """
        folder = packaged_model(cls.name) if folder is None else Path(folder)
        metadata, tensors = read_model_folder(folder, cls.name)
        nets, network = build_networks(
            folder, cls.name, metadata, tensors, lambda: cls.build(metadata)
        )
        modules = {'nets': nets} if network is None else {'nets': nets, 'fusion': network}
        for name, module in modules.items():
            start = f'{name}.'
            part = {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
            load_weights(module, part, folder)
        if fusion == 'network' and network is None:
            raise OptionError(
                f'--fusion network: {folder} has no fusion network; leave it out or take median'
            )
        return cls(
            nets,
            None if fusion == 'median' else network,
            metadata,
            transfer=transfer,
            device=device,
            detail=detail,
            keep_decoder=keep_decoder,
            decoder_profile_weight=decoder_profile_weight,
            autocast=autocast,
            batch=batch,
            noise=noise,
        )
