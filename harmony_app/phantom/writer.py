"""A travelling phantom as a BIDS dataset, with its ground truth as a derivative."""

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from harmony_app import __version__
from harmony_app.bids.atomic import write_json, write_table, write_text
from harmony_app.errors import InputError, OptionError, OutputError
from harmony_app.phantom import sidecars
from harmony_app.phantom.acquisition import point_spread, render, sample, spoil, spread_widths
from harmony_app.phantom.anatomy import Anatomy, icbm_anatomy, label_map_anatomy
from harmony_app.phantom.geometry import Grid, coarser, head_position, prescribe
from harmony_app.phantom.nifti import as_stored, write_image
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.sites import CONTRASTS, Site
from harmony_app.phantom.subject import Subject, draw_subject
from harmony_app.phantom.tissues import BRAIN_TISSUES, TISSUES

TRUTH_FOLDER = Path('derivatives', 'phantom')

_WM = TISSUES.index('wm')
_MASKED = {
    'brain': [*BRAIN_TISSUES, 'csf'],
    'lesion': ['lesion'],
    'GM': ['gm', 'deep_gm'],
    'WM': ['wm'],
    'CSF': ['csf'],
}


@dataclass(frozen=True)
class Settings:
    """What to write.

    Parameters
    ----------
    subjects : int
        Number of people.
    sites : sequence of Site
        Every person is scanned at each.
    seed : int
        Of everything random.
    contrasts : sequence of str
        Scans of a session.
    label_maps : Path or None
        Folder of FreeSurfer-style label maps for the heads; the ICBM head without.
    lesions : float
        Mean lesion volume in ml; 0 for none.
    atrophy : float
        Largest share of brain volume lost, 0 to 0.15; drawn uniformly from 0.
    resolution : float
        Smallest voxel edge in mm; 0 for the protocols' own.
    truth : str
        ``all``: noise-free scans in the contrast of every site; ``own``: of the scan's site only.
    visits : int
        Times that everybody is scanned at every site: another position, gain and noise.
    device : str
        Of torch.
    """

    subjects: int
    sites: Sequence[Site]
    seed: int = 0
    contrasts: Sequence[str] = CONTRASTS
    label_maps: Path | None = None
    lesions: float = 0.0
    atrophy: float = 0.04
    resolution: float = 0.0
    truth: str = 'all'
    visits: int = 1
    device: str = 'cpu'

    def __post_init__(self):
        if self.subjects < 1:
            raise OptionError(f'--subjects is at least 1, not {self.subjects}')
        if not 1 <= self.visits <= 9:
            raise OptionError(f'--visits is 1 to 9, not {self.visits}')
        if not self.sites:
            raise OptionError('no site to scan at: name one with --sites')
        if self.seed < 0:
            raise OptionError(f'--seed is 0 or more, not {self.seed}')
        for contrast in self.contrasts:
            if contrast not in CONTRASTS:
                raise OptionError(f'unknown contrast {contrast!r}; known: {", ".join(CONTRASTS)}')
        for site in self.sites:
            if not set(self.contrasts) & set(site.protocols):
                raise OptionError(
                    f'site {site.name} has no protocol for {", ".join(self.contrasts)}'
                )
        if not 0 <= self.lesions <= 60:
            raise OptionError(f'--lesions is 0 to 60 ml, not {self.lesions:g}')
        if not 0 <= self.atrophy <= 0.15:
            raise OptionError(f'--atrophy is 0 to 15 percent, not {100 * self.atrophy:g}')
        if not 0 <= self.resolution <= 8:
            raise OptionError(f'--resolution is 0 to 8 mm, not {self.resolution:g}')

    def described(self) -> dict:
        """Plain types for dataset_description.json; no path of the machine."""
        return {
            'subjects': self.subjects,
            'sites': [site.name for site in self.sites],
            'contrasts': list(self.contrasts),
            'heads': 'label maps' if self.label_maps else 'icbm',
            'lesions': self.lesions,
            'atrophy': self.atrophy,
            'resolution': self.resolution,
            'truth': self.truth,
            'visits': self.visits,
        }


