"""The training of MISPEL: matched draws, the losses of both steps, what each step may move."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harmony_app.errors import InputError, OptionError
from harmony_app.nets.mispel import VARIANTS
from harmony_app.nets.unet import UNetConfig
from harmony_app.phantom.sites import find_sites, load_sites
from harmony_app.training.base import LoopSettings
from harmony_app.training.loop import BEST, CHECKPOINT, Loop
from harmony_app.training.matched import MatchedSet, find_matched, units_of
from harmony_app.training.matched_draws import (
    MatchedBatch,
    MatchedPhantom,
    MatchedSessions,
    Scanner,
)
from harmony_app.training.mispel import MispelTraining, main
from harmony_app.training.mispel_losses import (
    coupling_loss,
    harmonization_loss,
    reconstruction_loss,
)
from harmony_app.training.mispel_settings import SITES, Settings
from harmony_app.training.mispel_validation import decode, embed, example_picture

SMALL = Settings(variant='tiny', size=32, embedding=0.5)
SHORT = LoopSettings(batch=2, steps=4, log_steps=1, validation_steps=1, average=0.0)


@pytest.fixture(autouse=True, scope='module')
def tiny():
    """Widths that are computed in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, 'tiny', UNetConfig((4, 8), (1, 1), norm=False))
        yield


@pytest.fixture(scope='module')
def phantom(head):
    return MatchedPhantom([head, head], find_sites(SITES, load_sites()), size=32)


def draw(source, count, seed=0):
    drawn = [source.draw(np.random.default_rng([seed, i])) for i in range(count)]
    return MatchedBatch.join(drawn)


def training_on(source, settings=SMALL, **options):
    return MispelTraining(settings, source, **options)


def without(batch, *places):
    """The batch where some people (example, scanner) were not scanned."""
    images, seen = batch.images.clone(), batch.seen.clone()
    for place in places:
        images[place] = seen[place] = 0
    return replace(batch, images=images, seen=seen)


def moved(network):
    return {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}


def test_a_phantom_slice_is_one_person_at_every_scanner(phantom):
    assert phantom.units == [('T1w', name) for name in SITES]
    batch = draw(phantom, 6)
    assert batch.images.shape == batch.seen.shape == (6, 4, 32, 32)
    assert torch.equal(batch.seen, batch.seen[:, :1].expand_as(batch.seen))
    assert (batch.images * (1 - batch.seen)).abs().max() == 0
    # one anatomy, whatever the contrast: edges of all scanners lie in the same places
    edges = batch.images.diff(dim=3).abs().flatten(2)
    for other in range(1, 4):
        together = torch.stack([edges[:, 0].flatten(), edges[:, other].flatten()])
        assert torch.corrcoef(together)[0, 1] > 0.6
    again = draw(phantom, 6)
    assert torch.equal(batch.images, again.images)


def test_scanners_differ_as_table_1_says():
    ge, philips, siemens, trio = (
        Scanner.of(site, 'T1w') for site in find_sites(SITES, load_sites())
    )
    # half a millimetre across sagittal slices: sharper there, and its noise averaged by resampling
    assert ge.blur[0] < ge.blur[1]
    assert ge.noise == pytest.approx(np.sqrt(0.5) / ge.protocol.snr)
    assert philips.blur[0] == philips.blur[1]
    levels = [scanner.signals(3)[1] for scanner in (ge, philips, siemens, trio)]
    assert torch.stack(levels).diff().abs().min() > 0.005  # GM beside WM
    assert torch.equal(ge.signals(3), ge.signals(3))
    assert not torch.equal(ge.signals(3), ge.signals(4))


def test_thick_slices_and_contrasts_that_a_site_lacks_are_refused(head):
    site = load_sites()['mispel-ge']
    with pytest.raises(OptionError, match='thick slices'):
        MatchedPhantom([head], [site], ('T2w',))
    with pytest.raises(OptionError, match='no protocol for T2w'):
        MatchedPhantom([head], [replace(site, protocols={})], ('T2w',))


