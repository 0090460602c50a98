"""Small studies, and runs that can be made to go wrong; see ``zygote.py`` and ``small_heads``."""

import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
AFFINE = np.array([[5.0, 0, 0, -95], [0, 5, 0, -125], [0, 0, 5, -80], [0, 0, 0, 1]])
SHAPE = (39, 45, 38)
ENVIRONMENT = {
    'PYTHONPATH': os.pathsep.join(map(str, (ROOT, HERE / 'small_heads', HERE / 'mutant'))),
    'NO_ET': '1',
    'MPLBACKEND': 'Agg',
    'OMP_NUM_THREADS': '1',
}
LEVELS = {'T1w': (0.6, 1.0, 0.2, 0.8), 'T2w': (1.4, 1.0, 2.5, 0.9)}

settings.register_profile(
    'faults',
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)

spec = importlib.util.spec_from_file_location('small', HERE / 'small_heads' / 'sitecustomize.py')
small = importlib.util.module_from_spec(spec)


# Programs and import hooks: pytest looks for doctests in every file, and would import them.
collect_ignore = ['small_heads', 'mutant', 'zygote.py', 'atheris_images.py']


def pytest_collection_modifyitems(config, items):
    """Leave out what takes minutes unless it is asked for by its mark."""
    if 'faults' in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker('faults')]
    items[:] = [item for item in items if item not in long]
    config.hook.pytest_deselected(items=long)


@pytest.fixture
def small_environment():
    """Environment of processes in which everything is small."""
    return dict(ENVIRONMENT)


@pytest.fixture(scope='session')
def ellipsoids():
    """GM, WM and CSF maps, brain and scalp on a grid; without the import hook of ``small_heads``."""
    hooks = list(sys.meta_path)
    spec.loader.exec_module(small)
    sys.meta_path[:] = hooks
    return small.ellipsoids


@pytest.fixture(scope='session')
def make_small_head(ellipsoids):
    """Voxels of a small head: ``make_small_head('T1w', affine, shape, seed=1)``, float64, WM at 400."""

    def make(contrast='T1w', affine=AFFINE, shape=SHAPE, seed=1):
        tissues, _, scalp = ellipsoids(shape, affine)
        *levels, skin = LEVELS[contrast]
        noise = np.random.default_rng(seed).normal(0, 0.01, shape)
        return np.abs(np.tensordot(levels, tissues, 1) + skin * scalp + noise) * 400

    return make


def save(path, data, affine, dtype=np.int16, slope=None):
    """Write a scan; with a slope and intercept, voxels are stored as ``(data - intercept) / slope``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = data if slope is None else (data - slope[1]) / slope[0]
    if np.issubdtype(dtype, np.integer):
        stored = np.rint(stored)
    image = nib.Nifti1Image(stored.astype(dtype), affine)
    image.header.set_xyzt_units('mm')
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    if slope is None:
        nib.save(image, path)
        return path
    # nibabel would choose the scale itself
    header = image.header.copy()
    header['scl_slope'], header['scl_inter'], header['vox_offset'] = *slope, 352
    content = header.binaryblock + b'\0' * 4 + np.asarray(image.dataobj).tobytes(order='F')
    path.write_bytes(gzip.compress(content) if path.name.endswith('.gz') else content)
    return path


def describe(root, **fields):
    """Write ``dataset_description.json``."""
    root.mkdir(parents=True, exist_ok=True)
    text = json.dumps({'Name': 'heads', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'} | fields)
    (root / 'dataset_description.json').write_text(text)
    return root


@pytest.fixture(scope='session')
def save_scan():
    """Write a scan with its type, slope and intercept: :func:`save`."""
    return save


@pytest.fixture(scope='session')
def describe_dataset():
    """Write the description of a dataset: :func:`describe`."""
    return describe


@pytest.fixture(scope='session')
def make_small_study(make_small_head):
    """Make a dataset: ``make_small_study(root, people=2, contrasts=('T1w',))``."""

    def make(root, people=1, contrasts=('T1w',)):
        describe(root)
        for number in range(1, people + 1):
            for contrast in contrasts:
                name = f'sub-{number:02d}'
                data = make_small_head(contrast, seed=number) * (1 + number / 10)
                save(root / name / 'anat' / f'{name}_{contrast}.nii.gz', data, AFFINE)
        return root

    return make


def digests(root, *endings):
    """Content of the files below a folder, by name; of those with one of the endings."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file() and path.name.endswith(endings or '')
    }


@dataclass
class Run:
    """A run that was started: its process, and the file of what it told."""

    zygote: 'Zygote'
    pid: int
    file: Path
    code: int | None = field(default=None)

    def wait(self, seconds=120):
        """Exit code (negative for a signal); None where it had to be ended."""
        self.code = self.zygote.ask(wait=self.pid, seconds=seconds)['status']
        return self

    @property
    def told(self):
        return self.file.read_text(errors='replace')


class Zygote:
    """Forks runs of harmony-app from a process that has it loaded."""

    def __init__(self, folder):
        self.folder, self.number = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / 'zygote.py')],
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer()

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + '\n')
        self.process.stdin.flush()
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError('the process that runs harmony-app has ended')
        return json.loads(line)

    def start(self, *argv, **request):
        self.number += 1
        told = self.folder / f'run-{self.number}.txt'
        argv = [str(word) for word in argv]
        return Run(self, self.ask(argv=argv, told=str(told), **request)['pid'], told)

    def run(self, *argv, seconds=120, **request):
        return self.start(*argv, **request).wait(seconds)


@pytest.fixture(scope='session')
def zygote(tmp_path_factory):
    zygote = Zygote(tmp_path_factory.mktemp('told'))
    yield zygote
    zygote.process.stdin.close()
    zygote.process.wait(30)


class Study:
    """A dataset with an output and a work folder, and the command for it."""

    def __init__(self, zygote, raw, folder):
        self.zygote, self.raw, self.folder = zygote, raw, folder
        self.out, self.work = folder / 'out', folder / 'work'

    def command(self, *options, method='none'):
        first = [self.raw, self.out, 'participant', '-w', self.work, '--nprocs', 1]
        return [*first, '--method', method, '--sloppy', *options]

    def run(self, *options, method='none', **request):
        return self.zygote.run(*self.command(*options, method=method), **request)

    def start(self, *options, method='none', **request):
        return self.zygote.start(*self.command(*options, method=method), **request)

    def images(self):
        return digests(self.out, '.nii.gz')

    def clear(self):
        for folder in (self.out, self.work):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope='session')
def small_study(tmp_path_factory, make_small_study):
    """A dataset of one T1w; nobody writes into it."""
    return make_small_study(tmp_path_factory.mktemp('small') / 'raw')


@pytest.fixture(scope='session')
def new_study(zygote, small_study):
    """A dataset (that of one T1w, unless another is given) with folders: ``new_study(folder)``."""
    return lambda folder, raw=small_study: Study(zygote, raw, folder)


@pytest.fixture
def study(new_study, tmp_path):
    """The dataset of one T1w, with an output and a work folder of its own."""
    return new_study(tmp_path)
