"""What of the transfer network matters: one thing changed at a time, short trainings.

``python -m benchmarks.ablation OUT --heads HEADS --real REAL --real-pairs CACHE`` trains every
variant from scratch with one seed and one number of steps, and writes ``ablation.tsv`` and
``ablation.md``: PSNR and SSIM in the brain on the held-out heads, and, on pairs of real scans of
people that are not in REAL, the share of the distance of the tissue levels that the network alone
closes, before the curve that calibrates a result. The same call continues what was interrupted.

Where the network is given the scan after the map of its tissue levels, that map closes the
distance of real scans by itself. So whatever is about real scans is ablated without it.
"""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.preprocessed import ordered_pairs
from benchmarks.tables import to_markdown
from harmony_app.errors import InputError
from harmony_app.imaging.curves import apply_curve, calibration_curve
from harmony_app.imaging.profile import TissueProfile, measure_profile_coarse
from harmony_app.methods.transfer import Transfer
from harmony_app.methods.transfer_features import CONDITION, condition_vector, volume_features
from harmony_app.nets.bilateral import TransferConfig, TransferNetwork
from harmony_app.training.heads import split_heads
from harmony_app.training.loop import Loop
from harmony_app.training.script import run_script
from harmony_app.training.subjects import Subject, draw_pool, halve, plain_subject
from harmony_app.training.transfer import (
    CHECKS,
    LOOP,
    TransferTraining,
    cube_ssim,
    load_real,
    transferred,
)
from harmony_app.training.transfer_draws import Example, RealScan, TransferDraws
from harmony_app.training.transfer_settings import DrawSettings, LossSettings
from harmony_app.workflows.harmonizing import load_scans
from harmony_app.workflows.records import Record

logger = logging.getLogger(__name__)

CUBE = 4
"""Edge in voxels of 2 mm of the cubes on which SSIM is taken."""

APART = 0.05
"""Distance of the levels of two real scans under which they count as alike."""

DRAWS = DrawSettings(cube=CUBE)
CONFIG = TransferConfig(condition=CONDITION)
BARE = replace(CONFIG, base=False)


@dataclass(frozen=True)
class Variant:
    """A training that differs from the first one in what is named.

    Parameters
    ----------
    change : str
        In words.
    network : TransferConfig
    draws : DrawSettings
    loss : LossSettings
    real : bool
        Whether real scans are drawn, too.
    length : float
        Factor on the number of steps.
    """

    change: str
    network: TransferConfig = CONFIG
    draws: DrawSettings = DRAWS
    loss: LossSettings = LossSettings()
    real: bool = True
    length: float = 1.0


VARIANTS = {
    'reference': Variant('cells of 8 mm, 16 bins, L1 on cubes of 4 voxels of 2 mm'),
    'points': Variant('L1 on single voxels, as the packaged model', draws=DrawSettings()),
    'cell16': Variant('cells of 16 mm', replace(CONFIG, cell=16)),
    'bins8': Variant('8 bins', replace(CONFIG, bins=8)),
    'ssim': Variant('L1 + 0.1 (1 - SSIM)', loss=LossSettings(structure=0.1)),
    'bare': Variant('the scan itself, not its map of levels', BARE),
    'bare_plain': Variant(
        'the scan itself; no class factors, no monotone maps',
        BARE,
        replace(DRAWS, factors=False, curves=False),
    ),
    'bare_phantom': Variant('the scan itself; no real scans in training', BARE, real=False),
    'bare_labels': Variant(
        'the scan itself; styles off true labels', BARE, replace(DRAWS, labels=True)
    ),
    'no_style': Variant('the network is told no style', replace(CONFIG, style=False)),
    'guide': Variant('learned places of the bins', replace(CONFIG, guide=True)),
    'bins32': Variant('32 bins', replace(CONFIG, bins=32)),
    'scales': Variant('L1 + L1 of means over 2 and 4 voxels', loss=LossSettings(scales=1.0)),
    'brain1': Variant('brain weighted as the rest', loss=LossSettings(brain=1.0)),
    'rough': Variant('no smoothness of the grid', loss=LossSettings(smoothness=0.0)),
    'cell32': Variant('cells of 32 mm', replace(CONFIG, cell=32)),
    'longer': Variant('twice the steps', length=2.0),
    'cell4': Variant('cells of 4 mm', replace(CONFIG, cell=4)),
}  # fmt: skip
"""Variants by name, the most telling first."""


class Remembered:
    """Examples drawn once for all variants that draw the same.

    Parameters
    ----------
    source : object
        ``draw(rng)`` gives an example.
    """

    def __init__(self, source: object):
        self.source, self.known = source, {}

    def draw(self, rng: np.random.Generator) -> Example:
        """Example of the state of a generator, which stays where it is."""
        key = str(rng.bit_generator.state)
        if key not in self.known:
            self.known[key] = self.source.draw(rng)
        return self.known[key]


@dataclass(frozen=True)
class Judge:
    """A real scan at 2 mm with its measured style."""

    name: str
    scan: RealScan
    profile: TissueProfile
    near: np.ndarray


