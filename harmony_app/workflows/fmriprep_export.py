"""Results as the derivatives that fMRIPrep takes with ``-d NAME=PATH``.

fMRIPrep asks for one ``desc-preproc_T1w`` without ``space-`` in a session, for a
``desc-preproc_T2w`` on the grid of that T1w and for a ``desc-brain_mask``. Two files that answer
one question stop it, so of several runs one is chosen here, and the sidecar says why.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harmony_app import __version__
from harmony_app.bids.atomic import atomic_path, read_table, write_json, write_table, write_text
from harmony_app.bids.derivatives import (
    dataset_description,
    derivative_path,
    link_to,
    sidecar_path,
)
from harmony_app.bids.entities import parse_name
from harmony_app.bids.publish import read_marker
from harmony_app.bids.transforms import read_itk_affine
from harmony_app.config import RunConfig
from harmony_app.errors import HarmonyError
from harmony_app.imaging.grid import SPACE
from harmony_app.workflows.plans import Plan

EXPORT_FOLDER = Path('derivatives') / 'for-fmriprep'
"""Where the export lies in the results, where no other folder is given."""

RESULTS_LINK = 'harmony'
"""Name of the results in ``DatasetLinks`` of the export."""

DESCRIPTIONS = {
    'preproc': 'Harmonized scan: bias field divided out, in the contrast of the target',
    'brain': 'Brain mask on the grid of the T1w scan',
}
"""What each ``desc-`` of the export says."""

_FLAGS = ('good', 'doubtful', 'poor')


@dataclass(frozen=True)
class Candidate:
    """One harmonized scan on its own grid, and what its choice depends on.

    Parameters
    ----------
    name : str
        Name of the scan.
    image : Path
        Harmonized image.
    entities : dict of str to str
        Entities of the scan.
    sidecar : dict
        What stands beside the image.
    artifacts : str
        ``good``, ``doubtful``, ``poor``, or empty where the method does not tell.
    """

    name: str
    image: Path
    entities: Mapping[str, str]
    sidecar: Mapping
    artifacts: str = ''

    @property
    def ranks(self) -> dict[str, tuple]:
        """What is compared, in this order; less is better."""
        source = self.sidecar.get('SourceScan', {})
        zooms = source.get('VoxelSize', [np.inf])
        worse = _FLAGS.index(self.artifacts) if self.artifacts in _FLAGS else 0
        return {
            'without contrast agent': ('ce' in self.entities,),
            'not of thick slices': (bool(source.get('ThickSlices')),),
            'fewer artifacts': (worse,),
            'finer voxels': (round(max(zooms), 2), round(float(np.prod(zooms)), 2)),
            'first by name, nothing else tells them apart': (self.name,),
        }


def choose(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """Take one of the scans of a contrast, and say why.

    Parameters
    ----------
    candidates : sequence of Candidate
        At least one.

    Returns
    -------
    chosen : Candidate
    reason : str
        For example ``the only one``, or ``of 2, finer voxels than sub-01_run-1_T1w``.
    """
    ordered = sorted(candidates, key=lambda candidate: tuple(candidate.ranks.values()))
    if len(ordered) == 1:
        return ordered[0], 'the only one'
    first, second = ordered[:2]
    told = next(what for what, rank in first.ranks.items() if rank != second.ranks[what])
    if told.startswith('first'):
        return first, f'of {len(ordered)}, {told}'
    return first, f'of {len(ordered)}, {told} than {second.name}'.replace('agent than', 'agent, as')


def write_export_files(export: Path, results: Path, raw: Path, description: Mapping) -> None:
    """Write what stands at the top of the export.

    Parameters
    ----------
    export, results, raw : Path
        Folders of the export, of the results and of the input.
    description : mapping
        ``dataset_description.json`` of the input.
    """
    fields = dataset_description(export, raw, description)
    fields['Name'] = f'harmony-app for fMRIPrep: {description.get("Name") or raw.name}'
    fields['DatasetLinks'][RESULTS_LINK] = link_to(results, export)
    write_json(export / 'dataset_description.json', fields)
    write_text(export / 'README.md', _README.format(version=__version__))
    write_table(
        export / 'descriptions.tsv',
        ['desc_id', 'description'],
        [{'desc_id': f'desc-{key}', 'description': text} for key, text in DESCRIPTIONS.items()],
    )


def export_session(results: Path, export: Path, session: str, mask: bool = True) -> str:
    """Write one session as fMRIPrep wants it; files that are up to date are left alone.

    Parameters
    ----------
    results : Path
        Output folder of the participant level.
    export : Path
        Folder to write to.
    session : str
        Name of the session.
    mask : bool
        Whether the brain mask is exported too; without, fMRIPrep extracts the brain itself.

    Returns
    -------
    str
        What was exported, or why nothing could be.

    Raises
    ------
    OutputError
        Where a file cannot be written.
    """
    found = _candidates(results, session)
    entities = dict(part.split('-', 1) for part in session.split('_'))
    paths = {
        contrast: derivative_path(export, entities, contrast, desc='preproc')
        for contrast in ('T1w', 'T2w')
    }
    brain = derivative_path(export, entities, 'mask', desc='brain')
    if not found['T1w']:
        _remove(*paths.values(), brain)
        return f'{session}: not exported, it has no harmonized T1w on its own grid'
    chosen, reason = choose(found['T1w'])
    lines = [f'{chosen.name} ({reason})']
    source = _native_mask(chosen)
    fields = _sidecar(chosen, reason, results)
    if not _is_current(paths['T1w'], [chosen.image], fields):
        _copy(chosen.image, paths['T1w'])
        write_json(sidecar_path(paths['T1w']), fields)
    if mask and source.is_file():
        if not _is_current(brain, [source], None):
            _copy(source, brain)
        described = {'Description': DESCRIPTIONS['brain'], 'Type': 'Brain'}
        write_json(sidecar_path(brain), described | {'Sources': [_uri(source, results)]})
    else:
        _remove(brain)
    if found['T2w']:
        other, reason = choose(found['T2w'])
        fields = _sidecar(other, reason, results) | {
            'Interpolation': f'cubic B-spline, once, to the grid of {chosen.name}'
        }
        if not _is_current(paths['T2w'], [other.image, chosen.image], fields):
            _resample(other, chosen, paths['T2w'])
            write_json(sidecar_path(paths['T2w']), fields)
        lines.append(f'{other.name} on its grid ({reason})')
    else:
        _remove(paths['T2w'])
    return f'{session}: {", ".join(lines)}'


def export_plan(config: RunConfig, plan: Plan, description: Mapping) -> tuple[list[str], bool]:
    """Export the sessions of a run, those that were finished before too.

    Parameters
    ----------
    config : RunConfig
        Folders, and what to leave out.
    plan : Plan
        Its sessions are exported.
    description : mapping
        ``dataset_description.json`` of the input.

    Returns
    -------
    lines : list of str
        What became of each session, and how to give the export to fMRIPrep.
    failed : bool
        Whether one could not be exported.
    """
    folder = config.export_dir or config.output_dir / EXPORT_FOLDER
    write_export_files(folder, config.output_dir, config.bids_dir, description)
    mask = 'brain-mask' not in config.ignore
    lines, failed = [], False
    for name in sorted([*(session.name for session in plan.sessions), *plan.finished]):
        try:
            lines.append(f'exported {export_session(config.output_dir, folder, name, mask)}')
        except (HarmonyError, OSError, ValueError) as error:
            lines.append(f'failed to export {name}: {error}')
            failed = True
    return [*lines, f'for fMRIPrep: -d harmony={folder}'], failed


def _candidates(results: Path, session: str) -> dict[str, list[Candidate]]:
    """Harmonized T1w and T2w scans of a session that lie on their own grid."""
    marker = read_marker(results, session) or {'scans': {}}
    flags = _artifact_flags(results, session)
    found: dict[str, list[Candidate]] = {'T1w': [], 'T2w': []}
    for name, state in marker['scans'].items():
        entities, contrast, _ = parse_name(name)
        if contrast not in found or state['status'] != 'done':
            continue
        image = derivative_path(results, entities, contrast, desc='harmonized')
        if image.is_file():
            sidecar = json.loads(sidecar_path(image).read_text(encoding='utf-8'))
            candidate = Candidate(name, image, entities, sidecar, flags.get(name, ''))
            found[contrast].append(candidate)
    return found


def _artifact_flags(results: Path, session: str) -> dict[str, str]:
    """What the quality table of a session says of artifacts, by the name of the scan."""
    entities = dict(part.split('-', 1) for part in session.split('_'))
    table = derivative_path(results, entities, 'qc', '.tsv', desc='harmonized')
    rows = read_table(table) if table.is_file() else []
    return {row['scan']: row.get('artifact_flag', '') for row in rows if 'scan' in row}


def _sidecar(candidate: Candidate, reason: str, results: Path) -> dict:
    """Sidecar of an exported image: that of the harmonized one, with its origin."""
    return dict(candidate.sidecar) | {
        'Description': DESCRIPTIONS['preproc'],
        'Sources': [_uri(candidate.image, results)],
        'SkullStripped': bool(candidate.sidecar['SkullStripped']),
        'ExportedScan': candidate.name,
        'ExportReason': reason,
    }


def _resample(moving: Candidate, fixed: Candidate, out: Path) -> None:
    """Bring a scan onto the grid of another one of its session, once, through the template."""
    from harmony_app.imaging.io import read_scan, write_like
    from harmony_app.imaging.resample import resample

    target, scan = read_scan(fixed.image), read_scan(moving.image)
    to_fixed = np.linalg.inv(_to_template(fixed)) @ _to_template(moving)
    moved = resample(scan.volume, target.volume.shape, target.volume.affine, to_fixed)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_like(out, np.maximum(moved.data, 0), target.geometry)


def _to_template(candidate: Candidate) -> np.ndarray:
    contrast = parse_name(candidate.name)[1]
    way = {'from': contrast, 'to': SPACE, 'mode': 'image'}
    root = candidate.image.parents[2 + ('ses' in candidate.entities)]
    return read_itk_affine(derivative_path(root, candidate.entities, 'xfm', '.txt', **way))


def _native_mask(candidate: Candidate) -> Path:
    root = candidate.image.parents[2 + ('ses' in candidate.entities)]
    return derivative_path(root, candidate.entities, 'mask', desc='brain')


def _uri(path: Path, results: Path) -> str:
    return f'bids:{RESULTS_LINK}:{path.relative_to(results).as_posix()}'


def _is_current(path: Path, sources: Sequence[Path], fields: Mapping | None) -> bool:
    """Whether an exported file is newer than what it is made of, and made of that."""
    if not path.is_file():
        return False
    stamp = path.stat().st_mtime_ns
    if any(source.stat().st_mtime_ns > stamp for source in sources):
        return False
    if fields is None:
        return True
    try:
        return json.loads(sidecar_path(path).read_text(encoding='utf-8')) == dict(fields)
    except (OSError, ValueError):
        return False


def _copy(source: Path, path: Path) -> None:
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def _remove(*paths: Path) -> None:
    """Remove images of an earlier export, and their sidecars."""
    for path in paths:
        path.unlink(missing_ok=True)
        sidecar_path(path).unlink(missing_ok=True)


_README = """# harmony-app {version}: harmonized scans for fMRIPrep

Give this folder to fMRIPrep as derivatives, beside the raw dataset:

    fmriprep RAW OUT participant --derivatives harmony=THIS_FOLDER

fMRIPrep then works on the harmonized intensities and corrects no bias field of its own. Each
session has one `desc-preproc_T1w`, on the grid of the scan; `ExportedScan` and `ExportReason` of
its sidecar say which run it is, and why. A `desc-preproc_T2w` lies on the grid of the T1w.
With several sessions of a participant give `--subject-anatomical-reference sessionwise` too.
"""
