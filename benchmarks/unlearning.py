"""What the site-unlearning module of ImUnity takes from the latent, and what it leaves.

``python -m benchmarks.unlearning OUT --heads DIR --on MODEL --off MODEL`` takes two models of ImUnity,
one trained with the module and one without (``--confusion 0``), and heads that neither has seen.
People are drawn of the heads, half of them with planted atrophy, and each is scanned at all sites that
models are trained on. Then a logistic regression that never sees the people it is tested on is
to tell the site of a scan, and in the second place whether there is atrophy. It is given

- ``scan``: intensities of the scans, what is there before;
- ``latent``: means and spreads of the channels of the latent;
- ``image``: intensities of the scans brought to one target.

ImUnity (Cackowski 2023, sections 2.4.2 and 2.4.3) claims that the site is told less well after it and
what is biological no worse. With ``--dlest MODEL`` the same is asked of the codes and images of
DLEST. Rows go to ``OUT/unlearning.tsv`` with a data dictionary.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.columns import write_rows
from benchmarks.tables import to_markdown
from harmony_app.errors import OptionError
from harmony_app.evaluation.site_classification import classify_sites
from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.dlest import Dlest
from harmony_app.methods.imunity import ImUnity
from harmony_app.nets.dlest import DlestNets
from harmony_app.nets.imunity import CELL, ImUnityNets
from harmony_app.nets.masked import masked_statistics, pool_mask
from harmony_app.phantom.anatomy import Anatomy
from harmony_app.phantom.atrophy import apply_atrophy
from harmony_app.phantom.sites import Site
from harmony_app.training.heads import TEST, Head, load_heads
from harmony_app.training.imunity_draws import training_sites
from harmony_app.training.script import run_script
from harmony_app.training.slices import SliceDraw, SliceSampler, draw_look, silhouette_of

logger = logging.getLogger(__name__)

COLUMNS = {
    'model': 'Model: on with the module of sites, off without, dlest; none for the scans themselves',
    'features': 'What the classifier is given: scan, latent or image',
    'site_accuracy': 'Balanced accuracy of the site of a scan',
    'site_chance': 'The same of guessing',
    'site_auc': 'Area under the ROC curve of a site against the rest, mean over sites',
    'atrophy_auc': 'Area under the ROC curve of planted atrophy',
    'people': 'People',
    'scans': 'Scans',
}

GROUPS = ('control', 'atrophy')


@dataclass(frozen=True)
class Scanned:
    """Slices of one person at one site.

    Parameters
    ----------
    person, site, group : str
        Who, where, and one of :data:`GROUPS`.
    images, masks : Tensor, shape (K, 1, H, W)
        Slices as scanned, zero outside of the head, and the head.
    """

    person: str
    site: str
    group: str
    images: torch.Tensor
    masks: torch.Tensor


def with_atrophy(head: Head, loss: float) -> Head:
    """A head that has lost a share of its brain volume."""
    whole = torch.from_numpy(np.array(head.fractions, np.float32)) / 255
    fractions = apply_atrophy(Anatomy(whole, WORKING_AFFINE), loss).fractions
    return replace(head, fractions=(fractions * 255).round().clamp(0, 255).byte().numpy())


def scan_people(
    heads: Sequence[Head],
    sites: Mapping[str, Site],
    people: int,
    *,
    loss: float = 0.06,
    slices: int = 8,
    size: int = 128,
    contrast: str = 'T1w',
    seed: int = 0,
) -> Iterator[Scanned]:
    """Scan people at all sites.

    Parameters
    ----------
    heads : sequence of Head
        That people are drawn of in turn: other slices, bent otherwise.
    sites : mapping of str to Site
    people : int
        How many; each second one has atrophy.
    loss : float
        Share of the brain volume that atrophy takes.
    slices, size : int
        Slices of a person, and their edge, a multiple of 16.
    contrast : str
        Of the scans.
    seed : int
        Of everything.

    Yields
    ------
    Scanned
        A person's scans one after the other, of the same slices.
    """
    groups = [list(heads), [with_atrophy(head, loss) for head in heads]]
    samplers = [SliceSampler(group, size, artifacts=False) for group in groups]
    for person in range(people):
        group = person % 2
        draw = SliceDraw(samplers[group], np.random.default_rng([seed, person]))
        head = person // 2 % len(heads)
        anatomy = [draw.alter(draw.tissues(head)[0]) for _ in range(slices)]
        masks = [silhouette_of(fractions) for fractions in anatomy]
        constitution = int(draw.rng.integers(2**62))
        for name, site in sites.items():
            look = draw_look(contrast, draw.rng, constitution, site.protocols[contrast])
            images = [
                draw.scan(look, look.render(fractions)) * mask
                for fractions, mask in zip(anatomy, masks, strict=True)
            ]
            yield Scanned(
                f'{person:03}',
                name,
                GROUPS[group],
                torch.from_numpy(np.stack(images).astype(np.float32))[:, None],
                torch.from_numpy(np.stack(masks).astype(np.float32))[:, None],
            )


def intensity_features(images: torch.Tensor, masks: torch.Tensor) -> np.ndarray:
    """Quantiles of intensities and of their gradients inside masks, of all slices together.

    Parameters
    ----------
    images, masks : Tensor, shape (K, 1, H, W)

    Returns
    -------
    ndarray, shape (2 x 19,)
    """
    inside = masks > 0
    shares = torch.linspace(0.05, 0.95, 19)
    steps = [torch.gradient(images, dim=axis)[0] for axis in (2, 3)]
    edges = torch.hypot(*steps)
    return torch.cat([values[inside].quantile(shares) for values in (images, edges)]).numpy()


@torch.inference_mode()
def latent_features(nets: ImUnityNets, scan: Scanned) -> np.ndarray:
    """Means and spreads of the channels of the latent, averaged over the slices."""
    latent = nets.anatomy(scan.images, scan.masks)[0]
    return masked_statistics(latent, pool_mask(scan.masks, CELL)).mean(0).numpy()


@torch.inference_mode()
def harmonized(nets: ImUnityNets, scan: Scanned, theta: torch.Tensor) -> torch.Tensor:
    """Slices (K, 1, H, W) of a scan in the contrast theta (theta,)."""
    return nets.translate(scan.images, scan.masks, theta.expand(len(scan.images), -1))


@torch.inference_mode()
def mean_theta(nets: ImUnityNets, scans: Sequence[Scanned]) -> torch.Tensor:
    """Theta of a target, averaged over the slices of some scans; shape (theta,)."""
    return torch.cat([nets.theta(scan.images, scan.masks)[0] for scan in scans]).mean(0)


def told_apart(
    features: Sequence[np.ndarray], scans: Sequence[Scanned], folds: int, seed: int
) -> dict[str, float | None]:
    """How well a logistic regression tells sites and groups of people it has not seen."""
    people = [scan.person for scan in scans]
    given = {'classifier': 'linear', 'folds': folds, 'seed': seed}
    site = classify_sites(np.stack(features), [scan.site for scan in scans], people, **given)
    group = classify_sites(np.stack(features), [scan.group for scan in scans], people, **given)
    return {
        'site_accuracy': site.balanced_accuracy,
        'site_chance': site.chance,
        'site_auc': site.auc,
        'atrophy_auc': group.auc,
        'people': len(set(people)),
        'scans': len(scans),
    }


@torch.inference_mode()
def dlest_features(nets: DlestNets, key: str, scan: Scanned) -> dict[str, np.ndarray]:
    """Means and spreads of the code of a scan, and what its image says once it is led to an energy."""
    code, cells = nets.encode(scan.images, scan.masks)
    image = nets.translate(scan.images, scan.masks, key)
    return {
        'latent': masked_statistics(code, cells).mean(0).numpy(),
        'image': intensity_features(image, scan.masks),
    }


def measure(
    models: Mapping[str, ImUnityNets],
    scans: Sequence[Scanned],
    folds: int = 5,
    seed: int = 0,
    dlest: tuple[DlestNets, str] | None = None,
) -> list[dict]:
    """Rows of the table.

    Parameters
    ----------
    models : mapping of str to ImUnityNets
        By what the table calls them.
    scans : sequence of Scanned
        Of :func:`scan_people`. All are brought to the site of the first.
    folds, seed : int
        Of the classifiers.
    dlest : tuple of DlestNets and str, optional
        Networks of DLEST, and the key of the energy that all scans are led to.
    """
    before = [intensity_features(scan.images, scan.masks) for scan in scans]
    rows = [{'model': 'none', 'features': 'scan'} | told_apart(before, scans, folds, seed)]
    for name, nets in models.items():
        theta = mean_theta(nets, [scan for scan in scans if scan.site == scans[0].site])
        given = {
            'latent': [latent_features(nets, scan) for scan in scans],
            'image': [
                intensity_features(harmonized(nets, scan, theta), scan.masks) for scan in scans
            ],
        }
        for kind, features in given.items():
            told = told_apart(features, scans, folds, seed)
            rows.append({'model': name, 'features': kind} | told)
            logger.info('%s', rows[-1])
    if dlest is not None:
        found = [dlest_features(*dlest, scan) for scan in scans]
        for kind in ('latent', 'image'):
            told = told_apart([features[kind] for features in found], scans, folds, seed)
            rows.append({'model': 'dlest', 'features': kind} | told)
    return rows


def first_energy(folder: Path, contrast: str) -> tuple[DlestNets, str]:
    """Networks of a model of DLEST, and the key of its first energy for a contrast.

    Raises
    ------
    OptionError
        Where it has none.
    """
    nets = Dlest.load(folder).nets
    keys = [key for key in nets.energies if key.startswith(f'{contrast}:')]
    if not keys:
        raise OptionError(f'{folder} has no energy for {contrast} (--dlest, --contrast)')
    return nets, keys[0]


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Command line; gives the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder of the table')
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--on', type=Path, help='model trained with the module of sites')
    parser.add_argument(
        '--off', type=Path, help='model trained without it; none is told against it else'
    )
    parser.add_argument('--dlest', type=Path, help='model of dlest, to its first target')
    parser.add_argument(
        '--names', nargs='+', default=list(TEST), help='heads that no model has seen'
    )
    parser.add_argument('--people', type=int, default=40, help='half of them with atrophy')
    parser.add_argument(
        '--loss', type=float, default=0.06, help='share of the brain that atrophy takes'
    )
    parser.add_argument('--contrast', choices=CONTRASTS, default='T1w')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    if options.people < 20:
        parser.error('--people: 20 at least, for five folds with people of both groups in each')
    if not (options.on or options.off or options.dlest):
        parser.error('a model is needed: --on, --off or --dlest')
    try:
        folders = {name: getattr(options, name) for name in ('on', 'off')}
        models = {name: ImUnity.load(folder).nets for name, folder in folders.items() if folder}
        dlest = first_energy(options.dlest, options.contrast) if options.dlest else None
        heads = load_heads(options.heads, options.names)
        scans = list(
            scan_people(
                heads,
                training_sites(),
                options.people,
                loss=options.loss,
                contrast=options.contrast,
                seed=options.seed,
            )
        )
        rows = measure(models, scans, seed=options.seed, dlest=dlest)
    except ValueError as error:
        raise OptionError(f'the heads do not serve: {error}') from error
    table = write_rows(options.out / 'unlearning.tsv', COLUMNS, rows)
    print(to_markdown(table))
    return table


if __name__ == '__main__':
    run_script(main)
