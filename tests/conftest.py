"""Fixtures that tests of several rooms share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Read when the libraries are imported: no telemetry, no window, no threads that add in any order.
os.environ.setdefault('NO_ET', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS', '1')

# Two busy cores make a deadline a matter of luck; the same examples everywhere make a failure
# one that can be seen again.
settings.register_profile('suite', deadline=None, derandomize=True, max_examples=50)
settings.load_profile('suite')


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder of the real scans and label maps, which are no part of the repository."""
    folder = Path(os.environ.get('HARMONY_DATA') or Path(__file__).parents[2] / 'shared' / 'data')
    if not folder.is_dir():
        pytest.skip(f'no shared data in {folder}; name it in HARMONY_DATA')
    return folder


@pytest.fixture
def make_dataset(tmp_path):
    """Make a BIDS dataset of empty files: ``make_dataset('sub-01/anat/sub-01_T1w.nii.gz', ...)``."""
    import json

    def make(*files: str, name: str = 'raw', **texts: str) -> Path:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        description = {'Name': 'skeleton', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
        (root / 'dataset_description.json').write_text(json.dumps(description))
        for file in files:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).touch()
        for file, text in texts.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text)
        return root

    return make


@pytest.fixture(scope='session')
def make_style():
    """Make a plausible target style of a contrast: ``make_style('T1w')``."""
    import numpy as np

    from harmony_app.imaging.profile import PERCENTILES, TissueProfile
    from harmony_app.methods.base import Style

    medians = {
        'T1w': (0.7, 1.0, 0.3),
        'T2w': (1.4, 1.0, 2.5),
        'PDw': (1.2, 1.0, 1.3),
        'FLAIR': (1.2, 1.0, 0.4),
    }

    def make(contrast: str, name: str = 'made') -> Style:
        gm, wm, csf = medians[contrast]
        # Half grey matter, a third white matter, the rest CSF: quantiles that fit the medians.
        parts = [(gm, 3000), (wm, 2000), (csf, 1000)]
        values = np.concatenate([np.linspace(0.9 * m, 1.1 * m, n) for m, n in parts])
        brain = tuple(np.percentile(values, PERCENTILES).tolist())
        head = tuple(np.linspace(0.1, 1.5, 100).tolist())
        return Style(name, contrast, TissueProfile((gm, wm, csf), (0.05, 0.05, 0.1), brain, head))

    return make


