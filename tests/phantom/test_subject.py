import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harmony_app.phantom.anatomy import Anatomy, label_map_anatomy
from harmony_app.phantom.atrophy import apply_atrophy
from harmony_app.phantom.deformation import jacobian_determinant
from harmony_app.phantom.lesions import add_lesions
from harmony_app.phantom.sites import load_sites
from harmony_app.phantom.subject import deform, draw_displacement, draw_subject, draw_texture
from harmony_app.phantom.tissues import BRAIN_TISSUES, TISSUES, tissue_properties

BRAIN = [TISSUES.index(name) for name in BRAIN_TISSUES]
VOXEL = 0.027


def brain_volume(anatomy):
    return float(anatomy.fractions[BRAIN].sum()) * VOXEL


def test_partial_volumes_sum_to_one_in_the_head_and_to_less_at_its_skin(head):
    total = head.fractions.sum(0)
    assert float(total.max()) < 1 + 1e-4
    assert float(head.fractions.min()) >= 0
    inside = head['wm'] + head['gm'] + head['csf'] > 0.5
    torch.testing.assert_close(total[inside], torch.ones_like(total[inside]), atol=1e-3, rtol=0)


def test_borders_of_a_label_map_have_partial_volume(tmp_path):
    distance = np.linalg.norm(np.indices((48, 48, 48)) - 23.5, axis=0)
    labels = np.select([distance < 12, distance < 15, distance < 19], [2, 3, 24], 0)
    nib.save(nib.Nifti1Image(labels.astype(np.int16), np.eye(4)), tmp_path / 'ball.nii.gz')
    ball = label_map_anatomy(tmp_path / 'ball.nii.gz')
    mixed = (ball['wm'] > 0.05) & (ball['wm'] < 0.95)
    assert int(mixed.sum()) > 0.5 * 4 * np.pi * 12**2
    total = ball.fractions.sum(0)
    torch.testing.assert_close(total[mixed], torch.ones_like(total[mixed]), atol=1e-4, rtol=0)
    assert float(ball['wm'].sum()) == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**31 - 1), size=st.floats(0.2, 1.5))
def test_deformations_never_fold(seed, size):
    generator = torch.Generator().manual_seed(seed)
    displacement = draw_displacement((56, 64, 56), 3.0, generator, size)
    determinant = jacobian_determinant(displacement)
    assert float(determinant.min()) > 0
    assert float(displacement.abs().max()) > 0.1


