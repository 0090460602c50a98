"""CSF moved to where a map of intensity reaches the target."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.profile import TissueProfile, measure_profile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan, Style
from harmony_app.methods.fluid import shift_fluid
from harmony_app.methods.transfer import Transfer
from harmony_app.methods.transfer_features import CONDITION
from harmony_app.nets.bilateral import TransferConfig, TransferNetwork

LEVELS = {'PDw': (1.17, 1.0, 1.33), 'T2w': (1.5, 1.0, 4.3)}
DARK = (1.09, 1.0, 0.93)
"""PDw of a site where CSF is darker than brain."""


def profile(levels):
    return TissueProfile(levels, (0.05,) * 3, tuple(np.linspace(min(levels), max(levels), 100)), ())


@pytest.fixture(scope='module')
def session():
    """Shells of WM, GM and CSF in two contrasts, on the working grid; the native grid is coarser."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in WORKING_SHAPE), indexing='ij', sparse=True)
    radius = np.sqrt(sum((a / 0.75) ** 2 for a in axes))
    shells = [(radius > 0.6) & (radius <= 0.85), radius <= 0.6, (radius > 0.85) & (radius < 1)]
    brain, maps = radius < 1, (255 * np.stack(shells)).astype(np.uint8)
    scans = []
    for contrast, levels in LEVELS.items():
        data = np.tensordot(np.float32(levels), np.stack(shells), axes=1) + 0.5 * (radius >= 1)
        data = (data + 0.02 * rng.standard_normal(WORKING_SHAPE)).astype(np.float32)
        volume = Volume(data, WORKING_AFFINE)
        coarse = WORKING_AFFINE @ np.diag([2, 2, 2, 1.0])
        scans.append(
            Scan(
                name=contrast,
                contrast=contrast,
                working=volume,
                native=Volume(np.ascontiguousarray(data[::2, ::2, ::2]), coarse),
                native_to_working=np.eye(4),
                brain=brain,
                tissues=maps,
                profile=measure_profile(data, brain, maps),
            )
        )
    return scans


@pytest.fixture(scope='module')
def shells(session):
    return session[0].tissues > 0


def test_csf_moves_and_brain_stays(session, shells):
    scan = session[0]
    moved = shift_fluid(scan, session, profile(DARK))
    grey, white, fluid = (moved.scan.working.data[shell] for shell in shells)
    assert np.median(fluid) == pytest.approx(moved.settings['TransferFluidLevel'], abs=0.02)
    assert np.median(fluid) < np.median(white) < np.median(grey)
    np.testing.assert_allclose(grey.mean(), scan.working.data[shells[0]].mean(), atol=0.005)
    # noise alone passes the floor in few voxels
    assert np.mean(white != scan.working.data[shells[1]]) < 0.01
    assert moved.settings['TransferFluidContrasts'] == ['PDw', 'T2w']


def test_black_fluid_is_no_border_of_the_field_of_view(session, shells):
    """Fluid is so dark in FLAIR that single voxels are 0: they move like their neighbours."""
    rng = np.random.default_rng(1)
    data = np.tensordot(np.float32((1.12, 1.0, 0.1)), shells, axes=1)
    data = np.maximum(data + 0.05 * rng.standard_normal(data.shape), 0).astype(np.float32)
    data[shells[2] & (rng.random(data.shape) < 0.2)] = 0
    volume = Volume(data, WORKING_AFFINE)
    measured = measure_profile(data, session[0].brain, session[0].tissues)
    flair = replace(session[1], contrast='FLAIR', working=volume, native=volume, profile=measured)
    moved = shift_fluid(session[0], [session[0], flair], profile(DARK))
    change = (moved.scan.working.data - session[0].working.data)[shells[2] & (data == 0)]
    assert np.median(change) == pytest.approx(DARK[2] - 1.33, abs=0.08)
    assert np.percentile(change, 99) < -0.2


def test_the_native_grid_moves_alike(session):
    moved = shift_fluid(session[0], session, profile(DARK)).scan
    away = moved.native.data - moved.working.data[::2, ::2, ::2]
    fluid = session[0].tissues[2][::2, ::2, ::2] > 0
    # the partner's noise is smoothed on the coarser grid, what is moved is not
    assert abs(away[fluid].mean()) < 0.01
    assert np.abs(away).max() < 0.3


def test_nothing_moves_where_nothing_has_to(session):
    assert shift_fluid(session[0], session, profile((1.2, 1.0, 1.4))) is None


def test_what_cannot_be_moved_is_told(session, caplog):
    scan, partner = session
    doubtful = replace(scan, doubtful=True)
    blind = replace(partner, working=scan.working, profile=scan.profile)
    for source, scans, reason in (
        (scan, [scan], 'no other contrast'),
        (doubtful, [doubtful, partner], 'doubtful'),
        (scan, [scan, blind], 'do not tell fluid from brain'),
    ):
        caplog.clear()
        left = shift_fluid(source, scans, profile(DARK))
        assert left.scan is source
        assert reason in left.settings['TransferFluidLeft']
        assert 'PDw: its CSF stays' in caplog.text


def test_the_transfer_reaches_a_target_on_the_other_side(session):
    torch.manual_seed(0)
    method = Transfer(TransferNetwork(TransferConfig(condition=CONDITION, width=8)), {})
    target = Style('dark', 'PDw', profile(DARK))
    for scans, reached in ((session, True), (session[:1], False)):
        (result,) = method.harmonize(scans, target)
        scan = scans[0]
        levels = measure_profile(result.working.data, scan.brain, scan.tissues).levels
        assert (np.abs(np.subtract(levels, DARK)).max() < 0.04) == reached
        assert ('TransferFluidLevel' in result.settings) == reached
