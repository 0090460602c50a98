"""Planted transforms are found again, and two runs give the same bytes."""

import numpy as np
import pytest

from harmony_app.imaging.alignment import Score, _other_starts, prepare
from harmony_app.imaging.grid import WORKING_SHAPE
from harmony_app.imaging.registration import (
    GOOD_QUALITY,
    closest_rigid,
    mutual_information,
    register_rigid,
    register_template,
)
from harmony_app.imaging.resample import resample
from harmony_app.imaging.template import load_template


def planted(angles_deg, shift):
    """Rigid transform: turns about x, y, z and a shift in mm."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.radians(angles_deg)):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(4)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[j, i], turn[i, j] = np.sin(angle), -np.sin(angle)
        matrix = turn @ matrix
    matrix[:3, 3] = shift
    return matrix


def difference(a, b, centre=(0, -18, 10)):
    """Millimetres at the centre of the brain and degrees between two rigid transforms."""
    point = np.append(centre, 1.0)
    between = a[:3, :3] @ b[:3, :3].T
    angle = np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1)))
    return np.linalg.norm(((a - b) @ point)[:3]), angle


def test_the_template_is_whole():
    template = load_template()
    assert template.brain.shape == WORKING_SHAPE
    assert 1.5e6 < template.brain.sum() < 2.1e6
    np.testing.assert_allclose(template.tissues.sum(0)[template.brain], 1, atol=1e-5)
    assert not template.tissues[:, ~template.brain].any()
    # white over grey over fluid, and left as right
    gm, wm, csf = (template.t1[t > 0.9].mean() for t in template.tissues)
    assert wm > gm > csf
    assert load_template() is template


def test_contrasts_of_a_session_come_together(make_head):
    fixed, _ = make_head('T1w', 4.0)
    source, _ = make_head('T2w', 4.0)
    truth = planted((4, -3, 5), (6.0, -4.0, 3.0))
    moving = resample(source, source.shape, source.affine, np.linalg.inv(truth))
    found = register_rigid(moving, fixed)
    millimetres, degrees = difference(found, truth)
    assert millimetres < 0.5
    assert degrees < 0.5
    again = register_rigid(moving, fixed)
    assert found.tobytes() == again.tobytes()


@pytest.mark.parametrize(('shift', 'pitch'), [(-50, 0), (0, 0), (10, 25), (-15, -25)])
def test_a_start_too_low_or_nodding_is_brought_home(make_head, shift, pitch):
    head, to_working = make_head('T1w', 4.0)
    true = np.linalg.inv(to_working)
    wrong = true @ planted((pitch, 0, 0), (0.0, 0.0, shift))
    first, *others = _other_starts(Score(prepare(head, 4.0), 4), wrong)
    millimetres, degrees = difference(closest_rigid(first), true)
    assert millimetres < 8
    assert degrees < 4
    assert len(others) < 3


@pytest.mark.slow
def test_a_turned_head_is_put_on_the_template_twice_alike(make_head):
    head, to_working = make_head('T1w', 4.0)
    tilt = planted((8, 3, -6), (12.0, 20.0, -15.0))
    scan = resample(head, head.shape, tilt @ head.affine, tilt)
    first = register_template(scan, 'T1w')
    millimetres, degrees = difference(first.rigid, to_working @ np.linalg.inv(tilt))
    assert millimetres < 1.5
    assert degrees < 1.5
    assert first.quality >= GOOD_QUALITY
    truth = load_template().brain
    dice = 2 * (first.brain & truth).sum() / (first.brain.sum() + truth.sum())
    assert dice > 0.93
    assert np.allclose(first.rigid[:3, :3] @ first.rigid[:3, :3].T, np.eye(3), atol=1e-9)
    second = register_template(scan, 'T1w')
    for name in ('affine', 'rigid', 'brain', 'tissues'):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name
    # a transform that is known is kept, and the maps still lie on the brain
    given = register_template(scan, 'T1w', first.rigid)
    assert given.rigid.tobytes() == first.rigid.tobytes()
    assert 2 * (given.brain & truth).sum() / (given.brain.sum() + truth.sum()) > 0.93


def test_the_closest_rigid_keeps_the_centre_and_the_size():
    affine = planted((10, -5, 3), (5, 6, 7)) @ np.diag([1.1, 0.95, 1.05, 1])
    rigid = closest_rigid(affine)
    np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rigid[:3, :3]) == pytest.approx(1)
    centre = np.array([0, -18, 10, 1.0])
    np.testing.assert_allclose(rigid @ np.linalg.inv(affine) @ centre, centre, atol=1e-9)


def test_mutual_information_is_high_for_functions_of_each_other():
    rng = np.random.default_rng(0)
    a = rng.random(20_000)
    assert mutual_information(a, (a - 0.5) ** 2) > 1.4
    assert mutual_information(a, rng.random(20_000)) < 1.02
