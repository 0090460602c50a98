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

    from harmony_app.imaging.profile import TissueProfile
    from harmony_app.methods.base import Style

    medians = {
        'T1w': (0.7, 1.0, 0.3),
        'T2w': (1.4, 1.0, 2.5),
        'PDw': (1.2, 1.0, 1.3),
        'FLAIR': (1.2, 1.0, 0.4),
    }

    def make(contrast: str, name: str = 'made') -> Style:
        gm, wm, csf = medians[contrast]
        low, high = min(gm, csf), max(gm, wm, csf)
        brain = tuple(np.linspace(0.8 * low, 1.1 * high, 100).tolist())
        head = tuple(np.linspace(0.1, 1.5, 100).tolist())
        return Style(name, contrast, TissueProfile((gm, wm, csf), (0.05, 0.05, 0.1), brain, head))

    return make
