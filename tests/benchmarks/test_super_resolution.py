import numpy as np
import pandas as pd
import pytest

from benchmarks import super_resolution
from harmony_app.imaging.slice_profile import thickening_matrix, thin_factor
from harmony_app.imaging.volume import Volume
from harmony_app.phantom.tissues import TISSUES
from harmony_app.training.heads import Head


@pytest.fixture(scope='module')
def head():
    """A ball of white matter in grey matter, with a little fluid, on the working grid's origin."""
    shape = (40, 44, 40)
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'))
    radius = np.sqrt(((at - (np.array(shape) - 1)[:, None, None, None] / 2) ** 2).sum(0))
    fractions = np.zeros((len(TISSUES), *shape), np.uint8)
    for name, low, high in (('csf', 0, 3), ('wm', 3, 9), ('gm', 9, 13), ('bone', 13, 16)):
        fractions[TISSUES.index(name)][(radius >= low) & (radius < high)] = 255
    return Head('ball', fractions, np.zeros((4, *shape), np.uint8))


def test_thin_slices_of_a_case_fill_the_thick_ones(head, monkeypatch):
    monkeypatch.setattr(super_resolution, 'LESIONS', 0.0)
    case = super_resolution.draw_case(head, 'T2w', 4.0)
    factor = thin_factor(case.scan.zooms)
    assert factor == 4
    assert case.truth.shape == case.brain.shape == (*case.scan.shape[:2], 4 * case.scan.shape[2])
    again = case.truth.data @ thickening_matrix(case.scan.shape[2], factor).T
    inside = again > 0.3
    # the scan is the truth thickened, but for its noise
    assert np.corrcoef(again[inside], case.scan.data[inside])[0, 1] > 0.95
    assert 0 < case.brain.sum() < case.head.sum()


def test_a_cell_holds_both_and_a_mean_over_heads():
    rows = [
        {'contrast': 'T2w', 'mm': 5.0, 'by': by, 'seconds': seconds}
        | {f'{m}_{w}': value + shift for m, value in (('psnr', 20), ('ssim', 0.5))
           for w in ('brain', 'head')}
        for by, seconds, value_shift in (('B-spline', 1, 0), ('super-resolution', 40, 0.1))
        for shift in (value_shift, value_shift + 0.2)
    ]  # fmt: skip
    line = super_resolution.to_markdown(pd.DataFrame(rows)).splitlines()[-1]
    assert (
        line == '| T2w | 5 | 20.1 to 20.2 | 0.600 to 0.700 | 20.1 to 20.2 | 0.600 to 0.700 | 40 |'
    )


def test_scores_are_best_for_the_truth(head, monkeypatch):
    monkeypatch.setattr(super_resolution, 'LESIONS', 0.0)
    case = super_resolution.draw_case(head, 'FLAIR', 3.0)
    best = super_resolution.score(case.truth.data, case)
    worse = super_resolution.score(Volume(case.truth.data + 0.1, case.truth.affine).data, case)
    assert best['ssim_brain'] == pytest.approx(1)
    assert best['psnr_head'] == np.inf
    assert all(worse[key] < best[key] for key in best)