def write_dataset(
    out: Path, settings: Settings, report: Callable[[str], None] = lambda message: None
) -> Path:
    """Write the scans and their ground truth.

    Parameters
    ----------
    out : Path
        New or empty folder.
    settings : Settings
        What to write.
    report : callable
        Gets a line for each session.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    OutputError
        Where the folder is not empty or cannot be written.
    InputError, ScanError
        Where label maps are absent or unreadable.
    """
    out = Path(out)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(f'{out} is not an empty folder; name another or empty it')
    except OSError as error:
        raise OutputError(f'{out} cannot be read: {error.strerror}') from error
    heads = _label_maps(settings.label_maps)
    rows = []
    for index in range(settings.subjects):
        path = heads[index % len(heads)] if heads else None
        subject = _draw(settings, index, path)
        label = f'{index + 1:02d}'
        sessions = []
        for site, visit in itertools.product(settings.sites, range(settings.visits)):
            session = site.label + (f'visit{visit + 1}' if visit else '')
            _write_session(out, settings, subject, index, label, site, session)
            report(f'sub-{label} ses-{session}: scanned')
            sessions.append({'session_id': f'ses-{session}', 'site': site.name})
        rows.append(
            {
                'participant_id': f'sub-{label}',
                'group': 'lesions' if subject.lesion_volume else 'control',
                'traveling_subject': 'yes' if len(settings.sites) > 1 else 'no',
                'head': path.name.split('.')[0] if path else 'icbm',
                'atrophy': round(100 * subject.atrophy, 3),
                'lesion_volume': round(subject.lesion_volume, 3),
            }
        )
        table = out / f'sub-{label}' / f'sub-{label}_sessions.tsv'
        write_table(table, ['session_id', 'site'], sessions)
    _write_top(out, settings, rows)
    return out


def _label_maps(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f'--label-maps {folder}: no such folder')
    found = sorted(p for p in folder.iterdir() if p.name.endswith(('.nii', '.nii.gz', '.mgz')))
    if not found:
        raise InputError(f'--label-maps {folder}: no .nii, .nii.gz or .mgz file in it')
    return found


def _draw(settings: Settings, index: int, path: Path | None) -> Subject:
    """One person; the same whatever the sites."""
    head = icbm_anatomy() if path is None else label_map_anatomy(path, seed=settings.seed)
    head = Anatomy(head.fractions.to(settings.device), head.affine)
    factor = int(settings.resolution / np.linalg.norm(head.affine[:3, :3], axis=0).max() + 1e-6)
    if factor > 1:
        head = _shrink(head, factor)
    generator = _generator(settings, index, 'person')
    share = torch.rand(2, generator=generator, device=generator.device).tolist()
    lesions = settings.lesions * (0.5 + share[1])
    try:
        return draw_subject(
            head, generator, atrophy=settings.atrophy * share[0], lesion_volume=lesions
        )
    except ValueError as error:
        name = path.name if path else 'the ICBM head'
        raise OptionError(f'{name}: {error}; ask for less with --atrophy or --lesions') from error


def _shrink(head: Anatomy, factor: int) -> Anatomy:
    """Average over cubes: the fractions of a coarse scan need no finer head."""
    affine = head.affine @ np.diag([factor, factor, factor, 1.0])
    affine[:3, 3] = (head.affine @ np.append([(factor - 1) / 2] * 3, 1))[:3]
    return Anatomy(functional.avg_pool3d(head.fractions[None], factor)[0], affine)


def _generator(settings: Settings, index: int, *names: str) -> torch.Generator:
    """Seeded by what it is for, so that one scan more or less changes no other."""
    words = [settings.seed, index, *(zlib.crc32(name.encode()) for name in names)]
    seed = int(np.random.SeedSequence(words).generate_state(1)[0])
    return torch.Generator(settings.device).manual_seed(seed)


def _write_session(
    out: Path,
    settings: Settings,
    subject: Subject,
    index: int,
    label: str,
    site: Site,
    session: str,
) -> None:
    # the first visit is the same however many there are
    again = [] if session == site.label else [session]
    position = head_position(_generator(settings, index, site.name, *again))
    contrasts = [c for c in CONTRASTS if c in settings.contrasts and c in site.protocols]
    for contrast in contrasts:
        protocol = coarser(site.protocols[contrast], settings.resolution)
        generator = _generator(settings, index, site.name, contrast, *again)
        # people move a little between the scans of a session
        moved = head_position(generator, rotation=0.4, translation=0.4) @ position
        grid = as_stored(prescribe(subject.anatomy, protocol, moved, generator))
        stem = f'sub-{label}_ses-{session}'
        scan = Path(f'sub-{label}', f'ses-{session}', 'anat', f'{stem}_{contrast}')
        targets = [site]
        if settings.truth == 'all':
            targets += [s for s in settings.sites if s is not site and contrast in s.protocols]
        images, fractions = _scan(subject, targets, protocol, grid, moved, generator)
        scans = list(_scaled(images, targets, generator))
        write_image(out / f'{scan}.nii.gz', scans[0], grid.affine, np.int16)
        write_json(out / f'{scan}.json', sidecars.scan_sidecar(site, protocol))

        common = {
            'Sources': [f'bids:raw:{scan}.nii.gz'],
            'HeadToScanner': np.round(moved, 9).tolist(),
        }
        truth = out / TRUTH_FOLDER / scan.parent
        for target, image in zip(targets, scans[1:], strict=True):
            name = truth / f'{stem}_desc-{target.label}_{contrast}'
            write_image(Path(f'{name}.nii.gz'), image, grid.affine, np.int16)
            write_json(Path(f'{name}.json'), _truth_sidecar(common, target, contrast, site))
        for tissue, image in fractions.items():
            _write_map(truth / f'{stem}_space-{contrast}', tissue, image, grid, common)


