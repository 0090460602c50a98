import dataclasses

import pytest
import yaml

from harmony_app.errors import ExitCode, InputError, OptionError
from harmony_app.phantom.sites import CONTRASTS, find_sites, load_sites

CALAMITI = [f'site{letter}' for letter in 'ABCDEFGHIJ']
MISPEL = ['mispel-ge', 'mispel-philips', 'mispel-siemensp', 'mispel-siemenst']


@pytest.fixture(scope='module')
def sites():
    return load_sites()


def minimal() -> dict:
    return {
        'sites': {
            'mine': {
                'manufacturer': 'GE',
                'model': 'Signa',
                'field': 1.5,
                'protocols': {
                    'T1w': {
                        'sequence': 'MPRAGE',
                        'repetition_time': 2000,
                        'echo_time': 3.0,
                        'inversion_time': 900,
                        'excitation_interval': 8,
                        'flip_angle': 8,
                        'zooms': [1, 1, 1],
                        'acquisition': '3D',
                        'plane': 'sagittal',
                    }
                },
            }
        }
    }


def written(tmp_path, content):
    path = tmp_path / 'sites.yaml'
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_both_papers_are_there_with_four_contrasts(sites):
    assert set(CALAMITI + MISPEL) <= set(sites)
    for site in sites.values():
        assert tuple(site.protocols) == CONTRASTS
        assert {p.field for p in site.protocols.values()} == {site.field}
        assert set(site.sources) == set(CONTRASTS)


@pytest.mark.parametrize(
    'name, field, contrast, echo, repetition, inversion, zooms',
    [
        ('siteA', 1.5, 'T1w', 4.6, None, None, (0.94, 0.94, 1.2)),
        ('siteB', 3.0, 'T2w', 100, 8200, 0, (0.94, 0.94, 1.25)),
        ('siteC', 1.5, 'T1w', 3.93, 1900, 1100, (1, 1, 1)),
        ('siteC', 1.5, 'T2w', 116, 6000, 0, (0.9, 0.9, 5)),
        ('siteD', 3.0, 'T1w', 3.16, 2400, 1000, (1, 1, 1)),
        ('siteE', 3.0, 'T1w', 3.16, 2400, 1000, (1, 1, 1)),
        ('siteF', 3.0, 'T1w', 2.95, 2300, 900, (1.05, 1.05, 1.2)),
        ('siteG', 1.5, 'T1w', 3.3, 3000, None, (0.94, 0.94, 1.5)),
        ('siteH', 3.0, 'T1w', 3.1, 3000, 800, (1, 1, 1.2)),
        ('siteJ', 3.0, 'T2w', 100, 3000, 0, (0.94, 0.94, 3)),
        ('mispel-ge', 3.0, 'T1w', 3.7, None, 600, (1, 1, 0.5)),
        ('mispel-siemenst', 3.0, 'T1w', None, 2530, 1200, (1, 1, 1)),
        ('mispel-siemensp', 3.0, 'T1w', None, 2530, 1100, (1, 1, 1)),
        ('mispel-philips', 3.0, 'T1w', None, 2530, 1300, (1, 1, 1)),
    ],
)
def test_published_parameters(sites, name, field, contrast, echo, repetition, inversion, zooms):
    protocol = sites[name].protocols[contrast]
    assert protocol.field == field
    assert sites[name].sources[contrast] == 'published'
    assert protocol.zooms == zooms
    for value, expected in (
        (protocol.echo_time, echo),
        (protocol.repetition_time, repetition),
        (protocol.inversion_time, inversion),
    ):
        assert expected is None or value == expected


def test_echo_times_of_the_papers_are_told_where_the_contrast_needs_another(sites):
    assert sites['siteD'].nominal_echo_times['T2w'] == 455
    assert sites['siteF'].nominal_echo_times['T2w'] == 454
    assert sites['mispel-philips'].nominal_echo_times['T1w'] == 1.66
    assert sites['mispel-siemensp'].nominal_echo_times['T1w'] == 1.64


def test_thick_slices_and_volumes_of_every_contrast(sites):
    protocols = [p for site in sites.values() for p in site.protocols.values()]
    for contrast in ('T2w', 'PDw', 'FLAIR'):
        mine = [p for p in protocols if p.contrast == contrast]
        assert any(p.acquisition == '2D' and p.zooms[2] >= 3 for p in mine)
        assert any(p.acquisition == '3D' for p in mine)
    assert {p.plane for p in protocols} == {'axial', 'coronal', 'sagittal'}
    assert {p.sequence for p in protocols} == {'MPRAGE', 'SPGR', 'TSE', 'FLAIR'}
    assert len({site.manufacturer for site in sites.values()}) == 3


def test_no_two_sites_are_the_same_scanner(sites):
    seen = [(s.protocols, s.point_spread, s.receive_field) for s in sites.values()]
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])


