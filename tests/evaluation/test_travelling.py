"""The share of the gap that harmonization closes."""

import numpy as np
import pytest

from harmony_app.evaluation.travelling import gap_closed


def test_gap_closed_by_hand():
    assert gap_closed(before=0.6, after=0.9, ceiling=0.9) == 1
    assert gap_closed(before=0.5, after=0.5, ceiling=0.9) == 0
    assert gap_closed(before=10, after=4, ceiling=2) == pytest.approx(0.75)
    assert gap_closed(before=10, after=12, ceiling=2) == pytest.approx(-0.25)
    assert np.isnan(gap_closed(before=1, after=2, ceiling=1))
