"""Levels of artifacts: relative to the contrast, in three words."""

import json

import pytest

from harmony_app.methods.artifact_scale import WORDS, ArtifactScale

SCALE = ArtifactScale({'T1w': 0.0, 'T2w': 0.25}, doubtful=0.25, poor=0.5)


def test_one_eta_means_less_where_unspoiled_scans_have_more():
    assert SCALE.judge((0.0, 0.5), 'T1w') == (0.5, 'doubtful')
    assert SCALE.judge((0.0, 0.5), 'T2w') == (0.25, 'good')
    assert SCALE.judge((0.0, 0.1), 'T2w') == (0.0, 'good')


def test_words_follow_the_level():
    found = [SCALE.judge((length, 0.0), 'T1w')[1] for length in (0.0, 0.25, 0.26, 0.5, 0.51, 3.0)]
    assert found == [WORDS[i] for i in (0, 0, 1, 1, 2, 2)]


def test_json_keeps_the_scale():
    told = json.loads(json.dumps(SCALE.to_dict() | {'note': 'how it was measured'}))
    assert ArtifactScale.from_dict(told) == SCALE


def test_measured_on_scans_of_known_severity():
    lengths = {'T1w': [i / 100 for i in range(101)], 'T2w': [1 + i / 100 for i in range(99)]}
    scale = ArtifactScale.measured(lengths, [('T1w', 1.25), ('T2w', 2.24), ('T2w', 1.0)])
    assert scale.unspoiled == {'T1w': 0.5, 'T2w': 1.49}
    # 190 of 200 lie at 0.45 or less above their median
    assert scale.doubtful == pytest.approx(0.45)
    assert scale.poor == pytest.approx(0.75)


def test_a_poor_scan_is_doubtful_too():
    scale = ArtifactScale.measured({'T1w': [0.0, 1.0, 0.0]}, [('T1w', 0.5)])
    assert scale.poor == scale.doubtful == 1.0


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match='no PDw'):
        SCALE.judge((0.1, 0.1), 'PDw')
    with pytest.raises(ValueError, match='without eta'):
        SCALE.judge((), 'T1w')
    with pytest.raises(ValueError, match='rise from 0'):
        ArtifactScale({}, 0.5, 0.2)
    with pytest.raises(ValueError, match='unspoiled scans of every contrast'):
        ArtifactScale.measured({'T1w': [], 'T2w': [0.1]}, [('T2w', 0.4)])
    with pytest.raises(ValueError, match='spoiled ones'):
        ArtifactScale.measured({'T1w': [0.1]}, [])
