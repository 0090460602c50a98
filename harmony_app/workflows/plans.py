"""What the workflow factories are told: the method, and the sessions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harmony_app.bids.discovery import Inventory, ScanInput
from harmony_app.methods.model_folder import read_metadata
from harmony_app.methods.registry import get_method, packaged_model
from harmony_app.workflows.names import session_name
from harmony_app.workflows.site_averages import SiteAverages
from harmony_app.workflows.targets import Targets


@dataclass(frozen=True)
class MethodSettings:
    """Which method, and how it runs.

    Parameters
    ----------
    name : str
        Name in the registry.
    model : Path or None
        Model folder; None for methods without a model.
    model_hash : str
        sha256 of the weights.
    options : dict
        Settings of the method.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    threads : int
        Threads of torch.
    seed : int
        Random seed.
    falls_back : bool
        Whether the CPU takes over where the memory of the device is too small.
    """

    name: str
    model: Path | None = None
    model_hash: str = ''
    options: Mapping = field(default_factory=dict)
    device: str = 'cpu'
    threads: int = 1
    seed: int = 0
    falls_back: bool = False

    @classmethod
    def of(cls, name: str, model: Path | None = None, **settings) -> 'MethodSettings':
        """Settings of a method with its model found, by default the packaged one.

        Parameters
        ----------
        name : str
            Name in the registry.
        model : Path, optional
            Model folder.
        **settings
            ``options``, ``device``, ``threads`` and ``seed``.

        Raises
        ------
        ModelError
            Where there is no model, or it is of another method.
        OptionError
            For an unknown method or option.
        """
        method = get_method(name, model, 'cpu', **settings.get('options', {}))
        if not method.needs_training:
            return cls(name, **settings)
        folder = Path(model or packaged_model(name))
        return cls(name, folder, read_metadata(folder).get('weights_sha256', ''), **settings)

    @property
    def uses_gpu(self) -> bool:
        """Whether its nodes take an accelerator."""
        return self.model is not None and self.device.startswith('cuda')

    def interface_inputs(self) -> dict:
        """Inputs of the interfaces that make a method."""
        inputs = {
            'method': self.name,
            'options': dict(self.options),
            'device': self.device if self.model else 'cpu',
            'use_gpu': self.uses_gpu,
            'falls_back': self.falls_back,
            'num_threads': self.threads,
            'seed': self.seed,
            'model_hash': self.model_hash,
        }
        return inputs | ({'model': str(self.model)} if self.model else {})


@dataclass(frozen=True)
class SessionPlan:
    """One session to harmonize.

    Parameters
    ----------
    scans : tuple of ScanInput
        Its scans.
    digest : str
        Hash of settings and inputs.
    given : dict of str to dict
        By scan: ``mask_file`` and ``transform_file`` made by others.
    """

    scans: tuple[ScanInput, ...]
    digest: str = ''
    given: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the session."""
        return session_name(self.scans[0].subject, self.scans[0].session)


@dataclass(frozen=True)
class Plan:
    """What a participant run will do.

    Parameters
    ----------
    inventory : Inventory
        What was found.
    targets : Targets
        What to look like.
    sites : SiteAverages
        Averages of the sites that the scans come from.
    model : Path or None
        Model folder.
    model_hash : str
        sha256 of its weights.
    device : str
        Device of the method.
    sessions : tuple of SessionPlan
        Sessions to compute.
    finished : tuple of str
        Sessions whose results are there already.
    """

    inventory: Inventory
    targets: Targets
    sites: SiteAverages
    model: Path | None
    model_hash: str
    device: str
    sessions: tuple[SessionPlan, ...]
    finished: tuple[str, ...]
