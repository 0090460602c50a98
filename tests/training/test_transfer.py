"""Training of the transfer network: examples that are right, a loss that falls, exact resume."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError
from harmony_app.methods.base import CONTRASTS
from harmony_app.methods.transfer import Transfer
from harmony_app.methods.transfer_features import CONDITION
from harmony_app.nets.bilateral import TransferConfig, TransferNetwork
from harmony_app.phantom.tissues import TISSUES
from harmony_app.training.checkpoint import read_facts
from harmony_app.training.heads import TEST, VALIDATION, Head, load_heads
from harmony_app.training.loop import BEST, CHECKPOINT, Loop
from harmony_app.training.randomize import random_monotone_map, random_protocol, smooth_field
from harmony_app.training.subjects import draw_pool, plain_subject
from harmony_app.training.transfer import (
    LOOP,
    TransferTraining,
    coarse_l1,
    credits_of,
    cube_ssim,
    example_loss,
    load_real,
    main,
    phantom_sources,
    read_trained,
)
from harmony_app.training.transfer_draws import TransferDraws, random_look
from harmony_app.training.transfer_settings import DrawSettings, LossSettings

SHAPE = (64, 64, 64)


def _tiny_head(name: str, size: float) -> Head:
    """Concentric shells: WM, GM, CSF, bone, fat; maps as registration would give them."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing='ij', sparse=True)
    radius = np.sqrt(sum(a**2 for a in axes)) / size
    edges = {
        'wm': (0, 0.4),
        'gm': (0.4, 0.6),
        'csf': (0.6, 0.7),
        'bone': (0.7, 0.8),
        'fat': (0.8, 1),
    }
    fractions = np.zeros((len(TISSUES), *SHAPE), np.uint8)
    for tissue, (inner, outer) in edges.items():
        fractions[TISSUES.index(tissue)] = 255 * ((radius >= inner) & (radius < outer))
    maps = np.stack(
        [255 * (radius < 0.7), *(fractions[TISSUES.index(t)] for t in ('gm', 'wm', 'csf'))]
    )
    return Head(name, fractions, maps.astype(np.uint8))


@pytest.fixture(scope='module')
def heads(tmp_path_factory):
    folder = tmp_path_factory.mktemp('heads')
    names = ['a', 'b', *VALIDATION, *TEST]
    for name, size in zip(names, np.linspace(0.75, 0.95, len(names)), strict=True):
        head = _tiny_head(name, size)
        np.save(folder / f'{name}_fractions.npy', head.fractions)
        np.save(folder / f'{name}_maps.npy', head.maps)
    return folder


def test_held_out_heads_are_never_loaded_for_training(heads):
    assert {head.name for head in load_heads(heads)} == {'a', 'b'}


def test_drawn_subjects_keep_their_tissue(heads):
    plain = [plain_subject(head) for head in load_heads(heads)]
    drawn = draw_pool(load_heads(heads), 2, seed=3)
    again = draw_pool(load_heads(heads), 2, seed=3)
    for one, other in zip(drawn, again, strict=True):
        assert np.array_equal(one.fractions, other.fractions)
    assert not np.array_equal(drawn[0].fractions, plain[0].fractions)
    total = drawn[0].fractions.astype(int).sum(0)
    assert total.max() <= 255 + len(TISSUES)


def test_source_and_truth_show_one_anatomy(heads):
    draws = TransferDraws([plain_subject(head) for head in load_heads(heads)])
    rng = np.random.default_rng(2)
    for _ in range(4):
        example = draws.draw(rng)
        assert example.features.shape == (6, 16, 16, 16)
        assert example.condition.shape == (CONDITION,)
        assert torch.isfinite(example.condition).all()
        assert example.source.shape == example.truth.shape
        assert example.inside.float().mean() > 0.5


def test_untrained_loss_is_the_plain_difference(heads):
    draws = TransferDraws([plain_subject(head) for head in load_heads(heads)])
    example = draws.draw(np.random.default_rng(0))
    network = TransferNetwork(TransferConfig(condition=CONDITION, width=8))
    loss, _ = example_loss(network, example, 'cpu')
    weight = torch.where(example.inside, 3.0, 1.0)
    plain = (weight * (example.base - example.truth).abs()).sum() / weight.sum() / example.scale
    assert loss.item() == pytest.approx(plain.item(), rel=1e-4)


CONFIG = TransferConfig(condition=CONDITION, width=8)


@pytest.fixture
def few_checks(monkeypatch):
    """Fewer examples of validation than a real training takes."""
    monkeypatch.setattr('harmony_app.training.transfer.CHECKS', 2)


def make_training(heads, seed=1, **options):
    source, check = phantom_sources(heads, 1, 1)
    return TransferTraining(source, check, seed=seed, config=CONFIG, **options)


def test_training_resumes_exactly(heads, tmp_path, few_checks):
    settings = replace(LOOP, steps=4, batch=1, log_steps=2, validation_steps=2)
    whole = Loop(make_training(heads), settings, tmp_path / 'whole')
    whole.run()

    first = Loop(make_training(heads), settings, tmp_path / 'parts')
    batches = iter(first._loader())
    first._step(next(batches), 0)
    first.save()
    second = Loop(make_training(heads, seed=8), settings, tmp_path / 'parts')
    assert second.resume()
    second.run()
    for one, other in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(one, other)
    tables = [
        [row[:4] for row in csv.reader((tmp_path / name / 'log.csv').open())]
        for name in ('whole', 'parts')
    ]
    # the time differs, the loss does not
    assert [row[0::2] + row[3:] for row in tables[0]] == [row[0::2] + row[3:] for row in tables[1]]
    best, facts = read_trained(tmp_path / 'whole')
    assert facts['progress']['best_step'] in (2, 4)
    again = make_training(heads).validate(best)
    assert again['psnr_after_db'] == pytest.approx(facts['progress']['best'], abs=1e-4)