def test_deformed_heads_differ_and_stay_heads(head):
    one, same, other = (deform(head, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one.fractions, same.fractions)
    assert float((one['wm'] - other['wm']).abs().mean()) > 0.005
    for deformed in (one, other):
        assert 0.7 < brain_volume(deformed) / brain_volume(head) < 1.4
        assert float(deformed.fractions.sum(0).max()) < 1 + 1e-4
        assert float(deformed.fractions.min()) >= 0


@pytest.mark.parametrize('loss', [0.01, 0.04, 0.1])
@pytest.mark.parametrize('ventricular', [0.0, 1.0])
def test_atrophy_takes_the_volume_asked_for(head, loss, ventricular):
    shrunk = apply_atrophy(head, loss, ventricular)
    assert 1 - brain_volume(shrunk) / brain_volume(head) == pytest.approx(loss, rel=0.05)
    torch.testing.assert_close(shrunk.fractions.sum(0), head.fractions.sum(0), atol=1e-5, rtol=0)
    assert bool((shrunk['csf'] >= head['csf'] - 1e-6).all())
    assert bool((shrunk['bone'] == head['bone']).all())


def test_atrophy_widens_ventricles_more_where_asked(head):
    middle = (slice(20, 44), slice(20, 56), slice(26, 46))
    grown = [
        float((apply_atrophy(head, 0.05, v)['csf'] - head['csf'])[middle].sum()) for v in (0.0, 2.0)
    ]
    assert grown[1] > 1.2 * grown[0] > 0


def test_atrophy_lies_beside_fluid(head):
    gone = apply_atrophy(head, 0.03)['csf'] - head['csf']
    fluid = torch.nn.functional.max_pool3d(head['csf'][None], 5, 1, 2)[0]
    assert float(gone[fluid < 0.01].sum()) < 0.05 * float(gone.sum())


@pytest.mark.parametrize('loss', [-0.01, 0.5])
def test_impossible_atrophy(head, loss):
    with pytest.raises(ValueError, match='atrophy'):
        apply_atrophy(head, loss)


def test_atrophy_needs_fluid(head):
    dry = head.fractions.clone()
    dry[TISSUES.index('csf')] = 0
    with pytest.raises(ValueError, match='too little cerebrospinal fluid'):
        apply_atrophy(Anatomy(dry, head.affine), 0.05)


@pytest.mark.parametrize('volume', [2.0, 10.0, 30.0])
@pytest.mark.parametrize('seed', [0, 1])
def test_lesions_have_the_volume_asked_for(head, volume, seed):
    sick = add_lesions(head, volume, torch.Generator().manual_seed(seed))
    added = float((sick['lesion'] - head['lesion']).sum()) * VOXEL
    assert added == pytest.approx(volume, rel=0.05)
    torch.testing.assert_close(sick.fractions.sum(0), head.fractions.sum(0), atol=1e-5, rtol=0)
    # they replace white matter and nothing else
    torch.testing.assert_close(
        head['wm'] - sick['wm'], sick['lesion'] - head['lesion'], atol=1e-5, rtol=0
    )
    for tissue in ('gm', 'csf', 'deep_gm', 'bone'):
        assert torch.equal(sick[tissue], head[tissue])


def test_lesions_have_smooth_edges_and_a_core(head):
    lesion = add_lesions(head, 15.0, torch.Generator().manual_seed(0))['lesion']
    assert float(lesion.max()) > 0.9
    assert int(((lesion > 0.05) & (lesion < 0.8)).sum()) > 20


def test_the_seed_decides_about_lesions(head):
    one, same, other = (
        add_lesions(head, 8.0, torch.Generator().manual_seed(s))['lesion'] for s in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert float((one - other).abs().max()) > 0.5


def test_no_and_too_many_lesions(head, generator):
    assert add_lesions(head, 0.0, generator) is head
    for volume in (-1.0, 1e4):
        with pytest.raises(ValueError, match='lesion volume'):
            add_lesions(head, volume, generator)


def test_texture(head, generator):
    texture = draw_texture(head, generator, 0.05)
    assert texture.shape == head.fractions.shape[1:]
    assert float(texture.std()) == pytest.approx(0.05, rel=0.01)
    assert abs(float(texture.mean())) < 0.005
    # neighbours are alike: texture is not noise
    pairs = torch.stack([texture[:-1].flatten(), texture[1:].flatten()])
    assert float(torch.corrcoef(pairs)[0, 1]) > 0.4


def test_a_person_has_one_set_of_deviations_at_every_field(head, generator):
    subject = draw_subject(head, generator, deformation=0, texture=0.05, spread=0.05)
    low = subject.properties(1.5).t1 / tissue_properties(1.5).t1
    high = subject.properties(3.0).t1 / tissue_properties(3.0).t1
    torch.testing.assert_close(low, high)
    assert float((low - 1).abs().max()) > 0.01
    assert torch.equal(subject.properties(3.0).t2, subject.properties(3.0).t2)
    protocols = [s.protocols['T1w'] for s in load_sites().values()]
    assert subject.signals(protocols).shape == (len(protocols), len(TISSUES))


def test_people_are_reproducible_and_differ(head):
    one, same, other = (
        draw_subject(head, torch.Generator().manual_seed(s), atrophy=0.02, lesion_volume=5.0)
        for s in (0, 0, 1)
    )
    assert torch.equal(one.anatomy.fractions, same.anatomy.fractions)
    assert torch.equal(one.texture, same.texture)
    assert one.seed == same.seed != other.seed
    assert not torch.equal(one.anatomy.fractions, other.anatomy.fractions)
    assert np.array_equal(one.anatomy.affine, head.affine)


@pytest.mark.slow
@pytest.mark.real_data
def test_a_person_made_of_a_real_label_map(shared_data):
    head = label_map_anatomy(shared_data / 'label_maps' / 'training_seg_11.nii.gz')
    assert set(TISSUES) - {t for t in TISSUES if float(head[t].max()) > 0.5} <= {'lesion'}
    total = head.fractions.sum(0)
    assert float(total.max()) < 1 + 1e-4
    # the head has lesions of its own, which deformation and atrophy change: compare one person
    well, ill = (
        draw_subject(head, torch.Generator().manual_seed(3), atrophy=0.05, lesion_volume=volume)
        for volume in (0.0, 8.0)
    )
    added = float(ill.anatomy['lesion'].sum() - well.anatomy['lesion'].sum()) / 1000
    assert added == pytest.approx(8.0, abs=1.5)
