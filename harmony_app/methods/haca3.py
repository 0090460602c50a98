"""HACA3: harmonization with attention to contrast, anatomy and artifacts (Zuo 2023).

The networks say what the target looks like; for a scan of the target's contrast the
transfer stage carries that onto the scan's own detail (DESIGN 4a), and the decoder's image
is the result for contrasts that were not acquired, or where it is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from harmony_app.engine.anatomy import (
    Representation,
    decode_volumes,
    encode_anatomy,
    fuse_volumes,
    represent,
    shared_parts,
    shown_part,
)
from harmony_app.engine.compute import Compute
from harmony_app.errors import InputError, ModelError, OptionError, ScanError
from harmony_app.imaging.profile import blend_profiles, measure_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.artifact_scale import ArtifactScale
from harmony_app.methods.base import CONTRASTS, Harmonized, Method, Scan, Style
from harmony_app.methods.model_folder import load_weights, read_model_folder, write_model_folder
from harmony_app.methods.registry import packaged_model
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.haca3 import Haca3Config, Haca3Nets

DETAILS = ('transfer', 'decoder')
"""Where the detail of a result comes from: the scan itself, or the decoder."""


@dataclass
class _Encoded:
    """What a source gives to every target; its anatomy is computed when first asked for."""

    scan: Scan
    mask: np.ndarray
    representation: Representation
    anatomy: dict[str, np.ndarray] = field(default_factory=dict)


class Haca3(Method):
    """HACA3 with the transfer as its last stage.

    Parameters
    ----------
    nets : Haca3Nets
        Trained networks.
    fusion : FusionNet or None
        Trained fusion network; the three orientations are fused by their median without.
    metadata : dict
        What ``model.json`` says.
    transfer : Method, optional
        Last stage for scans of the target's contrast; the packaged one by default.
    device : str
        Where the networks run.
    detail : str
        One of :data:`DETAILS`.
    keep_decoder : bool
        Give the decoder's image too under ``detail='transfer'``; it costs most of the time.
    decoder_profile_weight : float
        Part of the profile of the decoder's image in the profile that the transfer is to
        reach, 0 to 1; the rest is the target's measured profile.
    autocast : bool
        Mixed precision on CUDA.
    batch : int
        Slices computed at once.
    noise : str
        As for :class:`~harmony_app.methods.transfer.Transfer`, where the packaged one is the
        last stage.

    Raises
    ------
    OptionError
        For an unknown detail, a weight outside 0 to 1 or an absent device.
    """

    name = 'haca3'
    needs_training = True
    uses_site_average = True
    can_impute = True

    def __init__(
        self,
        nets: Haca3Nets,
        fusion: FusionNet | None,
        metadata: dict,
        *,
        transfer: Method | None = None,
        device: str = 'cpu',
        detail: str = 'transfer',
        keep_decoder: bool = False,
        decoder_profile_weight: float = 0.0,
        autocast: bool = False,
        batch: int = 16,
        noise: str = 'match',
    ):
        if detail not in DETAILS:
            raise OptionError(f'--detail {detail}: choose one of {", ".join(DETAILS)}')
        if not 0 <= decoder_profile_weight <= 1:
            raise OptionError(
                f'the weight of the decoder profile lies in 0 to 1, not at {decoder_profile_weight}'
            )
        self.compute = Compute(device, autocast, batch)
        self.nets = nets.to(device).eval()
        self.fusion = None if fusion is None else fusion.to(device).eval()
        self.metadata = metadata
        self.detail = detail
        self.keep_decoder = keep_decoder
        self.decoder_profile_weight = decoder_profile_weight
        self.noise = noise
        self._transfer = transfer
        self._encoded: list[_Encoded] = []

    @property
    def transfer(self) -> Method:
        """Last stage, loaded when first needed."""
        if self._transfer is None:
            from harmony_app.methods.transfer import Transfer

            self._transfer = Transfer.load(
                packaged_model('transfer'), self.compute.device, self.noise
            )
        return self._transfer

    def _encode_target(self, scans: Sequence[Scan], name: str) -> Style:
        """Average style of scans of one contrast, theta and eta over many slices of each."""
        style = super()._encode_target(scans, name)
        found = [self._encode(scan).representation for scan in scans]
        return replace(
            style,
            theta=_mean([r.theta for r in found]),
            eta=_mean([r.eta for r in found]),
        )

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """Bring every scan of the target's contrast to the target; impute it where there is none.

        The scans of the other contrasts lend their anatomy to the decoder. A scan is encoded
        once: the next target of the same session finds it encoded.

        Raises
        ------
        InputError
            Where the decoder is needed and the target has no theta.
        ScanError
            Where a scan shows nothing.
        """
        if not session:
            raise ValueError('a session has at least one scan')
        self._keep_only(session)
        target = self._with_theta(target)
        same = [scan for scan in session if scan.contrast == target.contrast]
        if not same:
            return [self._decoded(list(session), target, None)]
        others = [scan for scan in session if scan.contrast != target.contrast]
        if self.detail == 'decoder':
            return [self._decoded([scan, *others], target, scan) for scan in same]
        return [self._transferred(scan, others, target) for scan in same]

    def decode(self, sources: Sequence[Scan], target: Style) -> Harmonized:
        """The decoder's image of the target's contrast, of these scans of a session alone.

        The scans stay encoded until :meth:`forget`, so that other choices of them cost less.

        Raises
        ------
        InputError
            Where the target has no theta.
        ScanError
            Where a scan shows nothing.
        """
        if not sources:
            raise ValueError('an image is decoded from one scan at least')
        return self._decoded(list(sources), self._with_theta(target), None)

    def forget(self) -> None:
        """Let go of the last session and what was computed of it."""
        self._encoded = []

    def _transferred(self, scan: Scan, others: list[Scan], target: Style) -> Harmonized:
        sources = [scan, *others]
        tables = self._tables(sources, target)
        decoder, profile = None, target.profile
        if self.keep_decoder or self.decoder_profile_weight:
            decoder = self._decode(sources, target)
        if self.decoder_profile_weight:
            reached = measure_profile(decoder.data, scan.brain, scan.tissues)
            profile = blend_profiles(target.profile, reached, self.decoder_profile_weight)
        (result,) = self.transfer.harmonize(sources, replace(target, profile=profile))
        settings = result.settings | self._settings('transfer')
        return Harmonized(
            source=scan.name,
            contrast=target.contrast,
            working=result.working,
            native=result.native,
            decoder=decoder if self.keep_decoder else None,
            settings=settings | {'DecoderProfileWeight': self.decoder_profile_weight},
            **tables,
        )

    def _decoded(self, sources: list[Scan], target: Style, scan: Scan | None) -> Harmonized:
        tables = self._tables(sources, target)
        image = self._decode(sources, target)
        native = None
        if scan is not None:
            to_native = np.linalg.inv(scan.native_to_working)
            native = resample(image, scan.native.shape, scan.native.affine, to_native)
            native = native.with_data(np.maximum(native.data, 0))
        return Harmonized(
            source=None if scan is None else scan.name,
            contrast=target.contrast,
            working=image,
            native=native,
            decoder=image,
            settings=self._settings('decoder'),
            **tables,
        )

    def _decode(self, sources: list[Scan], target: Style) -> Volume:
        if not target.theta:
            raise InputError(
                f'the target {target.name} has no theta for {target.contrast}: give an image, '
                'a subject or a site as the target, or a style that this model encoded'
            )
        encoded = [self._encode(scan) for scan in sources]
        for source in encoded:
            if not source.anatomy:
                source.anatomy = encode_anatomy(
                    self.nets, source.scan.working.data, source.mask, self.compute
                )
        volumes, union = decode_volumes(
            self.nets,
            [source.anatomy for source in encoded],
            [source.mask for source in encoded],
            self._weights(encoded, target),
            target.theta,
            self.compute,
        )
        fused = fuse_volumes(self.fusion, volumes, union, self.compute)
        return sources[0].working.with_data(fused)

    def _tables(self, sources: list[Scan], target: Style) -> dict:
        """Theta, eta, their meaning and attention by name; a target without theta gets none."""
        encoded = [self._encode(scan) for scan in sources]
        theta = {source.scan.name: source.representation.theta for source in encoded}
        eta = {source.scan.name: source.representation.eta for source in encoded}
        artifacts, attention = {}, {}
        if told := self.metadata.get('artifact_scale'):
            judge = ArtifactScale.from_dict(told).judge
            artifacts = {e.scan.name: judge(eta[e.scan.name], e.scan.contrast) for e in encoded}
        if target.theta:
            theta['target'], eta['target'] = target.theta, target.eta
            attention = self._attention(encoded, target)
        return {'theta': theta, 'eta': eta, 'artifacts': artifacts, 'attention': attention}

    def _weights(self, encoded: list[_Encoded], target: Style) -> list[float]:
        """Attention of the target to each source."""
        import torch

        rows = [[*e.representation.theta, *e.representation.eta] for e in encoded]
        with self.compute.running():
            wanted = torch.tensor([[*target.theta, *target.eta]], device=self.compute.device)
            given = torch.tensor([rows], device=self.compute.device)
            present = torch.ones(given.shape[:2], dtype=torch.bool, device=self.compute.device)
            weights = self.nets.attention(wanted, given, present)[0].double().cpu()
        return (weights / weights.sum()).tolist()

    def _attention(self, encoded: list[_Encoded], target: Style) -> dict[str, float]:
        """Part of each source in the fused anatomy, over the union of what they show."""
        parts = shared_parts([source.mask for source in encoded], self._weights(encoded, target))
        return {e.scan.name: part for e, part in zip(encoded, parts, strict=True)}

    def _encode(self, scan: Scan) -> _Encoded:
        for encoded in self._encoded:
            if encoded.scan is scan:
                return encoded
        mask = shown_part(scan.working)
        if not mask.any():
            raise ScanError(f'{scan.name} shows nothing on the working grid; leave it out')
        representation = represent(self.nets, scan.working.data, mask, self.compute)
        encoded = _Encoded(scan, mask, representation)
        self._encoded.append(encoded)
        return encoded

    def _keep_only(self, session: Sequence[Scan]) -> None:
        """Let go of scans of other sessions."""
        self._encoded = [e for e in self._encoded if any(e.scan is scan for scan in session)]

    def _with_theta(self, target: Style) -> Style:
        """A named style of another model gets the theta that this model has for it."""
        if target.theta:
            if (
                len(target.theta) != self.nets.config.theta
                or len(target.eta) != self.nets.config.eta
            ):
                raise InputError(
                    f'the target {target.name} has theta and eta of another model: encode it again'
                )
            return target
        for fields in self.metadata.get('styles', []):
            if (fields['name'], fields['contrast']) == (target.name, target.contrast):
                known = Style.from_dict(fields)
                return replace(target, theta=known.theta, eta=known.eta)
        return target

    def _settings(self, detail: str) -> dict:
        return {
            'Detail': detail,
            'Haca3Model': self.metadata.get('weights_sha256', ''),
            'Fusion': 'median' if self.fusion is None else 'network',
        }

    def fit(self, scans: Sequence[Scan]) -> None:
        """HACA3 is trained on its own, before it is used."""
        raise OptionError(
            'haca3 is trained by harmony-app BIDS OUT group --task train, not while used'
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
            'fusion': self.fusion is not None,
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
    ) -> 'Haca3':
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
        try:
            config = Haca3Config.from_dict(metadata['networks'])
            nets = Haca3Nets(config)
            network = FusionNet(config.fusion_width) if metadata['fusion'] else None
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f'{folder}/model.json does not describe HACA3 networks') from error
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


def _mean(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(np.mean(rows, axis=0).tolist())