def test_reconstruction_sums_over_the_scanners():
    images, seen = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    outputs = torch.tensor([1.0, -2.0, 3.0])[None, :, None, None].expand(2, 3, 4, 4)
    assert reconstruction_loss(outputs, images, seen).item() == 6
    seen[1, 2] = 0  # one person was not there: the mean is that of the others
    assert reconstruction_loss(outputs, images, seen).item() == 6
    seen[:, 2] = 0
    assert reconstruction_loss(outputs, images, seen).item() == 3


def test_coupling_is_the_variance_over_the_scanners_that_are_there():
    generator = torch.Generator().manual_seed(0)
    embeddings, seen = torch.randn(2, 4, 6, 5, 5, generator=generator), torch.ones(2, 4, 5, 5)
    expected = embeddings.var(dim=1, correction=0).mean()
    torch.testing.assert_close(coupling_loss(embeddings, seen), expected)
    seen[0, 3] = seen[1, 1:] = 0  # three scanners, and one alone, which is coupled to nothing
    expected = embeddings[0, :3].var(dim=0, correction=0).mean()
    torch.testing.assert_close(coupling_loss(embeddings, seen), expected)
    # only where all of them show something
    seen[0, 0, :2] = 0
    expected = embeddings[0, :3, :, 2:].var(dim=0, correction=0).mean()
    torch.testing.assert_close(coupling_loss(embeddings, seen), expected)


def test_harmonization_is_the_mean_over_pairs_that_are_there():
    outputs = torch.tensor([0.0, 1.0, 5.0])[None, :, None, None].expand(2, 3, 4, 4)
    seen = torch.ones(2, 3, 4, 4)
    assert harmonization_loss(outputs, seen).item() == pytest.approx((1 + 5 + 4) / 3)
    seen[:, 2] = 0
    assert harmonization_loss(outputs, seen).item() == 1
    seen[:, 1] = 0
    assert harmonization_loss(outputs, seen).item() == 0


def test_step_1_moves_encoders_and_decoders_and_step_2_decoders_alone(phantom):
    training, batch = training_on(phantom), draw(phantom, 2)
    training.losses(batch, 0, 0.49)['loss'].backward()
    names = {name for name, _ in training.network.named_parameters()}
    assert moved(training.network) == names
    training.network.zero_grad()
    training.losses(batch, 0, 0.5)['loss'].backward()
    assert moved(training.network) == {f'units.{i}.decoder.weight' for i in range(4)}


@pytest.mark.parametrize('term', ['reconstruction', 'coupling', 'harmonization'])
def test_every_term_reaches_what_it_is_for(phantom, term):
    training, batch = training_on(phantom), draw(phantom, 2)
    training.losses(batch, 0, 0.0)[term].backward()
    decoders = {name for name in moved(training.network) if '.decoder.' in name}
    encoders = moved(training.network) - decoders
    assert encoders
    assert bool(decoders) is (term != 'coupling')


def test_the_losses_of_the_steps_are_those_of_the_paper(phantom):
    training, batch = training_on(phantom), draw(phantom, 2)
    first, second = (training.losses(batch, 0, done) for done in (0.0, 1.0))
    unit = SMALL.white_matter
    expected = first['reconstruction'] + 0.3 * unit * first['coupling']
    torch.testing.assert_close(first['loss'], expected)
    # in the unit of the paper: absolute errors grow with it, variances with its square
    paper = unit * first['reconstruction'] + 0.3 * unit**2 * first['coupling']
    torch.testing.assert_close(unit * first['loss'], paper)
    torch.testing.assert_close(
        second['loss'], second['reconstruction'] + 4 * second['harmonization']
    )


