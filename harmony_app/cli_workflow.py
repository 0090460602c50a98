"""Options that choose the scans, and how they are harmonized."""

import argparse
from pathlib import Path

from harmony_app.cli_types import flags
from harmony_app.config import IGNORABLE, SUPER_RESOLUTION
from harmony_app.imaging.grid import SPACES
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.registry import METHOD_NAMES


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose scans."""
    group = parser.add_argument_group('Options for filtering BIDS queries')
    group.add_argument(
        *flags('participant-label'),
        nargs='+',
        action='extend',
        default=[],
        metavar='LABEL',
        help='participants, with or without sub-, or a text file with one label a line; '
        'all by default',
    )
    group.add_argument(
        *flags('session-label'),
        *flags('session-id'),
        nargs='+',
        action='extend',
        default=[],
        metavar='LABEL',
        help='sessions, with or without ses-; scans without a session are always taken',
    )
    group.add_argument(
        '-m',
        '--modalities',
        nargs='+',
        choices=CONTRASTS,
        default=list(CONTRASTS),
        metavar='CONTRAST',
        help='contrasts to harmonize, or to gather and evaluate',
    )
    group.add_argument(
        *flags('bids-filter-file'),
        type=Path,
        metavar='FILE',
        help='JSON of the form {"t1w": {"acquisition": "label", "run": null, "rec": "*"}}; '
        'null asks for scans without the entity, "*" for scans with it',
    )
    group.add_argument(
        *flags('skip-bids-validation'),
        *flags('skip-bids-validator'),
        action='store_true',
        help='take a dataset whose dataset_description.json is absent, or says that it is a '
        'derivative',
    )
    group.add_argument(
        *flags('bids-database-dir'),
        type=Path,
        metavar='FOLDER',
        help='folder in which PyBIDS keeps its index of the dataset, so that a large one is read '
        'once; made where it is not there',
    )
    group.add_argument(
        *flags('bids-database-wipe'),
        action='store_true',
        help='make that index anew: give it when the dataset has changed',
    )
    group.add_argument(
        *flags('include-contrast-enhanced'),
        action='store_true',
        help='harmonize scans after contrast agent (ce-) as well',
    )
    group.add_argument(
        '-d',
        '--derivatives',
        nargs='+',
        action='extend',
        default=[],
        metavar='NAME=PATH',
        help='derivative datasets whose brain masks (desc-brain_mask) and transforms '
        '(*_xfm.txt) are taken instead of estimated ones; with --task evaluate, whose lesion '
        'masks (label-lesion_mask, label-WMH_mask, label-L_mask) lesions are measured under',
    )


def add_harmonization(parser: argparse.ArgumentParser) -> None:
    """Add the options of the method and its target."""
    group = parser.add_argument_group(
        'Options for harmonization', 'Of the participant level; the group level does not read them.'
    )
    group.add_argument(
        '--method',
        choices=METHOD_NAMES,
        default='transfer',
        metavar='METHOD',
        help=f'one of {", ".join(METHOD_NAMES)}',
    )
    group.add_argument(
        *flags('model'),
        type=Path,
        metavar='FOLDER',
        help='model folder of the method; the packaged one by default',
    )
    group.add_argument(
        '--target',
        action='append',
        default=[],
        metavar='[CONTRAST=]TARGET',
        help='what to look like: a named style of the model, an image file, sub-XX or '
        'sub-XX_ses-YY of the dataset, site:NAME, or a style JSON file; repeat it to give a '
        'target for each contrast (T1w=... T2w=...); the default style of the model by default',
    )
    group.add_argument(
        '--detail',
        choices=('transfer', 'decoder'),
        help='where the detail of a result comes from: the scan itself or the decoder '
        '(methods with a decoder)',
    )
    group.add_argument(
        '--fusion',
        choices=('network', 'median'),
        help='how three orientations become one volume (methods that work on slices)',
    )
    group.add_argument(
        '--noise',
        choices=('match', 'keep', 'remove'),
        help="what becomes of a scan's noise (transfer, and haca3 with it): brought down to the "
        "target's where it is stronger (the default), kept as it is, or removed",
    )
    group.add_argument(
        *flags('site-average'),
        choices=('auto', 'dataset', 'off'),
        default='auto',
        help='let people keep what they differ in: a scan goes to the target as the average of its '
        'site does, by a style of the model that has its name, or for site:NAME by the dataset '
        "(auto), by the dataset for all targets, or not at all (transfer's, and haca3's with it)",
    )
    group.add_argument(
        *flags('super-resolution'),
        choices=SUPER_RESOLUTION,
        default='auto',
        help='divide slices into thin ones for the template grid, learnt from the planes of the '
        'scan itself: those above 2.5 mm (auto), all that can be (on), or none (off)',
    )
    group.add_argument(
        '--impute',
        nargs='+',
        choices=CONTRASTS,
        default=[],
        metavar='CONTRAST',
        help='contrasts to make where they were not acquired (methods that can)',
    )
    group.add_argument(
        *flags('skull-strip'),
        *flags('skull-strip-t1w'),
        choices=('auto', 'skip', 'force'),
        default='auto',
        help='whether scans are bare brains already: auto looks at each, skip says that they are, '
        'force that none is (the head outside the brain is always kept in the results)',
    )
    group.add_argument(
        '--ignore',
        nargs='+',
        action='extend',
        choices=IGNORABLE,
        default=[],
        metavar='WHAT',
        help='what to leave out: bias-field (scans whose field the scanner or another program '
        'has corrected), brain-mask (no mask in the export, so that fMRIPrep extracts the brain)',
    )


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is written."""
    group = parser.add_argument_group('Options for the outputs')
    group.add_argument(
        *flags('output-spaces'),
        nargs='+',
        choices=SPACES,
        default=list(SPACES),
        metavar='SPACE',
        help=f'grids to write images on: native (that of each scan), {SPACES[1]} (1 mm), or both; '
        'native alone is half the disk, and group --task evaluate needs the other',
    )
    group.add_argument(
        *flags('export-fmriprep'),
        action='store_true',
        help='write the results once more as fMRIPrep takes them (fmriprep -d harmony=FOLDER): '
        'one T1w of each session, its T2w on the same grid, the brain mask',
    )
    group.add_argument(
        *flags('export-dir'),
        type=Path,
        metavar='FOLDER',
        help='folder of that export; derivatives/for-fmriprep in the output folder by default',
    )
