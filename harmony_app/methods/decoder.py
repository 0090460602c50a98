"""Methods whose networks read the contrast of a scan and decode scans to that of a target.

They differ in their networks, in which scans of a session they decode and in how a slice becomes
one of the target. The rest is here: the networks say what the target looks like; for a scan of
the target's contrast the transfer stage carries that onto the scan's own detail (DESIGN 4a), and
the decoder's image is the result for contrasts that were not acquired, or where it is asked for.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from harmony_app.engine.anatomy import Representation, fuse_volumes, represent, shown_part
from harmony_app.engine.compute import Compute
from harmony_app.errors import InputError, OptionError, ScanError
from harmony_app.imaging.profile import blend_profiles, measure_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import CONTRASTS, Harmonized, Method, Scan, Style
from harmony_app.methods.decoder_model import DecoderModel
from harmony_app.methods.registry import packaged_model
from harmony_app.nets.contrast import ContrastNets
from harmony_app.nets.fusion import FusionNet

DETAILS = ('transfer', 'decoder')
"""Where the detail of a result comes from: the scan itself, or the decoder."""


@dataclass
class Encoded:
    """What a source gives to every target: its foreground on the working grid, its theta and eta."""

    scan: Scan
    mask: np.ndarray
    representation: Representation


class DecoderMethod(DecoderModel):
    """Decoding to a target's contrast, with the transfer as the last stage.

    Parameters
    ----------
    nets : ContrastNets
        Trained networks.
    fusion : Module or None
        Trained fusion; the three orientations are fused by their median without.
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

    Attributes
    ----------
    label : str
        What the sidecar calls the method.
    encoding : type of Encoded
        What :meth:`encode` gives.
    """

    needs_training = True
    uses_site_average = True
    can_impute = True
    label: str
    encoding: type[Encoded] = Encoded

    def __init__(
        self,
        nets: ContrastNets,
        fusion: nn.Module | None,
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
        self._encoded: list[Encoded] = []

    @abstractmethod
    def fusion_for(self, contrast: str) -> FusionNet | None:
        """Fusion network for a contrast; None for the median."""

    @abstractmethod
    def volumes_of(
        self, encoded: Sequence[Encoded], target: Style
    ) -> tuple[np.ndarray, np.ndarray]:
        """The target's contrast of the sources, slice by slice in every orientation.

        Parameters
        ----------
        encoded : sequence of Encoded
            Sources, at least one.
        target : Style
            With its theta.

        Returns
        -------
        volumes : ndarray, shape (3, X, Y, Z), float32
            In the order of :data:`harmony_app.engine.slicing.ORIENTATIONS`, white-matter peak of
            the target at 1; zero outside the union.
        union : ndarray, shape (X, Y, Z), bool
            What the sources show.
        """

    def sources_of(self, scan: Scan | None, others: Sequence[Scan]) -> list[Scan]:
        """Scans of a session that are decoded together, at least one.

        One, unless a method says otherwise: the one to harmonize, or the first by contrast (in
        the order of :data:`~harmony_app.methods.base.CONTRASTS`) and name.

        Parameters
        ----------
        scan : Scan or None
            The one to harmonize; None where its contrast is to be made.
        others : sequence of Scan
            Of other contrasts.
        """
        if scan is not None:
            return [scan]
        return [min(others, key=lambda s: (CONTRASTS.index(s.contrast), s.name))]

    def attention_of(self, encoded: Sequence[Encoded], target: Style) -> dict[str, float]:
        """Weight of each source for the tables; nothing for a method without attention."""
        return {}

    def artifacts_of(self, encoded: Sequence[Encoded]) -> dict[str, tuple[float, str]]:
        """Level of artifacts of each source and what it means; nothing for a method without eta."""
        return {}

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
        found = [self.encode(scan).representation for scan in scans]
        return replace(
            style,
            theta=_mean([r.theta for r in found]),
            eta=_mean([r.eta for r in found]),
        )

    def harmonize(self, session: Sequence[Scan], target: Style) -> list[Harmonized]:
        """Bring every scan of the target's contrast to the target; impute it where there is none.

        A method that cannot impute gives nothing then. A scan is encoded once: the next target of
        the same session finds it encoded.

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
        others = [scan for scan in session if scan.contrast != target.contrast]
        if not same:
            if not self.can_impute:
                return []
            return [self._decoded(self.sources_of(None, others), target, None)]
        if self.detail == 'decoder':
            return [self._decoded(self.sources_of(s, others), target, s) for s in same]
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
        sources = self.sources_of(scan, others)
        tables = self._tables(sources, target)
        decoder, profile = None, target.profile
        if self.keep_decoder or self.decoder_profile_weight:
            decoder = self._decode(sources, target)
        if self.decoder_profile_weight:
            reached = measure_profile(decoder.data, scan.brain, scan.tissues)
            profile = blend_profiles(target.profile, reached, self.decoder_profile_weight)
        (result,) = self.transfer.harmonize([scan, *others], replace(target, profile=profile))
        settings = result.settings | self._settings('transfer', target.contrast)
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
            settings=self._settings('decoder', target.contrast),
            **tables,
        )

    def _decode(self, sources: list[Scan], target: Style) -> Volume:
        if not target.theta:
            raise InputError(
                f'the target {target.name} has no theta for {target.contrast}: give an image, '
                'a subject or a site as the target, or a style that this model encoded'
            )
        volumes, union = self.volumes_of([self.encode(scan) for scan in sources], target)
        fused = fuse_volumes(self.fusion_for(target.contrast), volumes, union, self.compute)
        return sources[0].working.with_data(fused)

    def _tables(self, sources: list[Scan], target: Style) -> dict:
        """Theta, eta, artifacts and attention by name; a target without theta gets none."""
        encoded = [self.encode(scan) for scan in sources]
        found = {source.scan.name: source.representation for source in encoded}
        theta = {name: representation.theta for name, representation in found.items()}
        eta = {name: r.eta for name, r in found.items() if r.eta}
        attention = {}
        if target.theta:
            theta['target'] = target.theta
            if eta:
                eta['target'] = target.eta
            attention = self.attention_of(encoded, target)
        artifacts = self.artifacts_of(encoded)
        return {'theta': theta, 'eta': eta, 'artifacts': artifacts, 'attention': attention}

    def encode(self, scan: Scan) -> Encoded:
        """A scan with its theta; the same again until another session comes."""
        for encoded in self._encoded:
            if encoded.scan is scan:
                return encoded
        mask = shown_part(scan.working)
        if not mask.any():
            raise ScanError(f'{scan.name} shows nothing on the working grid; leave it out')
        representation = represent(self.nets, scan.working.data, mask, self.compute)
        encoded = self.encoding(scan, mask, representation)
        self._encoded.append(encoded)
        return encoded

    def _keep_only(self, session: Sequence[Scan]) -> None:
        """Let go of scans of other sessions."""
        self._encoded = [e for e in self._encoded if any(e.scan is scan for scan in session)]

    def _with_theta(self, target: Style) -> Style:
        """A named style of another model gets the theta that this model has for it."""
        if target.theta:
            config = self.nets.config
            lengths = (config.theta, getattr(config, 'eta', 0))
            if (len(target.theta), len(target.eta)) != lengths:
                raise InputError(
                    f'the target {target.name} has theta and eta of another model: encode it again'
                )
            return target
        for fields in self.metadata.get('styles', []):
            if (fields['name'], fields['contrast']) == (target.name, target.contrast):
                known = Style.from_dict(fields)
                return replace(target, theta=known.theta, eta=known.eta)
        return target

    def _settings(self, detail: str, contrast: str) -> dict:
        return {
            'Detail': detail,
            f'{self.label}Model': self.metadata.get('weights_sha256', ''),
            'Fusion': 'median' if self.fusion_for(contrast) is None else 'network',
        }


def _mean(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(np.mean(rows, axis=0).tolist())
