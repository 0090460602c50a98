"""What MISPEL makes of matched scans that it has not seen (section 2.5 of its paper).

``python -m benchmarks.matched HEADS MODEL --out OUT`` scans the test heads of the phantom at all
scanners of a model, each on the grid of its protocol, and measures every two scanners before and
after: SSIM, Dice, bias and RMSD of the volumes of GM and WM, and how well GM and WM are told apart.
Tables go to ``OUT`` with data dictionaries, with a picture of each head; the counts that the paper
is read by are printed.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.columns import write_rows
from benchmarks.tables import to_markdown
from harmony_app.evaluation.contrast import gm_wm_auroc
from harmony_app.evaluation.metrics import ssim
from harmony_app.evaluation.overlap import dice
from harmony_app.evaluation.segmentation import segment_tissues
from harmony_app.evaluation.volumes import scanner_differences
from harmony_app.imaging.intensity import white_matter_peak
from harmony_app.methods.base import Scan
from harmony_app.methods.mispel import Mispel
from harmony_app.phantom.sites import find_sites, load_sites
from harmony_app.phantom.tissues import TISSUES
from harmony_app.reports.figure import mosaic
from harmony_app.training.heads import TEST, Head, load_heads
from harmony_app.training.matched_volumes import scanned_volumes
from harmony_app.training.script import run_script
from harmony_app.workflows.evaluation_matched import matched_rows
from harmony_app.workflows.evaluation_measures import RANGE_PERCENTILE, STAGES
from harmony_app.workflows.evaluation_tables import MATCHED_COLUMNS

logger = logging.getLogger(__name__)

SURE = 0.9
"""Share of a voxel that a tissue fills, from which on the voxel is of it."""

STEP = 2
"""Edge in mm of the voxels that tissues are segmented in, as in the evaluation of a group."""

SCAN_COLUMNS = {
    'contrast': 'Contrast',
    'subject': 'Head of the phantom',
    'site': 'Scanner',
    **{
        f'gm_wm_auroc_{stage}': f'Area under the ROC curve of true GM and WM, {stage} harmonization'
        for stage in STAGES
    },
    **{
        f'{tissue}_ml_{stage}': f'Volume of {tissue.upper()} by a segmentation, ml, {stage} harmonization'
        for tissue in ('gm', 'wm')
        for stage in STAGES
    },
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('heads', type=Path, help='folder of cached heads')
    parser.add_argument('model', type=Path, help='model folder of mispel, of phantom scanners')
    parser.add_argument('--out', type=Path, required=True, help='folder of tables and pictures')
    parser.add_argument('--names', nargs='+', default=list(TEST), help='heads, two at least')
    parser.add_argument('--seed', type=int, default=13, help='of the people and the noise')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    heads = load_heads(options.heads, options.names)
    pairs, scans = measure(heads, Mispel.load(options.model), options.seed, options.out)
    write_rows(options.out / 'scans.tsv', SCAN_COLUMNS, scans)
    rows = matched_rows(pairs, scans, volume_rows(scans))
    table = write_rows(options.out / 'matched.tsv', MATCHED_COLUMNS, rows)
    for shown in (pair_table(table), site_table(scans)):
        print(to_markdown(shown) + '\n')
    print('\n'.join(counts(table, scans)))


def measure(
    heads: Sequence[Head], method: Mispel, seed: int, out: Path
) -> tuple[list[dict], list[dict]]:
    """Rows of every two scanners of a head, and of every scan.

    Parameters
    ----------
    heads : sequence of Head
    method : Mispel
        Its scanners are sites of the phantom.
    seed : int
        Of people and noise; head by head one more.
    out : Path
        Folder of the pictures.

    Returns
    -------
    pairs, scans : list of dict
        For :func:`harmony_app.workflows.evaluation_matched.matched_rows`.
    """
    pairs, rows = [], []
    config = method.nets.config
    for number, head in enumerate(heads):
        for contrast in config.contrasts:
            names = [scanner for c, scanner in config.units if c == contrast]
            sites = find_sites(names, load_sites())
            scans = scanned_volumes(head, sites, contrast, seed + number)
            images = {stage: [] for stage in STAGES}
            for scan in scans:
                images['before'].append(_scaled(scan, scan.working.data))
                images['after'].append(_scaled(scan, method.map(scan).data))
                logger.info('%s: harmonized', scan.name)
            _draw(out / f'{head.name}_{contrast}.png', scans, images)
            measured = {stage: list(_tissues(head, scans, images[stage])) for stage in STAGES}
            for index, scan in enumerate(scans):
                row = {'contrast': contrast, 'subject': head.name, 'site': scan.site}
                for stage in STAGES:
                    area, found = measured[stage][index]
                    row[f'gm_wm_auroc_{stage}'] = area
                    for tissue in ('GM', 'WM'):
                        row[f'{tissue.lower()}_ml_{stage}'] = found.volumes[tissue]
                rows.append(row)
            for i, k in combinations(range(len(scans)), 2):
                row = {'contrast': contrast, 'subject': head.name, 'kind': 'sites'}
                row |= {'site': scans[i].site, 'other_site': scans[k].site}
                for stage in STAGES:
                    both = [images[stage][j] for j in (i, k)]
                    labels = [measured[stage][j][1].labels for j in (i, k)]
                    span = float(np.percentile(both[0][scans[i].brain], RANGE_PERCENTILE))
                    row[f'ssim_{stage}'] = ssim(*both, scans[i].brain, span)
                    for value, tissue in ((1, 'gm'), (2, 'wm')):
                        row[f'{tissue}_dice_{stage}'] = dice(*(label == value for label in labels))
                pairs.append(row)
            logger.info('%s %s: measured', head.name, contrast)
    return pairs, rows


def volume_rows(scans: Sequence[dict]) -> list[dict]:
    """Bias and RMSD of GM and WM of every two scanners, as the group level tells them."""
    rows = []
    for contrast in dict.fromkeys(scan['contrast'] for scan in scans):
        own = [scan for scan in scans if scan['contrast'] == contrast]
        tables = {
            stage: scanner_differences(
                {
                    (scan['subject'], scan['site'], tissue): scan[f'{tissue.lower()}_ml_{stage}']
                    for tissue in ('GM', 'WM')
                    for scan in own
                }
            )
            for stage in STAGES
        }
        for before, after in zip(*(table.itertuples() for table in tables.values()), strict=True):
            sites = sorted((before.scanner, before.other_scanner))
            row = {'contrast': contrast, 'analysis': 'sites', 'tissue': before.tissue}
            row |= {'site': sites[0], 'other_site': sites[1]}
            for stage, found in zip(STAGES, (before, after), strict=True):
                row |= {f'bias_{stage}': found.bias, f'rmsd_{stage}': found.rmsd}
            rows.append(row)
    return rows


def pair_table(table: pd.DataFrame) -> pd.DataFrame:
    """Every two scanners, before and after in one cell."""
    shown = table[['contrast', 'site', 'other_site']].copy()
    for name, digits in (
        ('ssim', 3), ('gm_dice', 3), ('wm_dice', 3),
        ('gm_bias', 1), ('gm_rmsd', 1), ('wm_bias', 1), ('wm_rmsd', 1),
    ):  # fmt: skip
        shown[name] = [
            f'{before:.{digits}f} to {after:.{digits}f}'
            for before, after in zip(table[f'{name}_before'], table[f'{name}_after'], strict=True)
        ]
    return shown


def site_table(scans: Sequence[dict]) -> pd.DataFrame:
    """Every scanner: how well GM and WM are told apart, and their volumes."""
    table = pd.DataFrame(scans).drop(columns='subject')
    return table.groupby(['contrast', 'site'], sort=False).mean().reset_index()


def counts(table: pd.DataFrame, scans: Sequence[dict]) -> list[str]:
    """What the paper claims, counted."""
    better = table['ssim_after'] > table['ssim_before']
    lines = [f'SSIM higher in {better.sum()} of {len(table)} pairs of scanners']
    for name in ('dice', 'bias', 'rmsd'):
        sign = 1 if name == 'dice' else -1
        won = sum(
            (sign * (table[f'{tissue}_{name}_after'] - table[f'{tissue}_{name}_before']) > 0).sum()
            for tissue in ('gm', 'wm')
        )
        word = 'higher' if sign > 0 else 'lower'
        lines.append(f'{name} {word} in {won} of {2 * len(table)} (pairs of scanners, GM and WM)')
    areas = pd.DataFrame(scans)[[f'gm_wm_auroc_{stage}' for stage in STAGES]].mean()
    return [*lines, 'AUROC of GM and WM, mean: {:.4f} before, {:.4f} after'.format(*areas)]


def _scaled(scan: Scan, data: np.ndarray) -> np.ndarray:
    """The image with its white-matter peak at 1, as the evaluation of a group compares them."""
    return data / np.float32(white_matter_peak(data, scan.brain, scan.tissues))


def _tissues(head: Head, scans: Sequence[Scan], images: Sequence[np.ndarray]) -> Iterator[tuple]:
    """AUROC of true GM and WM, and a segmentation, of each image."""
    true = [np.asarray(head.fractions[TISSUES.index(t)]) > 255 * SURE for t in ('gm', 'wm')]
    for scan, image in zip(scans, images, strict=True):
        area = gm_wm_auroc(image, *true, either_direction=scan.contrast != 'T1w')
        yield area, segment_tissues([image], scan.brain, scan.tissues, STEP)


def _draw(path: Path, scans: Sequence[Scan], images: dict[str, list[np.ndarray]]) -> None:
    """One axial slice at every scanner, before and after, each row in one window."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        (stage, [s.working.with_data(i) for s, i in zip(scans, images[stage], strict=True)])
        for stage in STAGES
    ]
    inside = np.argwhere(scans[0].brain).mean(axis=0)
    position = (scans[0].working.affine @ np.append(inside, 1))[:3]
    mosaic(path, rows, [scan.site for scan in scans], position=position)


if __name__ == '__main__':
    run_script(main)
