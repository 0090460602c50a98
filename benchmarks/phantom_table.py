"""Travelling phantoms at sites no training has seen: before, after, ceiling, gap closed.

``python -m benchmarks.phantom_table BIDS OUT --methods none transfer ...`` reads a dataset
that ``harmony-phantom`` wrote (its truths are in ``derivatives/phantom``), preprocesses it
by the participant level's own steps and harmonizes each scan to each other site, with the
style measured there on *other* subjects' scans: all of them (as ``--target site:NAME``
does), or one (``--one-person``). The result is compared with the noise-free
scan by the target's protocol on the source's own grid, inside the brain, on the native and
on the working grid. The ceiling is the target's own preprocessed scan against its own truth.
"""

import argparse
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from benchmarks.preprocessed import Preprocessed
from harmony_app.bids.discovery import ScanInput
from harmony_app.bids.filters import Selection
from harmony_app.evaluation.metrics import psnr, ssim
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.intensity import white_matter_peak
from harmony_app.imaging.io import read_scan
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import CONTRASTS, Scan
from harmony_app.methods.registry import get_method
from harmony_app.reports.figure import mosaic

logger = logging.getLogger(__name__)
MARGIN = 8


def truth_of(bids: Path, scan: ScanInput, session: str) -> Volume:
    """Noise-free scan of a source by the protocol of another session's site, RAS."""
    stem = f'sub-{scan.subject}_ses-{scan.session}'
    folder = bids / 'derivatives' / 'phantom' / f'sub-{scan.subject}' / f'ses-{scan.session}'
    return read_scan(folder / 'anat' / f'{stem}_desc-{session}_{scan.contrast}.nii.gz').volume


def brain_of(bids: Path, scan: ScanInput) -> np.ndarray:
    """True brain mask on the source's own grid, RAS."""
    stem = f'sub-{scan.subject}_ses-{scan.session}_space-{scan.contrast}_desc-brain_mask.nii.gz'
    folder = bids / 'derivatives' / 'phantom' / f'sub-{scan.subject}' / f'ses-{scan.session}'
    image = nib.as_closest_canonical(nib.load(folder / 'anat' / stem))
    return np.asarray(image.dataobj) > 0


class Reference:
    """A truth on the native and the working grid, white-matter peak at 1, and the true brain."""

    def __init__(self, bids: Path, source: ScanInput, scan: Scan, session: str):
        native = truth_of(bids, source, session)
        working = resample(native, WORKING_SHAPE, WORKING_AFFINE, scan.native_to_working)
        peak = np.float32(white_matter_peak(working.data, scan.brain, scan.tissues))
        brain = brain_of(bids, source)
        mask = resample(
            Volume(brain.astype(np.float32), native.affine),
            WORKING_SHAPE,
            WORKING_AFFINE,
            scan.native_to_working,
            order=1,
        )
        self.images = {'native': native.data / peak, 'mni': working.data / peak}
        self.masks = {'native': brain, 'mni': mask.data > 0.5}
        inside = self.images['mni'][self.masks['mni']]
        self.data_range = float(np.percentile(inside, 99.5))

    def score(self, volume: np.ndarray, grid: str) -> dict[str, float]:
        """SSIM and PSNR (dB) inside the brain."""
        mask = self.masks[grid]
        where = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        box = tuple(
            slice(max(0, w[0] - MARGIN), w[-1] + MARGIN) for w in where
        )  # what is far from the brain changes nothing inside it
        image, truth, mask = volume[box], self.images[grid][box], mask[box]
        return {
            'ssim': ssim(image, truth, mask, self.data_range),
            'psnr': psnr(image, truth, mask, self.data_range),
        }


def session_pairs(sessions: list[str], every: bool) -> list[tuple[str, str]]:
    """Ordered pairs of sites: all, or each site to the next."""
    if every:
        return [(a, b) for a in sessions for b in sessions if a != b]
    return [(a, sessions[(i + 1) % len(sessions)]) for i, a in enumerate(sessions)]


def others_than(subject: str, subjects: list[str], one: bool) -> list[str]:
    """The people whose scans show a site's style: all but the subject, or the next one."""
    start = subjects.index(subject) + 1
    others = [*subjects[start:], *subjects[: start - 1]]
    return others[:1] if one else others


