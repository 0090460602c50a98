"""The ablation: two steps on tiny heads, judged by pairs, resumed where it stopped."""

import numpy as np
import pytest
import torch

from benchmarks import ablation
from harmony_app.imaging.profile import measure_profile_coarse
from harmony_app.nets.bilateral import TransferNetwork
from harmony_app.phantom.tissues import TISSUES
from harmony_app.training.heads import VALIDATION
from harmony_app.training.transfer_draws import RealScan

SHELLS = {'csf': 0.15, 'wm': 0.45, 'gm': 0.62, 'bone': 0.8, 'fat': 0.95}


@pytest.fixture(scope='module')
def heads(tmp_path_factory):
    """Shells of tissues, 64 voxels wide."""
    folder = tmp_path_factory.mktemp('heads')
    axes = np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing='ij')
    for name, size in (('a', 0.95), ('b', 0.85), (VALIDATION[0], 0.9)):
        radius = np.sqrt(sum(a**2 for a in axes)) / size
        fractions = np.zeros((len(TISSUES), 64, 64, 64), np.uint8)
        inner = -1.0
        for tissue, outer in SHELLS.items():
            fractions[TISSUES.index(tissue)] = 255 * ((radius >= inner) & (radius < outer))
            inner = outer
        maps = [255 * (radius < 0.62)] + [fractions[TISSUES.index(t)] for t in ('gm', 'wm', 'csf')]
        np.save(folder / f'{name}_fractions.npy', fractions)
        np.save(folder / f'{name}_maps.npy', np.stack(maps).astype(np.uint8))
    return folder


def _judge(name: str, grey: float, fluid: float) -> ablation.Judge:
    axes = np.meshgrid(*[np.linspace(-1, 1, 32)] * 3, indexing='ij')
    radius = np.sqrt(sum(a**2 for a in axes))
    tissues = np.stack(
        [(radius >= 0.5) & (radius < 0.7), (radius >= 0.3) & (radius < 0.5), radius < 0.3]
    ).astype(np.float32)
    data = np.tensordot([grey, 1.0, fluid], tissues, 1).astype(np.float32)
    data += 0.01 * np.random.default_rng(0).random(data.shape, np.float32) * (data > 0)
    brain = radius < 0.7
    scan = RealScan('T1w', data, brain, tissues)
    return ablation.Judge(name, scan, measure_profile_coarse(data, brain, tissues), brain)


def test_without_training_only_the_map_of_levels_moves_a_real_scan():
    """It closes the whole distance, and a network that is given the scan itself none of it."""
    pair = [_judge('one', 0.6, 0.3), _judge('two', 0.8, 0.2)]
    with_map = ablation.judge_pairs(TransferNetwork(ablation.CONFIG).eval(), pair)
    without = ablation.judge_pairs(TransferNetwork(ablation.BARE).eval(), pair)
    assert list(with_map.source) == ['one', 'two']
    assert with_map.before[0] == pytest.approx(np.hypot(0.2, 0.1), abs=0.02)
    assert (with_map.closed > 0.9).all()
    assert without.closed.to_numpy() == pytest.approx(0, abs=1e-5)


def test_variants_are_trained_measured_and_not_trained_again(heads, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, 'CHECKS', 2)
    monkeypatch.setattr('harmony_app.training.transfer.CHECKS', 2)
    made = ablation.Ablation(tmp_path, heads, steps=2, batch=1, subjects=1)
    made.judges = [_judge('one', 0.6, 0.3), _judge('two', 0.8, 0.2)]
    names = ['reference', 'bare_plain']
    table = made.run(names).set_index('variant')
    assert list(table.index) == ['untrained', *names]
    assert table.psnr_before.nunique() == 1  # all are judged on the same draws
    assert table.loc['untrained', 'psnr'] > table.loc['bare_plain', 'psnr']
    assert set(table.pairs) == {2}
    assert table.loc['reference', ['more', 'more_error']].tolist() == [0, 0]
    more = table.psnr - table.loc['reference', 'psnr']
    assert table.more.to_numpy() == pytest.approx(more.to_numpy())
    assert (tmp_path / 'reference' / 'validation.csv').exists()

    monkeypatch.setattr(made, 'train', None)
    assert made.run(names).set_index('variant').equals(table)


def test_shared_draws_are_those_of_the_source():
    class Source:
        drawn = 0

        def draw(self, rng):
            self.drawn += 1
            return rng.random()

    source = Source()
    shared = ablation.Remembered(source)
    found = [shared.draw(np.random.default_rng(seed)) for seed in (1, 2, 1)]
    assert found == [np.random.default_rng(seed).random() for seed in (1, 2, 1)]
    assert source.drawn == 2


def test_every_variant_differs_from_the_first():
    settings = [(v.network, v.draws, v.loss, v.real, v.length) for v in ablation.VARIANTS.values()]
    assert len(set(settings)) == len(settings)
    assert torch.is_tensor(TransferNetwork(ablation.VARIANTS['guide'].network).guide())
