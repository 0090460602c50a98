"""The share of the gap that harmonization closes."""

import numpy as np
import pytest

from harmony_app.evaluation.metrics import psnr, ssim
from harmony_app.evaluation.travelling import Comparison, compare, gap_closed


@pytest.fixture(scope='module')
def visits():
    """A head without noise, its rescan, another contrast of it, and one half-way between."""
    generator = np.random.default_rng(3)
    truth = generator.random((16, 16, 16))
    rescan = truth + 0.02 * generator.normal(size=truth.shape)
    before = truth**2
    return before, 0.5 * (before + truth), rescan, truth


def test_columns_are_the_metrics_against_the_truth(visits):
    before, after, rescan, truth = visits
    mask = np.ones(truth.shape, bool)
    table = compare(before, after, rescan, truth, mask, data_range=1.0)
    assert list(table) == ['ssim', 'psnr', 'rmse', 'pcc']
    assert table['ssim'].before == ssim(before, truth, mask, 1.0)
    assert table['psnr'].ceiling == psnr(rescan, truth, mask, 1.0)
    # Half the difference everywhere: the error is halved, and 6.02 dB are gained.
    assert table['rmse'].after == pytest.approx(table['rmse'].before / 2)
    assert table['psnr'].after - table['psnr'].before == pytest.approx(20 * np.log10(2))
    for comparison in table.values():
        assert 0 < comparison.gap_closed < 1


def test_gap_closed_by_hand():
    assert gap_closed(before=0.6, after=0.9, ceiling=0.9) == 1
    assert gap_closed(before=0.5, after=0.5, ceiling=0.9) == 0
    assert gap_closed(before=10, after=4, ceiling=2) == pytest.approx(0.75)
    assert gap_closed(before=10, after=12, ceiling=2) == pytest.approx(-0.25)
    assert np.isnan(gap_closed(before=1, after=2, ceiling=1))
    assert Comparison(0.0, 1.0, 4.0).gap_closed == 0.25