def load_judges(cache: Path, trained: Sequence[str]) -> list[Judge]:
    """Preprocessed scans (:mod:`benchmarks.preprocessed`) of people that were not trained on.

    Parameters
    ----------
    cache : Path
        Records of the scans.
    trained : sequence of str
        Labels of people to leave out, as ``sub-01``.

    Raises
    ------
    InputError
        Where there is none.
    """
    from scipy import ndimage

    judges = []
    for finished in sorted(cache.glob('*_finished.npz')):
        name = finished.name.removesuffix('_finished.npz')
        person, *rest = name.split('_')
        if person in trained or Record(finished).failure:
            continue
        session = rest[0] if rest[0].startswith('ses-') else 'ses-None'
        (scan,) = load_scans(
            [cache / f'{name}_prepared.npz'],
            [finished],
            [cache / f'{person}_{session}_aligned.npz'],
        )
        data = np.clip(255 * halve(scan.working.data[None])[0].numpy(), 0, 6)
        brain = halve(255 * scan.brain[None].astype(np.uint8))[0].numpy() > 0.99
        tissues = halve(scan.tissues).numpy()
        real = RealScan(scan.contrast, data, brain, tissues)
        profile = measure_profile_coarse(data, brain, tissues)
        near = ndimage.binary_dilation(brain, iterations=3) & (data > 0)
        judges.append(Judge(name, real, profile, near))
    if not judges:
        raise InputError(
            f'--real-pairs {cache}: no preprocessed scan of other people than those of --real; '
            'it is the folder cache in OUT of benchmarks.real_pairs'
        )
    return judges


@torch.inference_mode()
def judge(network: TransferNetwork, source: Judge, target: Judge) -> dict:
    """Distance of the tissue levels of two real scans, before and after the network alone."""
    scan = source.scan
    data = torch.from_numpy(scan.data)
    index = np.argwhere(source.near)
    values = data[tuple(index.T)]
    base = apply_curve(values.numpy(), calibration_curve(source.profile, target.profile))
    brain = torch.from_numpy(scan.brain)
    example = Example(
        features=volume_features(data, brain, torch.from_numpy(scan.tissues), 2),
        condition=condition_vector(source.profile, target.profile, scan.contrast),
        points=torch.from_numpy(index).float() * 2 + 0.5,
        source=values,
        base=torch.from_numpy(base),
        truth=values,
        scale=1.0,
        inside=brain[tuple(index.T)],
    )
    result = scan.data.copy()
    result[source.near] = transferred(network, example, 'cpu')[1].numpy()
    before = source.profile.distance(target.profile, 'levels')
    try:
        reached = measure_profile_coarse(result, scan.brain, scan.tissues)
        after = reached.distance(target.profile, 'levels')
    except ValueError:
        after = float('nan')  # a tissue went black: counted as farther, not left out
    return {
        'contrast': scan.contrast,
        'source': source.name,
        'target': target.name,
        'before': before,
        'after': after,
        'closed': (before - after) / before,
    }


def judge_pairs(network: TransferNetwork, judges: Sequence[Judge]) -> pd.DataFrame:
    """:func:`judge` of every ordered pair of one contrast."""
    pairs = [(a, b) for a, b in ordered_pairs(judges) if a.scan.contrast == b.scan.contrast]
    return pd.DataFrame([judge(network, *pair) for pair in pairs])


@torch.inference_mode()
def measure(network: TransferNetwork, examples: Sequence[Example]) -> pd.DataFrame:
    """PSNR in dB and SSIM of cubes in the brain, before and after; a row for each example."""
    found = []
    for example in examples:
        truth, inside = example.truth / example.scale, example.inside
        whole = inside.reshape(-1, CUBE**3).all(1)
        row = []
        for image in (example.source, transferred(network, example, 'cpu')[1]):
            image = image / example.scale
            error = float((image - truth)[inside].square().mean())
            similar = cube_ssim(image, truth, CUBE)[whole].mean()
            row += [-10 * np.log10(error + 1e-9), float(similar)]
        found.append(row)
    return pd.DataFrame(found, columns=['psnr_before', 'ssim_before', 'psnr', 'ssim'])


