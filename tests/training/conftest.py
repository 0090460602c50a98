"""A head that is drawn in a moment."""

import numpy as np
import pytest

from harmony_app.phantom.tissues import TISSUES
from harmony_app.training.heads import Head


@pytest.fixture(scope='session')
def head():
    """Shells of skin, bone, CSF, cortex and white matter with ventricles, 64 voxels wide."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (64, 72, 64)), indexing='ij')
    radius = np.sqrt(sum(a**2 for a in axes)) + 0.05 * np.sin(9 * axes[0]) * np.cos(7 * axes[1])
    edges = {'csf': 0.2, 'wm': 0.5, 'gm': 0.62, 'bone': 0.8, 'skin': 0.9}
    fractions = np.zeros((len(TISSUES), 64, 72, 64), np.uint8)
    inner = 0.0
    for name, outer in edges.items():
        fractions[TISSUES.index(name)] = 255 * ((radius >= inner) & (radius < outer))
        inner = outer
    fractions[TISSUES.index('csf')] += (255 * ((radius >= 0.62) & (radius < 0.66))).astype(np.uint8)
    fractions[TISSUES.index('bone')][(radius >= 0.62) & (radius < 0.66)] = 0
    brain = (255 * (radius < 0.64)).astype(np.uint8)
    return Head('shells', fractions, np.stack([brain] * 4))