def _scan(
    subject: Subject,
    targets: Sequence[Site],
    protocol: Protocol,
    grid: Grid,
    position: np.ndarray,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The scan at the first target, noise-free scans at all (white matter at 1), and maps.

    All are sampled together, so that they lie on one grid and the costly coordinates are
    made once.
    """
    site, fractions = targets[0], subject.anatomy.fractions
    signals = subject.signals([s.protocols[protocol.contrast] for s in targets])
    signals = signals / signals[:, _WM : _WM + 1]
    image = render(fractions, signals, subject.texture)
    maps = torch.stack(
        [fractions[[TISSUES.index(t) for t in parts]].sum(0) for parts in _MASKED.values()]
    )
    sampled = sample(
        torch.cat([image, maps]),
        subject.anatomy.affine,
        grid,
        position,
        protocol.acquisition == '2D',
    )
    truth, maps = sampled[: len(targets)], sampled[len(targets) :].clamp(0, 1)
    truth = point_spread(truth, spread_widths(protocol, site.point_spread))
    white = torch.ones(1, device=truth.device)
    scan = spoil(truth[:1], grid, protocol, white, generator, site.receive_field)
    return torch.cat([scan, truth]), dict(zip(_MASKED, maps, strict=True))


def _scaled(
    images: torch.Tensor, targets: Sequence[Site], generator: torch.Generator
) -> Iterator[np.ndarray]:
    """Intensities as scanners store them; the gain differs by some percent from scan to scan."""
    gain = float(torch.exp(0.08 * torch.randn(1, generator=generator, device=generator.device)))
    yield (images[0] * targets[0].intensity * gain).cpu().numpy()
    yield (images[1] * targets[0].intensity * gain).cpu().numpy()
    for image, target in zip(images[2:], targets[1:], strict=True):
        yield (image * target.intensity).cpu().numpy()


def _truth_sidecar(common: dict, target: Site, contrast: str, site: Site) -> dict:
    fields = sidecars.scan_sidecar(target, target.protocols[contrast])
    kept = (
        'Manufacturer',
        'ManufacturersModelName',
        'MagneticFieldStrength',
        'PulseSequenceType',
        'RepetitionTime',
        'EchoTime',
        'InversionTime',
        'FlipAngle',
    )
    own = target is site
    return {
        'Description': 'Scan without noise and receive field'
        + ('' if own else f', by the protocol of {target.name} on the grid of {site.name}'),
        'SkullStripped': False,
        'Site': target.name,
        **{key: fields[key] for key in kept if key in fields},
        **common,
    }


def _write_map(stem: Path, tissue: str, image: torch.Tensor, grid: Grid, common: dict) -> None:
    """A mask (brain, lesion) or a tissue fraction map."""
    data = image.cpu().numpy()
    fields = dict(common, SpatialReference=common['Sources'][0])
    if tissue in ('brain', 'lesion'):
        name = f'{stem}_desc-brain_mask' if tissue == 'brain' else f'{stem}_label-L_mask'
        fields['Type'] = tissue.capitalize()
        write_image(Path(f'{name}.nii.gz'), data >= 0.5, grid.affine, np.uint8)
    else:
        name = f'{stem}_label-{tissue}_probseg'
        write_image(Path(f'{name}.nii.gz'), data, grid.affine, np.uint8, slope=1 / 255)
    write_json(Path(f'{name}.json'), fields)


def _write_top(out: Path, settings: Settings, rows: list[dict]) -> None:
    described = settings.described()
    write_json(
        out / 'dataset_description.json', sidecars.dataset_description(settings.seed, described)
    )
    write_table(out / 'participants.tsv', ['participant_id', *sidecars.PARTICIPANTS], rows)
    write_json(out / 'participants.json', sidecars.PARTICIPANTS)
    write_json(out / 'sessions.json', sidecars.SESSIONS)
    write_text(
        out / 'README.md',
        sidecars.README.format(
            subjects=settings.subjects,
            sites=len(settings.sites),
            names='; '.join(f'{s.name} ({s.description or s.model})' for s in settings.sites),
            seed=settings.seed,
            version=__version__,
        ),
    )
    truth = out / TRUTH_FOLDER
    write_json(
        truth / 'dataset_description.json', sidecars.truth_description(settings.seed, described)
    )
    write_text(truth / 'README.md', sidecars.TRUTH_README.format())
    descriptions = [{'desc_id': 'desc-brain', 'description': 'Brain with its fluid'}]
    descriptions += [
        {
            'desc_id': f'desc-{site.label}',
            'description': f'No noise, no receive field, the contrast of {site.name}',
        }
        for site in settings.sites
    ]
    write_table(truth / 'descriptions.tsv', ['desc_id', 'description'], descriptions)
