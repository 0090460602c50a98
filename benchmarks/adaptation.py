"""What fitting a model to a new site gives there.

``python -m benchmarks.adaptation OUT --study FOLDER --session SITE --model ADAPTED`` takes the
people and sites that ``benchmarks.travelling FOLDER`` has prepared and a model that ``group
--task adapt`` has fitted to the people of one site, and harmonizes the scans of all *other* people from this
site to the next, and from the one before to this, with the packaged model and with the adapted
one. The truth is the noise-free scan of the same head by the target's protocol. Rows go to
``OUT/adaptation.tsv`` with a data dictionary.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.columns import write_rows
from benchmarks.compared import DECODERS, Compared
from benchmarks.preprocessed import Preprocessed
from benchmarks.scoring import Reference
from benchmarks.study import session_pairs
from benchmarks.tables import to_markdown
from benchmarks.truth import TrueAnatomy
from harmony_app.bids.discovery import ScanInput
from harmony_app.errors import OptionError
from harmony_app.evaluation.metrics import psnr, ssim
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.model_folder import read_metadata
from harmony_app.training.script import run_script

logger = logging.getLogger(__name__)

COLUMNS = {
    'contrast': 'Contrast of the image',
    'subject': 'Person',
    'source': 'Session of the scan',
    'target': 'Session of the site that it is brought to',
    'method': 'Method',
    'ssim_scan': 'Structural similarity of the scan itself to the truth, inside the brain',
    'ssim_before': 'The same of the result of the packaged model',
    'ssim_after': 'The same of the result of the adapted model',
    'psnr_scan': 'Peak signal-to-noise ratio of the scan itself to the truth, dB, inside the brain',
    'psnr_before': 'The same of the result of the packaged model',
    'psnr_after': 'The same of the result of the adapted model',
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder of the table')
    parser.add_argument('--study', type=Path, required=True, help='OUT of benchmarks.travelling')
    parser.add_argument('--session', required=True, help='session of the site')
    parser.add_argument('--model', type=Path, required=True, help='model that was adapted to it')
    parser.add_argument(
        '--other-people',
        action='store_true',
        help='the model was adapted to other people, though they bear the same labels (phantoms '
        'number theirs from 01)',
    )
    parser.add_argument('--contrasts', nargs='+', choices=CONTRASTS, default=list(CONTRASTS))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    rows = measure(options)
    table = write_rows(options.out / 'adaptation.tsv', COLUMNS, rows)
    print(to_markdown(summarize(table)))


def measure(options: argparse.Namespace) -> list[dict]:
    """Rows of the table.

    Raises
    ------
    InputError
        Where there is no study, or other code has preprocessed it.
    OptionError
        Where the site or a person that the model has not seen is absent.
    """
    metadata = read_metadata(options.model)
    data = Preprocessed.of_study(options.study)
    bids = options.study / 'bids'
    sessions = sorted({source.session for source in data.inputs})
    if options.session not in sessions:
        raise OptionError(f'--session {options.session}: there are {", ".join(sessions)}')
    people = sorted({source.subject for source in data.inputs})
    people = unseen(people, metadata, options.other_people)
    name = metadata['method']
    decoder = f'{name}-decoder'
    method = decoder if decoder in DECODERS else name
    models = {
        'before': Compared(data, (method,), {}),
        'after': Compared(data, (method,), {name: str(options.model.resolve())}),
    }
    pairs = [pair for pair in session_pairs(sessions, 'next') if options.session in pair]
    rows = []
    for subject in people:
        for source, target in pairs:
            found = {
                s.contrast: s for s in data.inputs if (s.subject, s.session) == (subject, source)
            }
            scans = {contrast: data.load(scan) for contrast, scan in found.items()}
            for contrast in options.contrasts:
                if contrast in scans:
                    given = bids, found, scans, contrast, subject, target
                    row = {'contrast': contrast, 'subject': subject, 'source': source}
                    row |= {'target': target, 'method': method}
                    rows.append(row | _likeness(models, method, *given))
                    logger.info('%s', rows[-1])
            for compared in models.values():
                compared.forget()
    return rows


def learned_from(metadata: dict) -> set[str]:
    """People whose scans the adaptation of a model has seen, for learning or for choosing.

    Raises
    ------
    OptionError
        Where the model was not adapted.
    """
    steps = [step for step in metadata.get('lineage', []) if step.get('task') == 'adapt']
    if not steps:
        raise OptionError('--model was not made by group --task adapt')
    return {p for step in steps for p in (*step['subjects'], *step['validation_subjects'])}


def unseen(people: Sequence[str], metadata: dict, others: bool) -> list[str]:
    """Those of the people by whom an adapted model can be judged.

    Parameters
    ----------
    people : sequence of str
        Labels of all people of the study.
    metadata : dict
        Of the model.
    others : bool
        The model was adapted to other people, though labels may be the same.

    Raises
    ------
    OptionError
        Where none is left, or the model was not adapted.
    """
    seen = learned_from(metadata)
    left = [person for person in people if others or person not in seen]
    if not left:
        raise OptionError(
            '--model has learned from people with the labels of all those of --study: if they are '
            'others all the same, give --other-people'
        )
    return left


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Means by contrast, and in how many pairs the adapted model is better."""
    rows = []
    for (method, contrast), part in table.groupby(['method', 'contrast'], sort=False):
        row = {'method': method, 'contrast': contrast, 'pairs': len(part)}
        for measure in ('ssim', 'psnr'):
            for when in ('scan', 'before', 'after'):
                row[f'{measure} {when}'] = part[f'{measure}_{when}'].mean()
            better = part[f'{measure}_after'] > part[f'{measure}_before']
            row[f'{measure} better'] = f'{better.sum()} of {len(part)}'
        rows.append(row)
    return pd.DataFrame(rows)


def _likeness(
    models: dict[str, Compared],
    method: str,
    bids: Path,
    found: dict[str, ScanInput],
    scans: dict,
    contrast: str,
    subject: str,
    target: str,
) -> dict[str, float]:
    """SSIM and PSNR of the scan and of both results."""
    source, scan = found[contrast], scans[contrast]
    anatomy = TrueAnatomy(bids, source, scan)
    reference = Reference(bids, source, scan, target, anatomy)
    box = reference.boxes['mni']
    truth, brain = reference.images['mni'][box], anatomy.brain['mni'][box]
    images = {'scan': scan.working}
    for when, compared in models.items():
        result = compared.harmonize(method, list(scans.values()), scan, subject, target)
        images[when] = result.working
    row = {}
    for when, image in images.items():
        given = image.data[box], truth, brain, reference.data_range
        row |= {f'ssim_{when}': float(ssim(*given)), f'psnr_{when}': float(psnr(*given))}
    return row


if __name__ == '__main__':
    run_script(main)
