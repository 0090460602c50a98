"""DLEST as a method: targets are energies of the model, and the same scan gives the same voxels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harmony_app.errors import ModelError, OptionError
from harmony_app.imaging.profile import measure_profile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Harmonized, Method, Scan
from harmony_app.methods.dlest import Dlest
from harmony_app.methods.registry import get_method
from harmony_app.nets.dlest import VARIANTS, DlestNets, energy_key

SHAPE = (32, 32, 32)


def ball_scan(contrast='T1w'):
    """White matter in grey matter in fluid."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing='ij', sparse=True)
    radius = np.sqrt(sum(a**2 for a in axes))
    tissues = np.stack(
        [(radius > 0.45) & (radius <= 0.6), radius <= 0.45, (radius > 0.6) & (radius <= 0.75)]
    )
    data = np.tensordot([0.7, 1.0, 0.2], tissues, axes=1)
    data = data + 0.02 * np.random.default_rng(0).random(SHAPE) * (radius <= 0.75)
    volume = Volume(data.astype(np.float32), np.eye(4))
    maps, brain = (255 * tissues).astype(np.uint8), radius <= 0.75
    profile = measure_profile(volume.data, brain, maps)
    return Scan(contrast, contrast, volume, volume, np.eye(4), brain, maps, profile)


class Halves(Method):
    """Stands for the transfer."""

    name = 'halves'

    def harmonize(self, session, target):
        images = [scan.working.with_data(scan.working.data / 2) for scan in session]
        return [Harmonized(s.name, s.contrast, i, i) for s, i in zip(session, images, strict=True)]


def method(names=('there',), chain=None, **options):
    torch.manual_seed(0)
    config = replace(
        VARIANTS['compact'],
        channels=4,
        widths=(8,),
        blocks=1,
        canvas=(32, 32),
        noise=4,
        mapping_width=8,
        discriminator_width=8,
        energy_width=8,
    )
    config = replace(config, chain=replace(config.chain, **(chain or {})))
    nets = DlestNets(config, tuple(energy_key(name, 'T1w') for name in names))
    for energy in nets.energies.values():
        energy.head.weight.data.mul_(30)
    options = {'transfer': Halves()} | options
    made = Dlest(nets, None, {}, **options)
    styles = [made.encode_target([ball_scan()], name).to_dict() for name in names]
    made.metadata = {'styles': styles}
    made.forget()
    return made


@pytest.fixture(scope='module')
def scan():
    return ball_scan()


@pytest.fixture(scope='module')
def target(scan):
    return method().encode_target([scan], 'there')


def test_the_registry_knows_it_and_that_it_makes_no_other_contrast(tmp_path):
    method().save(tmp_path)
    made = get_method('dlest', tmp_path)
    assert isinstance(made, Dlest)
    assert not made.can_impute
    assert not made.measures_targets


def test_the_same_scan_gives_the_same_voxels(scan, target):
    for chain in ({}, {'noise_at_use': True}):
        images = [
            method(chain=chain, detail='decoder').harmonize([scan], target)[0].working.data
            for _ in range(2)
        ]
        assert np.array_equal(*images)
        assert np.isfinite(images[0]).all()
        assert (images[0] >= 0).all()
    noisy = {'noise_at_use': True}
    one, other = (
        method(chain=noisy | {'seed': seed}, detail='decoder').harmonize([scan], target)[0]
        for seed in (0, 1)
    )
    assert not np.array_equal(one.working.data, other.working.data)
    plain = method(detail='decoder').harmonize([scan], target)[0]
    assert not np.array_equal(one.working.data, plain.working.data)


def test_the_batch_changes_nothing(scan, target):
    images = [
        method(detail='decoder', batch=batch).harmonize([scan], target)[0].working.data
        for batch in (3, 16)
    ]
    np.testing.assert_allclose(*images, atol=1e-5)


def test_energies_of_two_targets_give_two_images(scan):
    both = method(('there', 'elsewhere'), detail='decoder')
    styles = [replace(both.encode_target([scan], n), name=n) for n in ('there', 'elsewhere')]
    one, other = (both.harmonize([scan], style)[0].working.data for style in styles)
    assert not np.array_equal(one, other)


def test_the_transfer_is_its_last_stage(scan, target):
    result = method().harmonize([scan], target)[0]
    np.testing.assert_array_equal(result.working.data, scan.working.data / 2)
    assert result.decoder is None
    assert result.settings['Detail'] == 'transfer'
    kept = method(keep_decoder=True).harmonize([scan], target)[0]
    assert kept.decoder is not None
    assert set(kept.theta) == {'T1w', 'target'}
    assert len(kept.theta['target']) == 4


def test_a_target_without_an_energy_is_refused_with_what_to_do(scan, target):
    made = method()
    for wrong in (replace(target, name='sub-01'), replace(target, contrast='T2w')):
        with pytest.raises(OptionError, match='--task adapt --method dlest --site NAME'):
            made.check_target(wrong)
        with pytest.raises(OptionError, match='no energy'):
            made.harmonize([scan], wrong)
    with pytest.raises(OptionError, match='it has them for there'):
        made.check_target(replace(target, name='sub-01'))
    with pytest.raises(OptionError, match='none of this contrast'):
        made.check_target(replace(target, contrast='T2w'))
    made.check_target(target)


def test_a_session_without_the_contrast_gives_nothing(scan, target):
    other = replace(scan, contrast='T2w', name='T2w')
    assert method().harmonize([other], target) == []


def test_a_folder_gives_the_same_method(tmp_path, scan, target):
    made = method(('there', 'else.where'), detail='decoder')
    for tensor in made.nets.state_dict().values():
        tensor.copy_(tensor.half())
    made.save(tmp_path)
    loaded = Dlest.load(tmp_path, detail='decoder')
    assert loaded.metadata['contrasts'] == ['T1w']
    assert loaded.metadata['energies'] == ['T1w:there', 'T1w:else-where']
    assert loaded.reaches('else.where', 'T1w')
    first, second = (m.harmonize([scan], target)[0].working.data for m in (made, loaded))
    np.testing.assert_array_equal(first, second)


def test_a_model_that_lacks_an_energy_is_not_whole(tmp_path):
    made = method()
    made.save(tmp_path)
    path = tmp_path / 'model.json'
    path.write_text(path.read_text().replace('"T1w:there"', '"T1w:gone"'))
    with pytest.raises(ModelError):
        Dlest.load(tmp_path)