@pytest.fixture(scope='session')
def make_head():
    """Make a small synthetic head from the template's maps: ``make_head('T1w', spacing=4.0)``.

    Gives the volume on its own grid and the transform of its mm to those of the working grid.
    """
    import numpy as np
    from scipy import ndimage

    from harmony_app.imaging.grid import WORKING_AFFINE
    from harmony_app.imaging.resample import resample
    from harmony_app.imaging.template import load_template
    from harmony_app.imaging.volume import Volume

    intensities = {
        'T1w': (0.5, 1.0, 0.1, 0.8),
        'T2w': (1.4, 1.0, 2.6, 0.9),
        'PDw': (1.2, 1.0, 1.3, 0.8),
        'FLAIR': (1.2, 1.0, 0.35, 0.7),
    }

    def make(contrast: str, spacing: float = 4.0, shift=(2.0, -3.0, 5.0)):
        template = load_template()
        gm, wm, csf, scalp = intensities[contrast]
        head = gm * template.tissues[0] + wm * template.tissues[1] + csf * template.tissues[2]
        distance = ndimage.distance_transform_edt(~template.brain[::2, ::2, ::2]) * 2
        shell = ((distance > 6) & (distance < 14)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        head = np.where(shell, scalp, head).astype(np.float32)
        noise = np.random.default_rng(0).normal(0, 0.01, head.shape).astype(np.float32)
        to_working = np.eye(4)
        to_working[:3, 3] = shift
        shape = tuple(int(n / spacing) for n in head.shape)
        affine = np.linalg.inv(to_working) @ WORKING_AFFINE @ np.diag([spacing] * 3 + [1.0])
        volume = Volume(np.maximum(head + noise, 0), WORKING_AFFINE)
        small = resample(volume, shape, affine, np.linalg.inv(to_working), order=1)
        return Volume(small.data * np.float32(400), affine), to_working

    return make


@pytest.fixture(scope='session')
def known_template():
    """Make a registration to the template that is known instead of found: ``known_template(matrix)``.

    It stands for :func:`harmony_app.imaging.registration.register_template`, which costs most of a run.
    """
    import numpy as np

    from harmony_app.imaging.registration import TemplateRegistration
    from harmony_app.imaging.template import load_template

    def make(matrix: np.ndarray):
        def register(volume, contrast=None, given=None):
            template = load_template()
            tissues = np.rint(template.tissues * 255).astype(np.uint8)
            return TemplateRegistration(matrix, matrix, template.brain, tissues, 0.9)

        return register

    return make


@pytest.fixture(scope='session')
def results_tree(tmp_path_factory, make_style):
    """Results of a study on a coarse grid, written as the participant level writes them.

    ``sub-01`` has a session whose T2w crashed and one that lies doubtfully; ``sub-02`` has words that
    would be HTML, and a target that is a scan of ``sub-01``.
    """
    import numpy as np

    from harmony_app.bids.atomic import write_json, write_table, write_text
    from harmony_app.bids.derivatives import derivative_path, sidecar_path
    from harmony_app.bids.entities import parse_name
    from harmony_app.bids.publish import write_marker
    from harmony_app.imaging.grid import SPACE, coarse_grid
    from harmony_app.imaging.io import write_volume
    from harmony_app.imaging.template import load_template
    from harmony_app.imaging.volume import Volume
    from harmony_app.workflows.summary import OUTCOME_COLUMNS
    from harmony_app.workflows.writing import QC_COLUMNS

    root = tmp_path_factory.mktemp('results')
    run = '20260101-120000_0a1b2c3d'
    shape, affine = coarse_grid(4)
    template = load_template()
    tissues = template.tissues.reshape(3, shape[0], 4, shape[1], 4, shape[2], 4).mean((2, 4, 6))
    brain = tissues.sum(axis=0) > 0.5
    levels = {'T1w': (0.7, 1.0, 0.2), 'FLAIR': (1.2, 1.0, 0.3)}
    noise = np.random.default_rng(3).normal(0, 0.02, shape)
    grid = {'space': SPACE, 'res': '1'}
    hostile = '<script>alert("a & b")</script>'

    def head(values):
        data = np.tensordot(np.array(values), tissues, axes=1) + noise
        return Volume(np.maximum(data, 0).astype(np.float32), affine)

    def scan(name, target, method, site, notes=(), **added):
        """Images, sidecars and the row of the quality table."""
        entities, contrast, _ = parse_name(name)
        before, after = levels[contrast], tuple(0.95 * level for level in levels[contrast])
        for desc, values, peak in (('preproc', before, 1.0), ('harmonized', after, 1000.0)):
            path = derivative_path(root, entities, contrast, desc=desc, **grid)
            path.parent.mkdir(parents=True, exist_ok=True)
            image = head(values)
            write_volume(path, image.with_data(image.data * np.float32(peak)))
            fields = {'WhiteMatterPeak': peak, 'SkullStripped': False}
            fields['SourceScan'] = {
                'VoxelSize': [1.0, 1.0, 4.0 if contrast == 'FLAIR' else 1.0],
                'ThickSlices': contrast == 'FLAIR',
                'BiasFieldCorrected': True,
                'Notes': list(notes),
            }
            if desc == 'harmonized':
                fields |= {
                    'HarmonizationMethod': method,
                    'HarmonizationTarget': target,
                    'HarmonizationSettings': {'Detail': 'transfer', 'Fusion': 'network'},
                    'HarmonizationModelSHA256': 'ab' * 32,
                    'HarmonyAppVersion': '0.1.0',
                    'RandomSeed': 7,
                    'Device': 'cpu',
                }
            write_json(sidecar_path(path), fields)
        row = {'scan': name, 'contrast': contrast, 'site': site, 'method': method, 'target': target}
        row |= {'edge_agreement': 0.98, 'registration_quality': 0.9, 'brain_ml': 1400.0}
        for tissue, first, second in zip(('gm', 'wm', 'csf'), before, after, strict=True):
            row |= {f'{tissue}_level_before': first, f'{tissue}_level_after': second}
            row[f'{tissue}_level_target'] = second
        return row | {'level_distance_before': 0.1, 'level_distance_after': 0.01} | added

    def session(visit, rows, states, styles=()):
        shared = parse_name(f'{visit}_T1w')[0]
        path = derivative_path(root, shared, 'mask', desc='brain', **grid)
        write_volume(path, Volume(brain.astype(np.float32), affine), np.uint8)
        write_json(sidecar_path(path), {'Description': 'Brain mask of the registered template'})
        for tissue, data in zip(('GM', 'WM', 'CSF'), tissues, strict=True):
            path = derivative_path(root, shared, 'probseg', label=tissue, **grid)
            write_volume(path, Volume(data.astype(np.float32), affine))
        table = derivative_path(root, shared, 'qc', '.tsv', desc='harmonized')
        write_table(table, list(QC_COLUMNS), rows)
        told = {key: {'Description': text} for key, text in QC_COLUMNS.items()}
        write_json(table.with_suffix('.json'), told)
        if styles:
            path = derivative_path(root, shared, 'qc', '.tsv', desc='style')
            write_table(path, list(styles[0]), list(styles))
        scans = {
            name: {'status': status, 'message': words, 'exit_code': 0, 'files': []}
            for name, status, words, _ in states
        }
        targets = {
            c: make_style(c, row['target']).to_dict() for row in rows for c in [row['contrast']]
        }
        marker = {'session': visit, 'run': run, 'digest': '', 'scans': scans, 'files': []}
        write_marker(root, visit, marker | {'targets': targets})
        return [
            {'scan': name, 'session': visit, 'status': status, 'message': words, 'crash': crash}
            for name, status, words, crash in states
        ]

    t1w, flair, t2w = (f'sub-01_ses-a_{c}' for c in ('T1w', 'acq-2d_FLAIR', 'T2w'))
    later, other = 'sub-01_ses-b_T1w', 'sub-02_T1w'
    crash = 'crash-20260101-120100-user-harmonize-0.txt'
    doubtful = 'registration to the template is doubtful (quality 0.41): look at the figure'
    style_rows = [
        {'result': t1w, 'scan': name, 'attention': weight, 'theta_1': x, 'theta_2': y}
        for name, weight, x, y in ((t1w, 0.7, 0.1, 0.2), (flair, 0.3, 0.4, 0.9), ('target', None, 0.5, 0.5))
    ]  # fmt: skip
    thick = ('thick slices were brought to 1 mm by cubic B-splines',)
    rows_a = [
        scan(t1w, 'mprage-3t', 'haca3', 'A', artifact_level=0.05, artifact_flag='good'),
        scan(flair, 'flair-3t', 'haca3', 'A', thick, artifact_level=0.2, artifact_flag='doubtful'),
    ]
    outcomes = session(
        'sub-01_ses-a',
        rows_a,
        [(t1w, 'done', '', ''), (flair, 'done', '', ''), (t2w, 'failed', 'stopped; see /x', crash)],
        style_rows,
    )
    rows_b = [scan(later, 'mprage-3t', 'haca3', 'B')]
    outcomes += session('sub-01_ses-b', rows_b, [(later, 'done', doubtful, '')])
    rows = [scan(other, 'sub-01_ses-a', 'nyul', hostile)]
    outcomes += session(
        'sub-02', rows, [(other, 'done', '', ''), ('sub-02_PDw', 'skipped', hostile, '')]
    )
    logs = root / 'logs' / run
    write_table(logs / 'outcomes.tsv', OUTCOME_COLUMNS, outcomes)
    write_text(logs / crash, 'Node: x\nTraceback\nRuntimeError: the <power> failed\n')
    inputs = [
        {
            'path': f'{row["session"].replace("_", "/")}/anat/{row["scan"]}.nii.gz',
            'contrast': row['scan'].rpartition('_')[2],
            'entities': row['scan'].rpartition('_')[0].replace('_', ' '),
            'status': 'use',
        }
        for row in outcomes
    ]
    inputs.append(
        {
            'path': 'sub-01/ses-a/anat/sub-01_ses-a_UNIT1.nii.gz',
            'entities': 'sub-01 ses-a',
            'status': 'skip',
            'reason': hostile,
        }
    )
    columns = ['path', 'volume', 'contrast', 'suffix', 'entities', 'site', 'status', 'reason']
    write_table(logs / 'inputs.tsv', columns, inputs)
    write_text(
        logs / 'harmony_app.toml',
        '[run]\nmethod = "haca3"\n'
        'target = ["/a/folder/whose/name/does/not/end/on/a/narrow/screen/style.json"]\n'
        'random_seed = 7\n\n[environment]\n'
        'harmony_app = "0.1.0"\nnipype = "1.11.0"\ndevice_used = "cpu"\n',
    )
    return root


@pytest.fixture(scope='session')
def make_study(make_head):
    """Make a dataset of coarse heads, with transforms that spare their registration.

    ``make_study(folder, 4)`` writes ``folder/bids`` and ``folder/known``, one T1w of each
    person, and gives the arguments that a run of it takes. Processes that have
    ``tests/known_registration`` on their PYTHONPATH take no more than those transforms.
    """
    import json

    import nibabel as nib
    import numpy as np

    from harmony_app.bids.transforms import write_itk_affine
    from harmony_app.imaging.grid import SPACE

    def make(folder: Path, people: int) -> list[str]:
        head, to_working = make_head('T1w', spacing=5.0)
        raw, known = folder / 'bids', folder / 'known'
        for number in range(1, people + 1):
            anat = f'sub-{number:02d}/anat'
            for root in (raw, known):
                (root / anat).mkdir(parents=True)
            # Nobody's head is as bright as another's.
            data = np.rint(head.data * (1 + number / 10)).astype(np.int16)
            nib.save(
                nib.Nifti1Image(data, head.affine), raw / anat / f'sub-{number:02d}_T1w.nii.gz'
            )
            name = f'sub-{number:02d}_from-T1w_to-{SPACE}_mode-image_xfm.txt'
            write_itk_affine(known / anat / name, to_working)
        description = {'Name': 'heads', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
        (raw / 'dataset_description.json').write_text(json.dumps(description))
        return ['--derivatives', f'known={known}', '--method', 'histogram-matching', '--sloppy']

    return make
