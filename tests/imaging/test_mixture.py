"""The level of a tissue is found although its map covers other tissues too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmony_app.imaging.mixture import level_among


def sample(level, share, mixed, noise, seed, count=600):
    """Values of a tissue at ``level``, of brain at 0.7 and 1, and of voxels that hold both."""
    rng = np.random.default_rng(seed)
    brain = np.concatenate([rng.normal(0.7, noise, 2000), rng.normal(1, noise, 2000)])
    own = rng.normal(level, noise, int(share * count))
    both = rng.uniform(*sorted((level, 0.85)), int(mixed * count))
    beside = rng.choice(brain, count - len(own) - len(both))
    return np.concatenate([own, both, beside]), brain


@settings(max_examples=60, deadline=None)
@given(
    level=st.sampled_from([0.05, 0.2, 0.35, 2.0, 4.0]),
    share=st.floats(0.25, 1.0),
    mixed=st.floats(0.0, 0.3),
    seed=st.integers(0, 1000),
)
def test_a_map_that_covers_brain_too_changes_little(level, share, mixed, seed):
    values, brain = sample(level, min(share, 1 - mixed), mixed, 0.04, seed)
    assert level_among(values, brain) == pytest.approx(level, abs=0.03 + 0.05 * level)


def test_a_tissue_as_bright_as_its_neighbours_has_their_level():
    values, brain = sample(0.7, 0.6, 0.0, 0.04, 3)
    assert 0.65 < level_among(values, brain) < 1.0


def test_the_order_of_the_values_does_not_matter():
    values, brain = sample(0.2, 0.5, 0.2, 0.04, 4)
    shuffled = np.random.default_rng(1).permutation(values)
    assert level_among(shuffled, brain) == pytest.approx(level_among(values, brain), abs=1e-12)