class Ablation:
    """Trains and measures variants on shared subjects.

    Parameters
    ----------
    out, heads : Path
        Results, and heads of :mod:`harmony_app.training.heads`.
    real, cache : Path, optional
        Real scans to train on, and records of those to judge by.
    steps, batch, subjects, seed : int
        Of each training; subjects of each head.
    """

    def __init__(
        self,
        out: Path,
        heads: Path,
        real: Path | None = None,
        cache: Path | None = None,
        steps: int = 150,
        batch: int = 2,
        subjects: int = 3,
        seed: int = 1,
    ):
        self.out, self.steps = Path(out), steps
        self.settings = replace(
            LOOP, steps=steps, batch=batch, seed=seed, validation_steps=max(1, steps // 3)
        )
        self.heads, held_out = split_heads(heads, seed)
        self.subjects = subjects
        self.real = load_real(real) if real else []
        people = {path.name.split('_')[0] for path in real.glob('*.npz')} if real else ()
        self.judges = load_judges(cache, people) if cache else []
        plain = [plain_subject(head) for head in held_out]
        self.check = Remembered(TransferDraws(plain, settings=DRAWS))

    @cached_property
    def pool(self) -> list[Subject]:
        """Subjects of all variants."""
        return draw_pool(self.heads, self.subjects, self.settings.seed)

    @cached_property
    def shared(self) -> Remembered:
        """Draws of all variants that draw as the first one."""
        return Remembered(TransferDraws(self.pool, self.real, settings=DRAWS))

    def train(self, name: str) -> TransferNetwork:
        """Averaged network of a variant at the end of its training."""
        variant = VARIANTS[name]
        training = TransferTraining(
            None,
            self.check,
            seed=self.settings.seed,
            config=variant.network,
            weights=variant.loss,
        )
        settings = replace(self.settings, steps=round(variant.length * self.steps))
        loop = Loop(training, settings, self.out / name)
        loop.resume()
        if loop.done() < 1:
            training.source = self._source(variant)
            if loop.run().stopped:
                raise KeyboardInterrupt(f'{name} was stopped; the same call continues')
        return loop.average.eval()

    def _source(self, variant: Variant) -> object:
        if variant.draws == DRAWS and variant.real:
            return self.shared
        real = self.real if variant.real else ()
        return TransferDraws(self.pool, real, settings=variant.draws)

    def row(self, name: str, change: str, network: TransferNetwork) -> dict:
        """Row of the table; examples and pairs of real scans go to tables of their own."""
        checks = [self.check.draw(np.random.default_rng([9000, i])) for i in range(CHECKS)]
        measured = measure(network, checks)
        tables = self.out / 'tables'
        tables.mkdir(parents=True, exist_ok=True)
        measured.to_csv(tables / f'examples_{name}.tsv', sep='\t', index=False)
        row = {'variant': name, 'change': change} | measured.mean().to_dict()
        if self.judges:
            pairs = judge_pairs(network, self.judges)
            pairs.to_csv(tables / f'pairs_{name}.tsv', sep='\t', index=False)
            # two scans that all but agree have no distance to close
            apart = pairs[pairs.before > APART]
            row |= {
                'closed': apart.closed.median(),
                'half_closed': (apart.closed >= 0.5).mean(),
                'farther': int((~(apart.after <= apart.before)).sum()),
                'pairs': len(apart),
                'distance_before': pairs.before.mean(),
                'distance': pairs.after.mean(),
            }
        return row

    def compared(self, rows: Sequence[dict]) -> pd.DataFrame:
        """Rows with their difference in PSNR from the first variant, and its standard error."""

        def of(name):
            return pd.read_csv(self.out / 'tables' / f'examples_{name}.tsv', sep='\t').psnr

        table = pd.DataFrame(rows)
        names = list(table.variant)
        first = next((name for name in VARIANTS if name in names), names[0])
        change = [of(name) - of(first) for name in names]
        table.insert(5, 'more', [c.mean() for c in change])
        table.insert(6, 'more_error', [c.sem() for c in change])
        return table

    def run(self, names: Sequence[str], packaged: Path | None = None) -> pd.DataFrame:
        """Every variant that has no result yet; the table of all that have one."""
        todo = {'untrained': ('map of the levels alone', lambda: TransferNetwork(CONFIG).eval())}
        if packaged:
            todo['packaged'] = (
                'the packaged model, by the same measure',
                lambda: Transfer.load(packaged).network,
            )
        for name in names:
            todo[name] = VARIANTS[name].change, lambda name=name: self.train(name)
        results = self.out / 'results'
        results.mkdir(parents=True, exist_ok=True)
        rows = []
        for name, (change, make) in todo.items():
            path = results / f'{name}.json'
            if not path.exists():
                start = time.monotonic()
                row = self.row(name, change, make())
                path.write_text(json.dumps(row) + '\n')
                logger.info('%s: %.0f s: %s', name, time.monotonic() - start, row)
            rows.append(json.loads(path.read_text()))
            table = self.compared(rows)
            table.to_csv(self.out / 'ablation.tsv', sep='\t', index=False)
            (self.out / 'ablation.md').write_text(to_markdown(table) + '\n')
        return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path)
    parser.add_argument('--heads', type=Path, required=True, help='folder of the heads')
    parser.add_argument('--real', type=Path, help='folder of real scans to train on')
    parser.add_argument('--real-pairs', type=Path, help='records of preprocessed real scans')
    parser.add_argument('--packaged', type=Path, help='model folder to measure beside them')
    parser.add_argument('--steps', type=int, default=150)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--subjects-per-head', type=int, default=3)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--variants', help='names, with commas between; all where absent')
    options = parser.parse_args(arguments)
    names = options.variants.split(',') if options.variants else list(VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        parser.error(f'unknown variants {", ".join(unknown)}; known: {", ".join(VARIANTS)}')
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    ablation = Ablation(
        options.out,
        options.heads,
        options.real,
        options.real_pairs,
        options.steps,
        options.batch,
        options.subjects_per_head,
        options.seed,
    )
    print(to_markdown(ablation.run(names, options.packaged)))


if __name__ == '__main__':
    run_script(main)
