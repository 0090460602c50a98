"""Graphs are built and wired, nothing is run."""

from pathlib import Path

import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from nipype.pipeline.engine.utils import generate_expanded_graph

from harmony_app.bids.discovery import Selection, discover
from harmony_app.workflows.harmony import init_harmony_wf, init_prepare_wf, init_session_wf
from harmony_app.workflows.plans import MethodSettings, SessionPlan
from harmony_app.workflows.session_order import session_by_session
from harmony_app.workflows.site_averages import SiteAverages


@pytest.fixture
def sessions(make_dataset):
    root = make_dataset(
        'sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz',
        'sub-01/ses-a/anat/sub-01_ses-a_acq-2d_run-01_FLAIR.nii.gz',
        'sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz',
        'sub-02/anat/sub-02_T1w.nii.gz',
    )
    return [SessionPlan(scans, 'd') for scans in discover(root, Selection()).sessions.values()]


def build(sessions, tmp_path, make_style, **changes):
    settings = {
        'sessions': sessions,
        'method': MethodSettings('none'),
        'styles': {'T1w': make_style('T1w')},
        'target_scans': {},
        'target_names': {},
        'bids_dir': tmp_path,
        'output_dir': tmp_path / 'out',
        'run': 'r',
        'settings': {},
    }
    return init_harmony_wf(**(settings | changes))


def executed(workflow):
    """Full names of the nodes that will run."""
    workflow.base_dir = '/tmp'
    graph = workflow._create_flat_graph()
    kept = [n for n in graph.nodes() if not isinstance(n.interface, niu.IdentityInterface)]
    return sorted(node.fullname.removeprefix('harmony_wf.') for node in kept)


def test_a_session_is_a_few_coarse_nodes(sessions, tmp_path, make_style):
    nodes = executed(build(sessions[:1], tmp_path, make_style))
    assert nodes == [
        'sub_01_ses_a_prepare_wf.align',
        'sub_01_ses_a_prepare_wf.finish_T1w',
        'sub_01_ses_a_prepare_wf.finish_acq_2d_run_01_FLAIR',
        'sub_01_ses_a_prepare_wf.finished_scans',
        'sub_01_ses_a_prepare_wf.prepare_T1w',
        'sub_01_ses_a_prepare_wf.prepare_acq_2d_run_01_FLAIR',
        'sub_01_ses_a_prepare_wf.prepared_scans',
        'sub_01_ses_a_wf.harmonize',
        'sub_01_ses_a_wf.write',
    ]


def test_every_scan_is_told_what_becomes_of_thick_slices(sessions, tmp_path, make_style):
    outside = {'T1w': sessions[2].scans}
    workflow = build(
        sessions[:1], tmp_path, make_style, super_resolution='off',
        target_scans=outside, target_names={'T1w': 'x'},
    )  # fmt: skip
    workflow.base_dir = str(tmp_path)
    nodes = [n for n in workflow._create_flat_graph().nodes() if n.name.startswith('prepare_')]
    assert [node.interface.inputs.super_resolution for node in nodes] == ['off'] * 3


def test_a_target_session_is_prepared_once(sessions, tmp_path, make_style):
    scans = {'T1w': sessions[0].scans[:1]}
    workflow = build(sessions, tmp_path, make_style, target_scans=scans, target_names={'T1w': 'x'})
    nodes = executed(workflow)
    assert 'encode_target' in nodes
    assert sum(name.endswith('.align') for name in nodes) == len(sessions)
    # Not harmonized here, so it is prepared for the target alone.
    apart = build(sessions[1:], tmp_path, make_style, target_scans=scans, target_names={'T1w': 'x'})
    assert 'target_sub_01_ses_a_prepare_wf.align' in executed(apart)


def test_a_target_scan_that_the_filters_leave_out_is_prepared_apart(sessions, tmp_path, make_style):
    narrow = [SessionPlan(sessions[0].scans[1:])]
    scans = {'T1w': sessions[0].scans[:1], 'FLAIR': sessions[0].scans[1:]}
    names = {'T1w': 'x', 'FLAIR': 'x'}
    nodes = executed(build(narrow, tmp_path, make_style, target_scans=scans, target_names=names))
    assert 'target_sub_01_ses_a_prepare_wf.prepare_T1w' in nodes
    assert 'sub_01_ses_a_prepare_wf.prepare_acq_2d_run_01_FLAIR' in nodes