def test_a_training_can_begin_from_a_model(heads, tmp_path):
    start = make_training(heads, seed=3)
    Transfer(start.network, {}).save(tmp_path / 'model')
    begun = TransferTraining(start.source, begin_from=tmp_path / 'model')
    for one, other in zip(start.network.parameters(), begun.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_command_line_trains_and_packs(heads, tmp_path, few_checks):
    arguments = f'--heads {heads} --out {tmp_path}/run --steps 2 --batch 1 --subjects-per-head 1'
    main([*arguments.split(), '--pack', str(tmp_path / 'model')])
    assert (tmp_path / 'run' / CHECKPOINT).exists()
    assert read_facts(tmp_path / 'run' / BEST)['progress']['step'] == 2
    model = Transfer.load(tmp_path / 'model')
    assert model.metadata['training']['steps'] == 2
    assert model.metadata['metrics']['after'] > 0


def test_ssim_of_cubes_is_that_of_their_centre_voxel():
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    truth = rng.random((6, 3, 3, 3))
    result = truth + 0.2 * rng.standard_normal(truth.shape)
    found = cube_ssim(torch.from_numpy(result).flatten(), torch.from_numpy(truth).flatten(), 3)
    for value, a, b in zip(found, result, truth, strict=True):
        _, image = structural_similarity(
            a, b, win_size=3, data_range=1, full=True, use_sample_covariance=False
        )
        assert value.item() == pytest.approx(image[1, 1, 1], rel=1e-6)


def test_coarse_l1_sees_means_only():
    weight = torch.ones(2 * 64)
    assert coarse_l1(torch.full((2 * 64,), -0.25), weight, 4).item() == pytest.approx(0.25)
    # signs that alternate along an axis have no mean over two voxels
    striped = torch.tensor([1.0, -1.0]).repeat(64)
    assert coarse_l1(striped, weight, 4).item() == pytest.approx(0)


def test_cubes_hold_neighbours_of_one_scan(heads):
    subjects = [plain_subject(head) for head in load_heads(heads)]
    draws = TransferDraws(subjects, settings=DrawSettings(cube=4))
    example = draws.draw(np.random.default_rng(5))
    cubes = example.points.reshape(-1, 64, 3)
    assert (cubes.amax(1) - cubes.amin(1) == 6).all()  # four voxels of 2 mm
    assert example.points.min() >= 0.5
    assert example.points.max() <= SHAPE[0] - 1.5
    network = TransferNetwork(TransferConfig(condition=CONDITION, width=8))
    plain, _ = example_loss(network, example, 'cpu')
    more, _ = example_loss(network, example, 'cpu', LossSettings(scales=1.0, structure=1.0))
    assert more > plain


def test_looks_without_randomisation_are_physics_alone():
    rng = np.random.default_rng(0)
    for _ in range(10):
        look = random_look('T1w', rng, DrawSettings(factors=False, curves=False))
        assert (look.factors == 1).all()
        np.testing.assert_allclose(*look.curve, atol=1e-6)


def test_styles_off_true_labels_change_the_condition_alone(heads):
    subject = plain_subject(load_heads(heads)[0])
    maps = subject.maps.copy()
    maps[1:] = np.roll(maps[1:], 3, axis=1)  # registration that is off by 6 mm
    draws = [
        TransferDraws([replace(subject, maps=maps)], settings=DrawSettings(labels=labels)).draw(
            np.random.default_rng(7)
        )
        for labels in (False, True)
    ]
    torch.testing.assert_close(draws[0].features, draws[1].features)
    torch.testing.assert_close(draws[0].truth, draws[1].truth)
    assert (draws[0].condition - draws[1].condition).abs().max() > 0.1


def test_the_loss_teaches_the_network(heads):
    """Steps on one example bring the result nearer to its truth than the tissue medians alone."""
    draws = TransferDraws([plain_subject(head) for head in load_heads(heads)])
    example = draws.draw(np.random.default_rng(4))
    torch.manual_seed(0)
    network = TransferNetwork(TransferConfig(condition=CONDITION, width=8))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, _ = example_loss(network, example, 'cpu')
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_random_protocols_are_valid(contrast):
    rng = np.random.default_rng(0)
    protocols = [random_protocol(contrast, rng) for _ in range(50)]
    assert all(protocol.contrast == contrast for protocol in protocols)
    assert {protocol.field for protocol in protocols} == {1.5, 3.0}


def test_monotone_maps_keep_black_and_white_matter():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = random_monotone_map(0.35, rng)
        assert (np.diff(y) > 0).all()
        assert np.interp(1.0, x, y) == pytest.approx(1)
        assert y[0] == 0


def test_smooth_fields_are_standard():
    field = smooth_field((24, 20, 22), 5, np.random.default_rng(0))
    assert field.shape == (24, 20, 22)
    assert field.mean() == pytest.approx(0, abs=1e-5)
    assert field.std() == pytest.approx(1, abs=1e-3)


def test_real_scans_have_credits(tmp_path):
    with pytest.raises(InputError, match=r'CREDITS\.txt'):
        credits_of(tmp_path)
    (tmp_path / 'CREDITS.txt').write_text('A study, CC BY 4.0\n\n')
    assert credits_of(tmp_path) == ['A study, CC BY 4.0']


def test_a_folder_without_real_scans_is_refused(tmp_path):
    with pytest.raises(InputError, match='no preprocessed scan'):
        load_real(tmp_path)
