"""Fit how eta is read, on whole scans: ``python -m harmony_app.training.eta_head``.

``--heads DIR --model BEFORE --out AFTER``. Only the last layers of the artifact encoder learn;
its convolutions, and all other networks, stay as they are. So each slice is seen by the
convolutions once. Also measures the scale that turns eta into ``good``, ``doubtful`` or ``poor``.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from harmony_app.errors import OptionError
from harmony_app.methods.artifact_scale import ArtifactScale
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.haca3 import Haca3
from harmony_app.nets.encoders import EtaEncoder
from harmony_app.training import losses
from harmony_app.training.haca3_validation import rank
from harmony_app.training.heads import Head, split_heads
from harmony_app.training.script import run_script
from harmony_app.training.slice_batch import Batch
from harmony_app.training.slices import SliceSampler
from harmony_app.training.spoiled_volumes import SpoiledSlices, VolumeSampler

logger = logging.getLogger('harmony_app')

ABOUT_HALF = (0.4, 0.6)
"""Severities of the scans whose median is where ``poor`` begins."""


@dataclass(frozen=True)
class HeadSettings:
    """How the last layers are fitted.

    Parameters
    ----------
    steps : int
    scans, slices : int
        Scans of a step, each with all its versions, and examples of single slices.
    rate, decay : float
        Of AdamW; the rate falls by a cosine.
    dropout : float
        Share of the statistics that a step does not see.
    alone : float
        Weight of slices of a scan taken one by one, beside their mean.
    flat : float
        Weight of slices that were spoiled by themselves.
    """

    steps: int = 2000
    scans: int = 8
    slices: int = 8
    rate: float = 5e-3
    decay: float = 1e-2
    dropout: float = 0.1
    alone: float = 0.3
    flat: float = 0.5


@dataclass(frozen=True)
class Pooled:
    """What the convolutions of eta made of one scan and its versions.

    Parameters
    ----------
    contrast : str
    kinds : tuple of str, length V
    severity : Tensor, shape (V,)
    statistics : Tensor, shape (V, N, F)
        Of N slices of every version.
    """

    contrast: str
    kinds: tuple[str, ...]
    severity: torch.Tensor
    statistics: torch.Tensor


@torch.no_grad()
def pool_scan(eta: EtaEncoder, scan: SpoiledSlices) -> Pooled:
    """Statistics of every slice of a scan, in the order of its orientations."""
    parts = []
    for images, views in zip(scan.images, scan.views, strict=True):
        given = torch.from_numpy(images).float()
        view = torch.from_numpy(views).float()[:, None]
        parts.append(torch.stack([eta.pool(version[:, None], view) for version in given]))
    severity = torch.from_numpy(scan.severity)
    return Pooled(scan.contrast, scan.kinds, severity, torch.cat(parts, dim=1))


@torch.no_grad()
def pool_slices(eta: EtaEncoder, batch: Batch) -> dict[str, torch.Tensor]:
    """Statistics of the slices of a batch of one example, with their severities, by name."""
    views = torch.cat([batch.views[:, :2].flatten(0, 1)[:, None], *[batch.views[:, 2:]] * 3])
    images = [batch.sources.flatten(0, 1)[:, None], batch.clean, batch.mild, batch.severe]
    return {
        'statistics': eta.pool(torch.cat(images), views),
        'severity': batch.severity[0],
        'source_severity': batch.source_severity[0],
    }


def scan_loss(eta: EtaEncoder, scans: Sequence[Pooled], settings: HeadSettings) -> torch.Tensor:
    """Contrast, grade and rank of whole scans, the eta of each the mean over its slices.

    Between the versions of a scan the contrastive loss of :func:`harmony_app.training.losses.
    severity_loss`; over all scans of a step length by severity, and the order of each pair.
    Scans of one number of versions and slices.
    """
    found = _read(eta, torch.stack([scan.statistics for scan in scans]), settings.dropout)
    severity = torch.stack([scan.severity for scan in scans])
    whole = found.mean(2)
    length = whole.norm(dim=2).flatten()
    graded = (length - severity.flatten()).abs().mean()
    alone = (found.norm(dim=3) - severity[:, :, None]).abs().mean()
    mild, severe = whole[:, 1::2].flatten(0, 1), whole[:, 2::2].flatten(0, 1)
    pairs = severity[:, 1:].reshape(-1, 2)
    clean = whole[:, :1].expand(-1, whole.shape[1] // 2, -1).flatten(0, 1)
    contrast = losses.severity_loss(clean, mild, severe, pairs)
    ranked = losses.ranking_loss(length, severity.flatten())
    return graded + ranked + 0.2 * contrast + settings.alone * alone


def slice_loss(eta: EtaEncoder, slices: Sequence[dict], dropout: float) -> torch.Tensor:
    """As in the training of all networks, on slices that were spoiled by themselves."""
    found = _read(eta, torch.stack([one['statistics'] for one in slices]), dropout)
    severity = torch.stack([one['severity'] for one in slices])
    sources = torch.stack([one['source_severity'] for one in slices])
    return losses.severity_loss(found[:, 2], found[:, 3], found[:, 4], severity) + (
        losses.graded_loss(found[:, :2].flatten(0, 1), sources.flatten())
    )


def fit_head(
    eta: EtaEncoder,
    scans: Sequence[Pooled],
    slices: Sequence[dict],
    settings: HeadSettings,
    seed: int = 1,
) -> None:
    """Fit the last layers, begun anew, to statistics of slices.

    Parameters
    ----------
    eta : EtaEncoder
        Its ``head`` is changed.
    scans : sequence of Pooled
    slices : sequence of dict
        Of :func:`pool_slices`; may be empty.
    settings : HeadSettings
    seed : int
        Of the weights and of the order.

    Raises
    ------
    ValueError
        Where there is no scan with an artifact.
    """
    if not any(len(scan.severity) > 2 for scan in scans):
        raise ValueError('eta learns from scans with artifacts: draw some')
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in eta.head:
            if hasattr(layer, 'reset_parameters'):
                layer.reset_parameters()
        optimizer = torch.optim.AdamW(
            eta.head.parameters(), settings.rate, weight_decay=settings.decay
        )
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group['lr'] = settings.rate * 0.5 * (1 + np.cos(np.pi * step / settings.steps))
            loss = scan_loss(eta, _some(scans, settings.scans, rng), settings)
            if slices:
                own = slice_loss(eta, _some(slices, settings.slices, rng), settings.dropout)
                loss = loss + settings.flat * 0.2 * own
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 500 == 499:
                logger.info('step %d: loss %.3f', step + 1, loss.item())


@torch.no_grad()
def scan_lengths(eta: EtaEncoder, scans: Sequence[Pooled]) -> list[tuple[str, str, float, float]]:
    """Contrast, artifact, severity and length of eta of every version of scans."""
    return [
        (scan.contrast, kind, float(severity), float(length))
        for scan in scans
        for kind, severity, length in zip(
            scan.kinds,
            scan.severity,
            eta.read(scan.statistics).mean(1).norm(dim=1),
            strict=True,
        )
    ]


def measure_scale(rows: Sequence[tuple[str, str, float, float]]) -> ArtifactScale:
    """Scale from what :func:`scan_lengths` gave, see :meth:`ArtifactScale.measured`."""
    unspoiled = {
        contrast: [row[3] for row in rows if row[0] == contrast and row[1] == 'none']
        for contrast in CONTRASTS
    }
    low, high = ABOUT_HALF
    return ArtifactScale.measured(
        unspoiled, [(row[0], row[3]) for row in rows if low <= row[2] <= high]
    )


def rank_scans(
    rows: Sequence[tuple[str, str, float, float]], scale: ArtifactScale
) -> dict[str, float]:
    """Rank correlation of level and severity, over all scans and by artifact (unspoiled with each)."""
    levels = [max(0.0, row[3] - scale.unspoiled[row[0]]) for row in rows]
    result = {'all': rank([row[2] for row in rows], levels)}
    for kind in sorted({row[1] for row in rows} - {'none'}):
        own = [i for i, row in enumerate(rows) if row[1] in (kind, 'none')]
        result[kind] = rank([rows[i][2] for i in own], [levels[i] for i in own])
    return result


def draw_scans(
    eta: EtaEncoder, heads: Sequence[Head], count: int, seed: int, slices: int = 3
) -> list[Pooled]:
    """Statistics of simulated scans, each as it is and with three artifacts at two severities."""
    sampler, scans = VolumeSampler(heads, slices, 3), []
    for number in range(count):
        scans.append(pool_scan(eta, sampler.draw(np.random.default_rng([seed, number]))))
        if number % 20 == 19:
            logger.info('%d of %d scans', number + 1, count)
    return scans


def _some(given: Sequence, count: int, rng: np.random.Generator) -> list:
    return [given[i] for i in rng.choice(len(given), min(count, len(given)), replace=False)]


def _read(eta: EtaEncoder, statistics: torch.Tensor, dropout: float) -> torch.Tensor:
    """Eta, some of the normalised statistics left out."""
    normalised = functional.dropout(eta.head[0](statistics), dropout)
    return eta.head[1:](normalised).abs()


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: fit eta's last layers and measure the scale, in a copy of a model folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--model', type=Path, required=True, help='model folder of haca3')
    parser.add_argument('--out', type=Path, required=True, help='model folder to write')
    parser.add_argument('--scans', type=int, default=200, help='scans to learn from')
    parser.add_argument('--slices', type=int, default=800, help='single slices to learn from')
    parser.add_argument('--check', type=int, default=24, help='scans of held-out heads')
    parser.add_argument('--seed', type=int, default=7)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    method = Haca3.load(options.model)
    eta, settings, seed = method.nets.eta, HeadSettings(), options.seed
    heads, held_out = split_heads(options.heads)
    scans = draw_scans(eta, heads, options.scans, seed)
    if missing := set(CONTRASTS) - {scan.contrast for scan in scans}:
        raise OptionError(
            f'--scans {options.scans}: too few, there is no {", ".join(sorted(missing))} among them'
        )
    sampler = SliceSampler(heads)
    slices = [
        pool_slices(eta, sampler.draw(np.random.default_rng([seed, 1, number])))
        for number in range(options.slices)
    ]
    fit_head(eta, scans, slices, settings, seed)
    scale = measure_scale(scan_lengths(eta, scans))
    fitted = {'scans': len(scans), 'slices': len(slices), 'seed': seed} | asdict(settings)
    if held_out:
        checks = scan_lengths(eta, draw_scans(eta, held_out, options.check, seed + 1, 8))
        fitted['held_out_spearman'] = rank_scans(checks, scale)
        print(json.dumps(fitted['held_out_spearman'], indent=2))  # noqa: T201
    method.metadata = method.metadata | {'eta_head': fitted, 'artifact_scale': scale.to_dict()}
    method.save(options.out)


if __name__ == '__main__':
    run_script(main)
