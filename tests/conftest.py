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
