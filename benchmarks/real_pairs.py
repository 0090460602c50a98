"""Real scans as judges: does harmonizing one to another bring its tissue profile nearer?

``python -m benchmarks.real_pairs BIDS OUT --method transfer`` harmonizes every ordered pair
of scans of one contrast and writes ``real_pairs_METHOD.tsv`` and a picture per contrast.
The distance is that of the GM, WM and CSF medians under the registered maps, white-matter
peak at 1 (of the result, measured again).
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.phantom_table import to_markdown
from benchmarks.preprocessed import Preprocessed, ordered_pairs
from harmony_app.bids.filters import Selection
from harmony_app.evaluation.metrics import histogram_distance
from harmony_app.imaging.edges import edge_agreement
from harmony_app.imaging.intensity import white_matter_peak
from harmony_app.imaging.profile import measure_profile
from harmony_app.methods.base import CONTRASTS, Scan
from harmony_app.methods.registry import get_method
from harmony_app.reports.figure import mosaic

NEGLIGIBLE = 0.02
"""Profiles nearer than this before are as near as a rescan; the share closed says nothing."""


def compare(source: Scan, target: Scan, method) -> tuple[dict, np.ndarray]:
    """Harmonize one scan to another; the row of the table and the result."""
    style = method.encode_target([target], target.name)
    (result,) = method.harmonize([source], style)
    data = result.working.data
    peak = white_matter_peak(data, source.brain, source.tissues)
    reached = measure_profile(data / np.float32(peak), source.brain, source.tissues)
    before = source.profile.distance(target.profile)
    after = reached.distance(target.profile)
    row = {
        'contrast': source.contrast,
        'source': source.name,
        'target': target.name,
        'distance_before': before,
        'distance_after': after,
        'share_closed': (before - after) / before if before else np.nan,
        'wm_peak_after': peak,
        'histogram_before': histogram_distance(
            source.working.data, target.working.data, source.brain, target.brain
        ),
        'histogram_after': histogram_distance(
            data, target.working.data, source.brain, target.brain
        ),
        'edge_agreement': edge_agreement(source.working.data, data, source.brain),
    }
    return row, data


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """By contrast: how many pairs, how many at least half closed, medians."""
    table = table.assign(
        counted=table.distance_before > NEGLIGIBLE,
        half=lambda t: t.share_closed >= 0.5,
        worse=lambda t: t.distance_after > t.distance_before + 1e-6,
    )
    rows = []
    for contrast, part in [*table.groupby('contrast'), ('all', table)]:
        counted = part[part.counted]
        rows.append(
            {
                'contrast': contrast,
                'pairs': len(part),
                'pairs_apart': len(counted),
                'half_closed': counted.half.mean(),
                'half_closed_all_pairs': part.half.mean(),
                'worse': int(part.worse.sum()),
                'median_share': counted.share_closed.median(),
                'histogram_before': part.histogram_before.median(),
                'histogram_after': part.histogram_after.median(),
                'edge_agreement': part.edge_agreement.median(),
            }
        )
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
    data = Preprocessed(options.bids, options.out / 'cache', Selection())
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
    table.to_csv(options.out / f'real_pairs_{options.method}.tsv', sep='\t', index=False)
    summary = summarize(table)
    summary.to_csv(options.out / f'real_pairs_{options.method}_summary.tsv', sep='\t', index=False)
    print(to_markdown(summary))


if __name__ == '__main__':
    main()
