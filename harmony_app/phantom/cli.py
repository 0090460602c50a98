"""``harmony-phantom``: write travelling phantoms as a BIDS dataset."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harmony_app import __version__
from harmony_app.errors import ExitCode, HarmonyError, OptionError
from harmony_app.phantom.sites import CONTRASTS, Site, find_sites, load_sites

DEFAULT_SITES = 'siteA,siteD'


def build_parser() -> argparse.ArgumentParser:
    """Arguments of ``harmony-phantom``."""
    parser = argparse.ArgumentParser(
        prog='harmony-phantom',
        description='Simulate brain MRI of the same people at several sites and write it as a BIDS '
        'dataset; the ground truth goes to OUT/derivatives/phantom.',
    )
    parser.add_argument('out', type=Path, metavar='OUT', nargs='?', help='new or empty folder')
    parser.add_argument(
        '--subjects', type=int, default=2, metavar='N', help='number of people (default 2)'
    )
    parser.add_argument(
        '--sites',
        default=DEFAULT_SITES,
        metavar='A,B',
        help='sites by name, comma-separated, or "all"; each is a session of every person '
        f'(default {DEFAULT_SITES})',
    )
    parser.add_argument('--list-sites', action='store_true', help='print the known sites and end')
    parser.add_argument(
        '--site-file',
        '--site_file',
        type=Path,
        metavar='YAML',
        help='sites of your own, in the schema of the sites.yaml of this package',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='the same seed gives the same bytes (default 0)'
    )
    parser.add_argument(
        '--contrasts',
        default=','.join(CONTRASTS),
        metavar='T1w,T2w',
        help=f'scans of a session (default {",".join(CONTRASTS)})',
    )
    parser.add_argument(
        '--label-maps',
        '--label_maps',
        type=Path,
        metavar='DIR',
        help='folder of FreeSurfer-style whole-head label maps to make heads of, used in turn '
        '(default: the ICBM head)',
    )
    parser.add_argument(
        '--lesions',
        type=float,
        nargs='?',
        const=10.0,
        default=0.0,
        metavar='ML',
        help='white-matter lesions, mean volume in ml (10 where no number is given; default none)',
    )
    parser.add_argument(
        '--atrophy',
        type=float,
        default=4.0,
        metavar='PERCENT',
        help='largest loss of brain volume; each person draws from 0 to it (default 4)',
    )
    parser.add_argument(
        '--resolution',
        '--zooms',
        type=float,
        default=0.0,
        metavar='MM',
        help='no voxel edge shorter than this; 2 makes small, quick datasets (default: the '
        "protocols' own)",
    )
    parser.add_argument(
        '--visits',
        type=int,
        default=1,
        metavar='N',
        help='sessions of every person at every site, for rescans (default 1)',
    )
    parser.add_argument(
        '--truth',
        choices=('all', 'own'),
        default='all',
        help='noise-free scans on every grid: by the protocols of all sites, or of its own only',
    )
    parser.add_argument(
        '--device', default='cpu', help='cpu, cuda, cuda:1 ... (bytes differ between devices)'
    )
    parser.add_argument('--quiet', action='store_true', help='print nothing but errors')
    parser.add_argument('--version', action='version', version=f'harmony-phantom {__version__}')
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``harmony-phantom``; gives its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        sites = load_sites(options.site_file)
        if options.list_sites:
            sys.stdout.write(_table(sites.values()))
            return int(ExitCode.SUCCESS)
        if options.out is None:
            parser.error('the following arguments are required: OUT')
        return _run(options, sites)
    except HarmonyError as error:
        sys.stderr.write(f'harmony-phantom: {error}\n')
        return int(error.exit_code)


def _run(options: argparse.Namespace, sites: dict[str, Site]) -> int:
    names = [name.strip() for name in options.sites.split(',') if name.strip()]
    chosen = list(sites.values()) if names == ['all'] else find_sites(names, sites)
    contrasts = [_contrast(c.strip()) for c in options.contrasts.split(',') if c.strip()]
    if not contrasts:
        raise OptionError(f'--contrasts names no contrast; known: {", ".join(CONTRASTS)}')
    # torch and the rest only now: --help and a wrong site name need none of it
    from harmony_app.phantom.writer import Settings, write_dataset

    settings = Settings(
        subjects=options.subjects,
        sites=chosen,
        seed=options.seed,
        contrasts=contrasts,
        label_maps=options.label_maps,
        lesions=options.lesions,
        atrophy=options.atrophy / 100,
        resolution=options.resolution,
        truth=options.truth,
        visits=options.visits,
        device=_device(options.device),
    )

    def report(message: str) -> None:
        if not options.quiet:
            sys.stdout.write(message + '\n')
            sys.stdout.flush()

    write_dataset(options.out, settings, report)
    report(
        f'{options.out}: {options.subjects} subject(s), {len(chosen)} site(s), seed {options.seed}'
    )
    return int(ExitCode.SUCCESS)


def _contrast(name: str) -> str:
    for contrast in CONTRASTS:
        if name.lower() == contrast.lower():
            return contrast
    raise OptionError(f'--contrasts: unknown contrast {name!r}; known: {", ".join(CONTRASTS)}')


def _device(name: str) -> str:
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f'--device {name}: not usable on this machine ({reason})') from error
    return name


def _table(sites: Sequence[Site]) -> str:
    lines = []
    for site in sites:
        names = ', '.join((site.name, *site.aliases))
        lines.append(f'{names:28}  {site.field:g} T  {site.description or site.model}')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.exit(main())