def test_averages_of_sites_reach_every_session(sessions, tmp_path, make_style):
    """Measured on sessions of the run and on another one, which the target needs too."""
    scans = sessions[2].scans
    sites = SiteAverages({}, {'A': {'T1w': (*sessions[0].scans[:1], *scans)}})
    workflow = build(
        sessions[:2],
        tmp_path,
        make_style,
        sites=sites,
        target_scans={'T1w': scans},
        target_names={'T1w': 'x'},
    )
    nodes = executed(workflow)
    assert sum(name.endswith('.align') for name in nodes) == 3
    average = workflow.get_node('average_sites')
    assert average.inputs.sites == {'A': {'T1w': ['sub-01_ses-a_T1w', 'sub-02_T1w']}}
    graph = workflow._create_flat_graph()
    nodes = {node.fullname: node for node in graph.nodes()}
    after = {n.fullname for n in graph.successors(nodes['harmony_wf.average_sites'])}
    assert after == {f'harmony_wf.sub_01_ses_{s}_wf.inputnode' for s in 'ab'}


@pytest.mark.parametrize(
    'device, model, gpu, processors',
    [
        ('cuda:0', Path('m'), True, 1),
        ('cpu', Path('m'), False, 4),
        # A method without a network does not take the accelerator.
        ('cuda', None, False, 4),
    ],
)
def test_only_nodes_that_use_the_accelerator_say_so(
    sessions, tmp_path, make_style, device, model, gpu, processors
):
    method = MethodSettings('transfer', model, device=device, threads=4)
    workflow = build(sessions[:1], tmp_path, make_style, method=method)
    workflow.base_dir = str(tmp_path)
    nodes = {node.name: node for node in workflow._create_flat_graph().nodes()}
    assert nodes['harmonize'].is_gpu_node() is gpu
    assert nodes['harmonize'].n_procs == processors
    assert not nodes['align'].is_gpu_node()


def test_workflows_fit_into_another_pipeline(sessions, tmp_path, make_style):
    outer = pe.Workflow('outer_wf', base_dir=str(tmp_path))
    inner = init_session_wf(
        plan=sessions[0],
        method=MethodSettings('none'),
        styles={'T1w': make_style('T1w')},
        bids_dir=tmp_path,
        output_dir=tmp_path / 'out',
        run='r',
        settings={},
    )
    after = pe.Node(niu.IdentityInterface(['report']), name='after')
    outer.connect(inner, 'outputnode.out_file', after, 'report')
    assert 'write' in {node.name for node in outer._create_flat_graph().nodes()}
    alone = init_prepare_wf(scans=sessions[0].scans, given={}, seed=1)
    assert set(alone.outputs.outputnode.copyable_trait_names()) == {
        'prepared',
        'finished',
        'aligned',
    }


def test_every_factory_has_an_inputnode_and_an_outputnode(sessions, tmp_path, make_style):
    """Fields that docs/integration.md names."""
    workflow = build(sessions, tmp_path, make_style)
    fields = set(workflow.inputs.inputnode.copyable_trait_names())
    assert fields == {'styles_file', 'sites_file'}
    ends = set(workflow.outputs.outputnode.copyable_trait_names())
    assert ends == {'sub_01_ses_a', 'sub_01_ses_b', 'sub_02'}
    prepare = init_prepare_wf(scans=sessions[0].scans, given={}, seed=1)
    assert set(prepare.inputs.inputnode.copyable_trait_names()) == {'in_files', 'mask_file'}
    styles = tmp_path / 'styles.json'
    styles.write_text('{}')
    outer = pe.Workflow('outer_wf', base_dir=str(tmp_path))
    measure = pe.Node(niu.IdentityInterface(['out_file']), name='measure')
    after = pe.Node(niu.Merge(1), name='after')
    outer.connect(measure, 'out_file', workflow, 'inputnode.styles_file')
    outer.connect(workflow, 'outputnode.sub_02', after, 'in1')
    measure.inputs.out_file = str(styles)
    graph = generate_expanded_graph(outer._create_flat_graph())
    nodes = {node.fullname: node for node in graph.nodes()}
    # A style from outside reaches every session; the end of one goes out.
    write = nodes['outer_wf.harmony_wf.sub_02_wf.write']
    assert write.inputs.styles_file == str(styles)
    assert [n.name for n in graph.successors(write)] == ['after']


def test_a_session_ends_before_the_next_begins_and_the_target_comes_first(
    sessions, tmp_path, make_style
):
    scans = {'T1w': sessions[2].scans}
    workflow = build(sessions, tmp_path, make_style, target_scans=scans, target_names={'T1w': 'x'})
    workflow.base_dir = str(tmp_path)
    order = [
        node.fullname.split('.')[1:] for node in session_by_session(workflow._create_flat_graph())
    ]
    steps = ['_'.join(parts) for parts in order if parts[-1] in ('align', 'write', 'encode_target')]
    assert steps == [
        'sub_02_prepare_wf_align',
        'encode_target',
        'sub_01_ses_a_prepare_wf_align',
        'sub_01_ses_a_wf_write',
        'sub_01_ses_b_prepare_wf_align',
        'sub_01_ses_b_wf_write',
        'sub_02_wf_write',
    ]
