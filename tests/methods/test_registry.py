"""Methods and packaged styles by name."""

import json
import subprocess
import sys

import pytest

from harmony_app.errors import ModelError, OptionError
from harmony_app.imaging.profile import TissueProfile
from harmony_app.methods import registry
from harmony_app.methods.base import CONTRASTS, Method, Style

CLASSICAL = ('none', 'histogram-matching', 'white-stripe', 'nyul', 'ssimh')


def make_style(name, contrast, csf=0.2):
    return Style(name, contrast, TissueProfile((0.7, 1.0, csf), (0.1,) * 3, (0.5,) * 100, ()))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """An own folder of packaged models; gives a function that writes the transfer model's styles."""
    monkeypatch.setattr(registry, 'WEIGHTS', tmp_path)

    def write(styles, **fields):
        folder = tmp_path / 'transfer-default'
        folder.mkdir(exist_ok=True)
        content = {'method': 'transfer', 'styles': styles, **fields}
        (folder / 'model.json').write_text(json.dumps(content))

    return write


@pytest.mark.parametrize('name', CLASSICAL)
def test_classical_methods_come_by_name(name):
    method = registry.get_method(name)
    assert isinstance(method, Method)
    assert method.name == name
    assert not method.needs_training


def test_every_name_is_a_method_of_that_name():
    for name in registry.METHOD_NAMES:
        cls = registry.find_class(name)
        assert issubclass(cls, Method)
        assert cls.name == name


def test_unknown_name_tells_the_known_ones():
    with pytest.raises(OptionError, match=r"'combat'.*transfer, haca3, .*none"):
        registry.get_method('combat')


def test_a_group_method_is_not_offered_for_one_session():
    assert not registry.GROUP_METHODS.keys() & set(registry.METHOD_NAMES)
    for name in registry.GROUP_METHODS:
        with pytest.raises(OptionError, match=f'{name} is fitted on a group .* transfer, haca3'):
            registry.get_method(name)


def test_unknown_option_is_told():
    with pytest.raises(OptionError, match='nyul has no option width; it takes none'):
        registry.get_method('nyul', width=0.1)
    with pytest.raises(OptionError, match='white-stripe has no option with; it takes width'):
        registry.get_method('white-stripe', **{'with': 0.1})


def test_a_model_for_a_method_without_one_is_told(tmp_path):
    with pytest.raises(OptionError, match='nyul has no model'):
        registry.get_method('nyul', model_folder=tmp_path)


def test_absent_packaged_model_is_told(weights):
    with pytest.raises(ModelError, match='no model of haca3 .* --model'):
        registry.packaged_model('haca3')
    with pytest.raises(ModelError, match='no model of transfer'):
        registry.default_styles()


def test_styles_by_name_and_contrast(weights):
    weights(
        [make_style('siteA', c).to_dict() for c in CONTRASTS]
        + [make_style('siteB', 'T1w', csf=0.3).to_dict()]
    )
    named = registry.named_styles()
    assert list(named) == ['siteA', 'siteB']
    assert list(named['siteA']) == list(CONTRASTS)
    assert named['siteB']['T1w'] == make_style('siteB', 'T1w', csf=0.3)
    default = registry.default_styles()
    assert list(default) == list(CONTRASTS)
    assert {style.name for style in default.values()} == {'siteA'}


def test_a_contrast_without_style_is_told(weights):
    weights([make_style('siteA', 'T1w').to_dict()])
    with pytest.raises(ModelError, match='no style for T2w, PDw, FLAIR'):
        registry.default_styles()


@pytest.mark.parametrize(
    'styles, message',
    [
        ('nothing', 'no readable styles'),
        ([{'name': 'siteA'}], 'no readable styles'),
        ([make_style('siteA', 'bold').to_dict()], 'no known contrast: bold'),
        ([make_style('siteA', 'T1w').to_dict()] * 2, 'two styles are named siteA'),
    ],
)
def test_unreadable_styles_are_told(weights, styles, message):
    weights(styles)
    with pytest.raises(ModelError, match=message):
        registry.named_styles()


def test_registry_is_light():
    """Names and styles are there before anyone waits for torch."""
    code = (
        'import sys\n'
        'from harmony_app.methods import registry\n'
        'registry.get_method("nyul")\n'
        'sys.exit(str({"torch", "ants", "nipype", "nilearn"} & sys.modules.keys() or "") or None)'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