def test_names_aliases_and_labels(sites):
    found = find_sites(['a', 'calamiti-D', 'SiteC', 'mispelge', 'Philips'], sites)
    assert [s.name for s in found] == ['siteA', 'siteD', 'siteC', 'mispel-ge', 'mispel-philips']
    assert all(s.label.isalnum() for s in sites.values())
    assert len({s.label for s in sites.values()}) == len(sites)
    with pytest.raises(OptionError, match="unknown site 'siteZ'.*Known sites: siteA"):
        find_sites(['siteZ'], sites)
    with pytest.raises(OptionError, match='named twice'):
        find_sites(['siteA', 'A'], sites)


def test_a_file_of_ones_own(tmp_path):
    content = minimal()
    content['sites']['mine']['protocols']['T1w']['repetition_time'] = '2000 ms'
    sites = load_sites(written(tmp_path, content))
    protocol = sites['mine'].protocols['T1w']
    assert protocol.repetition_time == 2000
    assert protocol.inversion_time == 900
    assert dataclasses.replace(protocol, snr=10).snr == 10


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('repetition_tme', 2000, 'unknown key.*did you mean repetition_time'),
        ('repetition_time', 2.0, 'repetition_time 2 ms is outside.*in s.*2000'),
        ('repetition_time', '2 s', 'repetition_time is given in ms, not in s'),
        ('repetition_time', 'long', 'repetition_time is a number'),
        ('echo_time', 0.003, 'echo_time 0.003 ms.*write 3'),
        ('inversion_time', 0.9, 'inversion_time 0.9 ms.*write 900'),
        ('inversion_time', 2500, 'inversion_time 2500 ms is not below'),
        ('flip_angle', 400, 'flip_angle 400 degrees is outside 1 to 180'),
        ('flip_angle', True, 'flip_angle is a number'),
        ('zooms', [1, 1], 'zooms are three lengths in mm'),
        ('zooms', [0.001, 1, 1], 'zooms 0.001 mm is outside'),
        ('sequence', 'EPI', 'sequence is one of MPRAGE, SPGR'),
        ('plane', 'oblique', 'plane is one of axial'),
        ('acquisition', '4D', 'acquisition is one of 2D, 3D'),
        ('snr', float('nan'), 'snr nan'),
        ('bias', 2, 'bias 2'),
        ('source', 'guess', 'source is one of published'),
    ],
)
def test_a_wrong_protocol_says_what_is_wrong_and_where(tmp_path, key, value, message):
    content = minimal()
    content['sites']['mine']['protocols']['T1w'][key] = value
    with pytest.raises(OptionError, match=message) as error:
        load_sites(written(tmp_path, content))
    assert 'sites.yaml: site mine: T1w' in str(error.value)
    assert '\n' not in str(error.value)
    assert error.value.exit_code == ExitCode.BAD_OPTIONS


@pytest.mark.parametrize('key', ['sequence', 'zooms', 'inversion_time', 'excitation_interval'])
def test_a_missing_protocol_key(tmp_path, key):
    content = minimal()
    del content['sites']['mine']['protocols']['T1w'][key]
    with pytest.raises(OptionError, match=f'missing {key}'):
        load_sites(written(tmp_path, content))


@pytest.mark.parametrize(
    'change, message',
    [
        ({'field': 60}, 'field 60 T is outside'),
        ({'field': '3 G'}, 'field is given in T'),
        ({'protocols': {}}, 'no protocol'),
        ({'protocols': {'bold': {}}}, "unknown key 'bold'"),
        ({'protocols': {'T1w': 3}}, 'needs a mapping'),
        ({'receive_field': 'flat'}, 'receive_field is one of'),
        ({'aliases': 'M'}, 'aliases is a list'),
        ({'colour': 'red'}, 'unknown key'),
    ],
)
def test_a_wrong_site(tmp_path, change, message):
    content = minimal()
    content['sites']['mine'].update(change)
    with pytest.raises(OptionError, match=message):
        load_sites(written(tmp_path, content))


@pytest.mark.parametrize('text', ['sites: [', '- a\n- b\n', 'sites: 3\n', 'sites: {}\n', ''])
def test_no_site_file(tmp_path, text):
    with pytest.raises((InputError, OptionError)) as error:
        load_sites(written(tmp_path, text))
    assert '\n' not in str(error.value)


def test_an_absent_site_file(tmp_path):
    with pytest.raises(InputError, match='nowhere.yaml'):
        load_sites(tmp_path / 'nowhere.yaml')


def test_two_sites_may_not_share_a_session(tmp_path):
    content = minimal()
    content['sites']['mi-ne'] = content['sites']['mine']
    with pytest.raises(OptionError, match='share the name mine'):
        load_sites(written(tmp_path, content))