def test_the_distance_between_scanners_falls_in_step_2(phantom, tmp_path):
    settings = replace(SMALL, embedding=0.0)
    training = training_on(phantom, settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # units that differ, as step 1 leaves them
        for unit in training.network.units:
            unit.decoder.weight += 0.2 * torch.randn(unit.decoder.weight.shape, generator=generator)
    batch = draw(phantom, 4, seed=5)

    def distance():
        with torch.no_grad():
            outputs = decode(training.network, batch, embed(training.network, batch))
            return harmonization_loss(outputs, batch.seen).item()

    before = distance()
    frozen = [p.clone() for p in training.network.units[0].encoder.parameters()]
    loop = replace(SHORT, steps=20, rate=0.05, warm_steps=1, validation_steps=100)
    Loop(training, loop, tmp_path).run()
    assert distance() < 0.5 * before
    for old, new in zip(frozen, training.network.units[0].encoder.parameters(), strict=True):
        assert torch.equal(old, new)


def test_absent_scans_teach_nothing_and_cost_nothing(phantom):
    training, batch = training_on(phantom), draw(phantom, 2)
    absent = without(batch, (0, 1), (1, 1))
    training.losses(absent, 0, 0.0)['loss'].backward()
    assert not any(name.startswith('units.1.') for name in moved(training.network))
    assert {name.split('.')[1] for name in moved(training.network)} == {'0', '2', '3'}
    nonsense = replace(absent, images=absent.images.index_fill(1, torch.tensor([1]), 7.0))
    one, other = (training.losses(b, 0, 0.0)['loss'] for b in (absent, nonsense))
    assert torch.equal(one, other)


def test_a_batch_that_shows_nothing_is_no_error(phantom):
    training, batch = training_on(phantom), draw(phantom, 1)
    empty = without(batch, *((0, scanner) for scanner in range(4)))
    for done in (0.0, 1.0):
        terms = training.losses(empty, 0, done)
        terms['loss'].backward()
        assert terms['loss'].item() == 0
        assert moved(training.network) == set()


def test_contrasts_have_units_of_their_own(head):
    source = MatchedPhantom([head], find_sites(SITES[1:3], load_sites()), ('T1w', 'T2w'), 32)
    training = training_on(source)
    assert training.network.config.units == tuple(source.units)
    batch = draw(source, 6)
    assert set(batch.contrast.tolist()) == {0, 1}
    only = MatchedBatch(
        *(v[batch.contrast == 1] for v in (batch.images, batch.seen, batch.contrast))
    )
    training.losses(only, 0, 0.0)['loss'].backward()
    assert {name.split('.')[1] for name in moved(training.network)} == {'2', '3'}


def test_only_models_of_step_2_are_chosen(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(MispelTraining, 'checks', (1, 2))
    training = training_on(phantom, check=phantom)
    loop = Loop(training, SHORT, tmp_path)
    progress = loop.run()
    assert progress.best_step > 2
    assert (tmp_path / BEST).exists()
    metrics = progress.metrics
    assert metrics['score'] == pytest.approx(-metrics['reconstruction'] - 4 * metrics['distance'])
    assert {'ssim', 'ssim_before', 'distance_before', 'coupling'} <= set(metrics)
    assert example_picture(training.network, draw(phantom, 2)).shape == (4 * 32, 4 * 32)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not(phantom, tmp_path):
    whole = Loop(training_on(phantom), SHORT, tmp_path / 'whole')
    whole.run()
    first = Loop(training_on(phantom), SHORT, tmp_path / 'parts')

    class Told(list):
        """Says stop after the first step of step 2."""

        def __bool__(self):
            return first.progress.step == 3

    with pytest.MonkeyPatch.context() as patch:
        from contextlib import contextmanager

        patch.setattr(
            'harmony_app.training.loop._told_to_stop', contextmanager(lambda: iter([Told()]))
        )
        assert first.run().stopped
    second = Loop(training_on(phantom), SHORT, tmp_path / 'parts')
    assert second.resume()
    second.run()
    for one, other in zip(
        whole.training.network.parameters(), second.training.network.parameters(), strict=True
    ):
        assert torch.equal(one, other)


class Volumes:
    """A scan or a session in memory: ``level`` inside a ball."""

    def __init__(self, contrast, site, level, axes=(32, 40, 32)):
        self.contrast, self.site, self.level = contrast, site, level
        grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in axes), indexing='ij', sparse=True)
        self.ball = sum(a**2 for a in grid) < 0.8

    def data(self):
        return (self.level * self.ball).astype(np.float16)

    def shown(self):
        return (255 * self.ball).astype(np.uint8)

    def maps(self):
        return np.repeat((255 * self.ball).astype(np.uint8)[None], 4, axis=0)


