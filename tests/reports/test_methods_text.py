import re
from dataclasses import replace

import pytest

from harmony_app.methods.registry import GROUP_METHODS, METHOD_NAMES
from harmony_app.reports.methods_text import (
    Facts,
    MethodFacts,
    TargetFacts,
    citation_markdown,
    methods_text,
)
from harmony_app.reports.references import REFERENCES, bibliography, cited_in

METHOD = MethodFacts('transfer', ('T1w',), (TargetFacts('T1w', 'site:A', 12),), model='ab' * 32)
FACTS = Facts((METHOD,), '0.1.0', 2, 1, packages={'nipype': '1.11.0', 'torch': '2.13.0'})


@pytest.mark.parametrize('name', [*METHOD_NAMES, *GROUP_METHODS])
def test_every_method_has_its_sentence(name):
    text = methods_text(replace(FACTS, methods=(replace(METHOD, method=name),)))
    assert 'Scans were' in text
    assert f'by the method {name}.' not in text


def test_a_method_that_was_just_added_is_told_by_its_name():
    text = methods_text(replace(FACTS, methods=(replace(METHOD, method='gamma'),)))
    assert 'Scans were harmonized by the method gamma. The target was' in text


@pytest.mark.parametrize(
    'changes, told, untold',
    [
        ({}, 'N4 algorithm (Tustison et al., 2010)', 'Thick slices'),
        ({'bias_corrected': 'none'}, 'non-uniformity was not corrected', 'N4'),
        ({'bias_corrected': 'some'}, 'of scans that allowed it', 'of each scan'),
        ({'thick': ('FLAIR',)}, 'Thick slices (FLAIR)', 'shared was divided'),
        ({'divided': ('T2w',)}, 'Thick slices (T2w) were divided', 'were interpolated to 1 mm'),
        ({'tissue_field': True}, 'shared was divided out (Wells et al., 1996)', 'Thick'),
        ({'several': True}, 'were aligned rigidly to it', 'Brain masks were those'),
        ({'masks_given': True}, 'Brain masks were those of another dataset', 'aligned rigidly to'),
        ({'transforms_given': True}, 'by transforms that were given', 'correlation ratio'),
    ],
)
def test_what_was_done_is_told_and_nothing_else(changes, told, untold):
    text = methods_text(replace(FACTS, **changes))
    assert told in text
    assert untold not in text


@pytest.mark.parametrize(
    'changes, told',
    [
        ({}, '"site:A" for T1w (the average of 12 scans)'),
        ({'details': frozenset({'decoder'})}, "The result is the decoder's image."),
        ({'method': 'haca3', 'details': frozenset({'transfer'})}, 'carried onto the detail'),
        ({'fusions': frozenset({'median'})}, 'were fused by their median'),
        ({'fusions': frozenset({'median', 'network'})}, 'their median or a three-dimensional'),
        ({'noises': frozenset({'reduced'})}, 'Noise stronger than that of the target was reduced'),
        ({'noises': frozenset({'removed'})}, 'Noise was removed'),
        ({'site_average': True}, 'as that average does'),
        ({'fluid': True}, 'share of fluid that the contrasts'),
        ({'imputed': ('T2w',)}, 'T2w images were synthesized'),
        ({'seed': 7}, 'The random seed was 7.'),
        ({'model': ''}, 'The pipeline uses Nipype 1.11.0'),
    ],
)
def test_options_of_a_method_are_told(changes, told):
    assert told in methods_text(replace(FACTS, methods=(replace(METHOD, **changes),)))


def test_torch_is_cited_where_a_network_ran():
    assert 'PyTorch 2.13.0 (Paszke et al., 2019)' in methods_text(FACTS)
    plain = replace(METHOD, method='nyul', model='')
    assert 'PyTorch' not in methods_text(replace(FACTS, methods=(plain,)))


def test_every_citation_has_its_reference():
    for name in METHOD_NAMES:
        text = methods_text(replace(FACTS, methods=(replace(METHOD, method=name),)))
        cited = set(re.findall(r'[A-Z][\w-]+(?: et al\.| and [A-Z]\w+), \d{4}', text))
        assert cited == {work.short for work in cited_in(text)}
        markdown = citation_markdown(text)
        assert markdown.count('\n- ') == len(cited)


def test_references_are_whole():
    assert len(REFERENCES) == len({work.short for work in REFERENCES.values()})
    for key, work in REFERENCES.items():
        assert key.endswith(str(work.year))
        assert work.short.endswith(str(work.year))
        family = work.authors.split(',')[0]
        assert work.short.startswith(family)
        assert work.doi == '' or re.fullmatch(r'10\.\d{4,}/\S+', work.doi)
    text = bibliography([REFERENCES['wu2024']])
    assert text.count('{') == text.count('}')
    assert 'author = {Wu, Mengqi and ' in text
