"""Real scans as judges: does harmonizing one to another bring its tissue profile nearer?

``python -m benchmarks.real_pairs BIDS OUT --method transfer`` harmonizes every ordered pair
of scans of one contrast and writes ``real_pairs_METHOD.tsv`` and a picture per contrast.
Three distances of source and target, before and after, each of GM, WM and CSF together:

- ``medians``: medians under the registered maps, in units of the target's white-matter peak,
  which is the unit that a harmonized image is written in;
- ``medians_again``: the same after the white-matter peak of the result was measured again;
- ``levels``: levels of the profile (:mod:`harmony_app.imaging.profile`), peak measured again.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.preprocessed import Preprocessed, ordered_pairs
from benchmarks.tables import to_markdown
from harmony_app.evaluation.metrics import histogram_distance, ssim
from harmony_app.imaging.edges import edge_agreement
from harmony_app.imaging.intensity import white_matter_peak
from harmony_app.imaging.profile import measure_profile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import CONTRASTS, Scan
from harmony_app.methods.registry import get_method
from harmony_app.reports.figure import mosaic
from harmony_app.training.script import run_script


def compare(source: Scan, target: Scan, method) -> tuple[dict, np.ndarray]:
    """Harmonize one scan to another; the row of the table and the result."""
    style = method.encode_target([target], target.name)
    # judged on the working grid: a corner stands for the native one, and costs nothing
    corner = Volume(source.native.data[:2, :2, :2], source.native.affine)
    (result,) = method.harmonize([replace(source, native=corner)], style)
    data = result.working.data
    peak = white_matter_peak(data, source.brain, source.tissues)
    reached = measure_profile(data, source.brain, source.tissues)
    again = measure_profile(data / np.float32(peak), source.brain, source.tissues)
    row = {
        'contrast': source.contrast,
        'source': source.name,
        'target': target.name,
        'wm_peak_after': peak,
    }
    for name, measure, after in (
        ('medians', 'medians', reached),
        ('medians_again', 'medians', again),
        ('levels', 'levels', again),
    ):
        before = source.profile.distance(target.profile, measure)
        left = after.distance(target.profile, measure)
        row |= {f'{name}_before': before, f'{name}_after': left}
        row[f'{name}_closed'] = (before - left) / before if before else np.nan
    row |= {
        'histogram_before': histogram_distance(
            source.working.data, target.working.data, source.brain, target.brain
        ),
        'histogram_after': histogram_distance(
            data, target.working.data, source.brain, target.brain
        ),
        'edge_agreement': edge_agreement(source.working.data, data, source.brain),
    }
    if person_of(source) == person_of(target):
        brain, goal = source.brain & target.brain, target.working.data
        span = float(np.percentile(goal[brain], 99.5))
        for name, image in (
            ('before', source.working.data),
            ('after', data),
            ('fitted', fitted_map(source.working.data, goal, brain)),
        ):
            row[f'ssim_{name}'] = ssim(image, goal, brain, span)
    return row, data


def person_of(scan: Scan) -> str:
    """Label of the person."""
    return scan.name.split('_')[0]


def fitted_map(source: np.ndarray, target: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The source under the map of intensity that is fitted to the target itself.

    Mean of the target in each of 256 quantiles of the source: no map of intensity alone comes
    nearer in the mean square.
    """
    edges = np.unique(np.quantile(source[brain], np.linspace(0, 1, 257)))
    index = np.clip(np.searchsorted(edges, source) - 1, 0, len(edges) - 2)
    counts = np.bincount(index[brain], minlength=len(edges) - 1)
    sums = np.bincount(index[brain], target[brain], len(edges) - 1)
    means = (sums / np.maximum(counts, 1)).astype(np.float32)
    return np.where(brain, means[index], 0)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """By contrast: pairs, how many of them are half and three quarters closed, medians over pairs."""
    rows = []
    for contrast, part in [*table.groupby('contrast'), ('all', table)]:
        row = {'contrast': contrast, 'pairs': len(part)}
        for name in ('medians', 'medians_again', 'levels'):
            for share in (50, 75):
                row[f'{name}: {share} % closed'] = (part[f'{name}_closed'] >= share / 100).mean()
            row[f'{name}: closed (median)'] = part[f'{name}_closed'].median()
        row |= {
            f'{name}: farther': int((part[f'{name}_after'] > part[f'{name}_before']).sum())
            for name in ('medians', 'levels')
        }
        row |= {
            'histogram before': part.histogram_before.median(),
            'histogram after': part.histogram_after.median(),
            'edge agreement': part.edge_agreement.median(),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('bids', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--method', default='transfer')
    parser.add_argument('--model', type=Path)
    parser.add_argument('--contrasts', nargs='+', default=CONTRASTS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    data = Preprocessed(options.bids, options.out / 'cache', super_resolution='auto')
    method = get_method(options.method, options.model)
    rows = []
    for contrast in options.contrasts:
        scans = [data.load(s) for s in data.inputs if s.contrast == contrast]
        pictures: dict[str, list] = {}
        for source, target in ordered_pairs(scans):
            row, result = compare(source, target, method)
            rows.append(row)
            pictures.setdefault(source.name, [source.working]).append(
                source.working.with_data(result)
            )
        if pictures:
            titles = ['before'] + [f'to another {i + 1}' for i in range(len(scans) - 1)]
            mosaic(
                options.out / f'real_pairs_{options.method}_{contrast}.png',
                list(pictures.items()),
                titles,
            )
    table = pd.DataFrame(rows)
    own = table.columns[table.columns.str.startswith(('contrast', 'source', 'target', 'ssim_'))]
    own = [*own, 'histogram_before', 'histogram_after']
    same = table.dropna(subset=['ssim_after'])[own] if 'ssim_after' in table else None
    table.to_csv(options.out / f'real_pairs_{options.method}.tsv', sep='\t', index=False)
    summary = summarize(table)
    summary.to_csv(options.out / f'real_pairs_{options.method}_summary.tsv', sep='\t', index=False)
    print(to_markdown(summary))
    if same is not None and len(same):
        print('\nScans of one person (ssim_fitted: by a map fitted to the target itself):\n')
        print(to_markdown(same))


if __name__ == '__main__':
    run_script(main)
