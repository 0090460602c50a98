"""Eta read off whole scans: only its last layers learn, and they learn to order severities."""

import copy

import numpy as np
import pytest
import torch

from harmony_app.methods.base import CONTRASTS
from harmony_app.nets.encoders import EtaEncoder
from harmony_app.training import eta_head
from harmony_app.training.eta_head import HeadSettings, Pooled
from harmony_app.training.slices import SliceSampler


@pytest.fixture
def eta():
    torch.manual_seed(0)
    return EtaEncoder(widths=(4, 4))


def made_scans(count, seed=0):
    """Statistics in which one number grows with the severity and another tells the contrast."""
    rng = np.random.default_rng(seed)
    scans = []
    for number in range(count):
        severity = np.concatenate([[0.0], np.sort(rng.random(2))]).astype(np.float32)
        statistics = rng.normal(0, 0.3, (3, 6, 32)).astype(np.float32)
        statistics[:, :, 0] = 3 * severity[:, None] + rng.normal(0, 0.1, (3, 6))
        statistics[:, :, 1] = number % 4
        scans.append(
            Pooled(
                CONTRASTS[number % 4],
                ('none', 'noise', 'noise'),
                torch.from_numpy(severity),
                torch.from_numpy(statistics),
            )
        )
    return scans


def test_what_is_pooled_and_read_is_eta(eta, head):
    (scan,) = eta_head.draw_scans(eta, [head], 1, seed=2, slices=1)
    assert scan.statistics.shape == (7, 3, 32)
    drawn = eta_head.VolumeSampler([head], 1, 3).draw(np.random.default_rng([2, 0]))
    images = torch.from_numpy(drawn.images[1][:, 0]).float()[:, None]
    view = torch.from_numpy(drawn.views[1]).float()[:, None].expand_as(images)
    with torch.no_grad():
        torch.testing.assert_close(eta(images, view), eta.read(scan.statistics[:, 1]))


def test_order_of_severities_is_learned_by_the_last_layers_alone(eta):
    before = copy.deepcopy(eta.state_dict())
    scans, held_out = made_scans(24), made_scans(12, seed=1)
    eta_head.fit_head(eta, scans, [], HeadSettings(steps=300, rate=5e-3), seed=3)
    for name, tensor in eta.state_dict().items():
        if not name.startswith('head.'):
            assert torch.equal(tensor, before[name]), name
    rows = eta_head.scan_lengths(eta, held_out)
    scale = eta_head.measure_scale(rows)
    found = eta_head.rank_scans(rows, scale)
    assert set(found) == {'all', 'noise'}
    assert found['all'] > 0.85
    assert set(scale.unspoiled) == set(CONTRASTS)
    assert 0 < scale.poor < 1
    again = EtaEncoder(widths=(4, 4))
    again.load_state_dict(before)
    eta_head.fit_head(again, scans, [], HeadSettings(steps=300, rate=5e-3), seed=3)
    assert torch.equal(again.head[1].weight, eta.head[1].weight)


def test_single_slices_take_part(eta, head):
    sampler = SliceSampler([head], 32)
    drawn = [sampler.draw(np.random.default_rng(i)) for i in range(3)]
    slices = [eta_head.pool_slices(eta, batch) for batch in drawn]
    assert slices[0]['statistics'].shape == (5, 32)
    assert (slices[0]['severity'] == drawn[0].severity[0]).all()
    with torch.no_grad():
        expected = eta(drawn[0].severe, drawn[0].views[:, 2:])
        torch.testing.assert_close(eta.read(slices[0]['statistics'][4:]), expected)
    loss = eta_head.slice_loss(eta, slices, dropout=0.0)
    assert loss.isfinite()
    eta_head.fit_head(eta, made_scans(4), slices, HeadSettings(steps=100), seed=1)
    assert eta_head.slice_loss(eta, slices, dropout=0.0) < loss


def test_scans_without_artifacts_teach_nothing(eta):
    plain = Pooled('T1w', ('none',), torch.zeros(1), torch.zeros(1, 6, 32))
    with pytest.raises(ValueError, match='draw some'):
        eta_head.fit_head(eta, [plain], [], HeadSettings(steps=1))