def run(
    bids: Path, out: Path, methods: dict, contrasts, grids, every: bool, one_person: bool
) -> pd.DataFrame:
    """Score every method on every pair; one row per method, pair and grid."""
    data = Preprocessed(bids, out / 'cache', Selection())
    subjects = sorted({scan.subject for scan in data.inputs})
    rows = []
    for contrast in contrasts:
        styles = {}
        by_key = {(s.subject, s.session): s for s in data.inputs if s.contrast == contrast}
        sessions = sorted({session for _, session in by_key})
        ceilings = {}
        for key, source in by_key.items():
            scan = data.load(source)
            reference = Reference(bids, source, scan, key[1])
            ceilings[key] = {
                'native': reference.score(scan.native.data, 'native'),
                'mni': reference.score(scan.working.data, 'mni'),
            }
        shown = []
        for subject in subjects:
            others = others_than(subject, subjects, one_person)
            for here, there in session_pairs(sessions, every):
                source = by_key[subject, here]
                scan = data.load(source)
                reference = Reference(bids, source, scan, there)
                picture = [scan.working]
                before = {
                    'native': reference.score(scan.native.data, 'native'),
                    'mni': reference.score(scan.working.data, 'mni'),
                }
                for name, method in methods.items():
                    if (name, subject, there) not in styles:
                        shows = [data.load(by_key[other, there]) for other in others]
                        styles[name, subject, there] = method.encode_target(shows, there)
                    style = styles[name, subject, there]
                    results = method.harmonize([scan], style)
                    volumes = {'native': results[0].native, 'mni': results[0].working}
                    picture.append(results[0].working)
                    for grid, volume in volumes.items():
                        if grid not in grids or volume is None:
                            continue
                        for metric, after in reference.score(volume.data, grid).items():
                            rows.append(
                                {
                                    'contrast': contrast,
                                    'grid': grid,
                                    'method': name,
                                    'metric': metric,
                                    'subject': subject,
                                    'source': here,
                                    'target': there,
                                    'before': before[grid][metric],
                                    'after': after,
                                    'ceiling': ceilings[subject, there][grid][metric],
                                }
                            )
                truth = scan.working.with_data(reference.images['mni'].astype(np.float32))
                shown.append((f'{here} to {there}', [*picture, truth]))
                logger.info('%s sub-%s %s to %s', contrast, subject, here, there)
        mosaic(out / f'phantom_{contrast}.png', shown[:6], ['before', *methods, 'truth'])
    return pd.DataFrame(rows)


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over subjects and pairs; the gap closed is that of the means."""
    keys = ['contrast', 'grid', 'metric', 'method']
    table = rows.groupby(keys, sort=False)[['before', 'after', 'ceiling']].mean()
    table['gap_closed'] = (table.after - table.before) / (table.ceiling - table.before)
    table['pairs'] = rows.groupby(keys, sort=False).size()
    table['better'] = (rows.after > rows.before).groupby([rows[k] for k in keys], sort=False).mean()
    return table.reset_index()


def to_markdown(table: pd.DataFrame) -> str:
    """A table for docs/."""
    columns = list(table.columns)
    lines = ['| ' + ' | '.join(columns) + ' |', '|' + '---|' * len(columns)]
    for row in table.itertuples(index=False):
        cells = [f'{v:.3f}' if isinstance(v, float) else str(v) for v in row]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('bids', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument(
        '--methods', nargs='+', default=['none', 'histogram-matching', 'nyul', 'transfer']
    )
    parser.add_argument('--model', type=Path, help='model folder of the trained methods')
    parser.add_argument('--contrasts', nargs='+', default=list(CONTRASTS))
    parser.add_argument('--grids', nargs='+', default=['native', 'mni'])
    parser.add_argument('--cyclic', action='store_true', help='each site to the next only')
    parser.add_argument(
        '--one-person', action='store_true', help="a site's style from one other person's scan"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    methods = {}
    for name in options.methods:
        # haca3-decoder: the plain image of its decoder
        method, _, detail = name.partition('-') if name.startswith('haca3') else (name, '', '')
        trained = method in ('transfer', 'haca3')
        given = {'detail': detail} if detail else {}
        methods[name] = get_method(method, options.model if trained else None, **given)
    rows = run(
        options.bids,
        options.out,
        methods,
        options.contrasts,
        options.grids,
        not options.cyclic,
        options.one_person,
    )
    stem = '_'.join(options.contrasts)
    rows.to_csv(options.out / f'phantom_{stem}_rows.tsv', sep='\t', index=False)
    table = summarize(rows)
    table.to_csv(options.out / f'phantom_{stem}.tsv', sep='\t', index=False)
    text = to_markdown(table)
    (options.out / f'phantom_{stem}.md').write_text(text + '\n')
    print(text)


if __name__ == '__main__':
    main()