def session(subject, *scans):
    volumes = [Volumes(*scan) for scan in scans]
    return SimpleNamespace(name='x', subject=subject, scans=tuple(volumes), maps=volumes[0].maps)


SESSIONS = [
    session('01', ('T1w', 'GE', 0.5), ('T2w', 'GE', 0.7)),
    session('01', ('T1w', 'Philips', 1.0), ('T1w', None, 2.0)),
    session('02', ('T1w', 'Philips', 1.0), ('T1w', 'Prisma', 1.5)),
    session('03', ('T1w', 'GE', 0.5)),
]


def test_matched_sets_cross_sessions_and_leave_out_who_was_at_one_scanner():
    sets = find_matched(SESSIONS)
    assert [(s.subject, s.contrast, list(s.scans)) for s in sets] == [
        ('01', 'T1w', ['GE', 'Philips']),
        ('02', 'T1w', ['Philips', 'Prisma']),
    ]
    assert units_of(sets) == [('T1w', 'GE'), ('T1w', 'Philips'), ('T1w', 'Prisma')]
    assert find_matched(SESSIONS[3:]) == []


def units(*scanners):
    return [('T1w', scanner) for scanner in scanners]


def test_real_draws_put_each_scan_in_its_scanner_s_place():
    source = MatchedSessions(find_matched(SESSIONS), units('GE', 'Philips', 'Prisma'), 32)
    levels, seen = {0.5: 0, 1.0: 1, 1.5: 2}, set()
    for i in range(8):
        batch = draw(source, 1, seed=i)
        there = batch.seen.flatten(2).any(2)[0].tolist()
        seen.add(tuple(there))
        for level, slot in levels.items():
            if there[slot]:
                inside = batch.images[0, slot][batch.seen[0, slot] > 0]
                assert inside.max().item() == pytest.approx(level)
    assert seen == {(True, True, False), (False, True, True)}


def test_of_two_scans_at_one_scanner_either_is_drawn():
    sets = find_matched([
        session('01', ('T1w', 'GE', 0.5), ('T1w', 'GE', 0.75), ('T1w', 'Philips', 1.0)),
    ])  # fmt: skip
    assert isinstance(sets[0], MatchedSet)
    source = MatchedSessions(sets, units('GE', 'Philips'), 32)
    drawn = {round(draw(source, 1, seed=i).images[0, 0].max().item(), 3) for i in range(12)}
    assert drawn == {0.5, 0.75}


def test_a_model_of_other_scanners_is_no_start(phantom, head):
    training = training_on(phantom)
    fewer = MatchedPhantom([head], find_sites(SITES[:2], load_sites()), size=32)
    with pytest.raises(InputError, match='--task adapt'):
        training.fill(training_on(fewer).network)
    other = training_on(phantom, seed=2)
    training.fill(other.network)
    assert torch.equal(
        training.network.units[1].decoder.weight, other.network.units[1].decoder.weight
    )


def test_the_command_refuses_to_write_over_a_training(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b'')
    with pytest.raises(InputError, match='give --resume'):
        main(['--heads', str(tmp_path), '--out', str(tmp_path)])
    with pytest.raises(InputError, match='no checkpoint to resume'):
        main(['--heads', str(tmp_path), '--out', str(tmp_path / 'no'), '--resume'])
