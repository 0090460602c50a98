"""The workflow for other pipelines, as docs/integration.md shows it, inside an outer one."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from harmony_app.bids.atomic import write_json
from harmony_app.bids.transforms import read_itk_affine
from harmony_app.imaging.grid import WORKING_SHAPE
from harmony_app.imaging.registration import TemplateRegistration
from harmony_app.imaging.template import load_template
from harmony_app.workflows.plans import MethodSettings
from harmony_app.workflows.plugin import OneByOne
from harmony_app.workflows.scans import init_harmonize_scans_wf
from harmony_app.workflows.targets import styles_of_target

GUIDE = Path(__file__).parents[2] / 'docs' / 'integration.md'
EXECUTION = {'stop_on_first_crash': 'true', 'crashfile_format': 'txt', 'check_version': 'false'}


def save(path, volume):
    image = nib.Nifti1Image(np.rint(volume.data).astype(np.int16), volume.affine)
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    nib.save(image, path)
    return str(path)


@pytest.fixture(scope='module')
def example():
    """The factory of the guide."""
    text = re.search(r'```python\n(.+?)```', GUIDE.read_text(), re.S)[1]
    space = {}
    exec(compile(text, str(GUIDE), 'exec'), space)
    return space['init_anat_wf']


@pytest.fixture(scope='module')
def outer(tmp_path_factory, make_head, make_style, example):
    """Run the example in a pipeline whose nodes give the scans, as those of fMRIPrep would."""
    folder = tmp_path_factory.mktemp('outer')
    monkeypatch = pytest.MonkeyPatch()
    scans = {}
    for contrast in ('T1w', 'T2w'):
        head, matrix = make_head(contrast)
        scans[contrast] = save(folder / f'head_{contrast}.nii.gz', head)
    template = load_template()
    tissues = np.rint(template.tissues * 255).astype(np.uint8)
    found = TemplateRegistration(matrix, matrix, template.brain, tissues, 0.9)
    module = 'harmony_app.imaging.registration'
    monkeypatch.setattr(f'{module}.register_template', lambda *_: found)
    # The field of N4 is tested elsewhere, and costs most of the time.
    monkeypatch.setattr('harmony_app.workflows.steps.correct_bias', lambda volume: (volume, None))
    shift = np.eye(4)
    shift[0, 3] = 0.5
    monkeypatch.setattr(f'{module}.register_rigid', lambda *_: shift)
    styles = [make_style(contrast).to_dict() for contrast in scans]
    target = str(write_json(folder / 'style.json', styles))

    workflow = pe.Workflow('fmriprep_wf', base_dir=str(folder))
    workflow.config['execution'] = EXECUTION | {'crashdump_dir': str(folder)}
    t1w = pe.Node(niu.IdentityInterface(['out_file']), name='t1w_validate')
    t2w = pe.Node(niu.IdentityInterface(['out_file']), name='t2w_validate')
    t1w.inputs.out_file, t2w.inputs.out_file = scans['T1w'], scans['T2w']
    inner = example(method='histogram-matching', target=target)
    keep = pe.Node(niu.Merge(3), name='keep')
    workflow.connect(
        [
            (t1w, inner, [('out_file', 'inputnode.t1w')]),
            (t2w, inner, [('out_file', 'inputnode.t2w')]),
            (inner, keep, [('outputnode.t1w', 'in1'), ('outputnode.t2w', 'in2')]),
            (inner, keep, [('outputnode.t2w_to_t1w', 'in3')]),
        ]
    )
    graph = workflow.run(plugin=OneByOne())
    monkeypatch.undo()
    nodes = {node.name: node for node in graph.nodes()}
    return scans, nodes['keep'].result.outputs.out, nodes['unpack'].result.outputs, matrix


def test_harmonized_scans_come_out_where_they_went_in(outer):
    scans, (t1w, t2w, _), _, _ = outer
    for source, made in ((scans['T1w'], t1w), (scans['T2w'], t2w)):
        source, made = nib.load(source), nib.load(made)
        assert made.shape == source.shape
        assert np.array_equal(made.affine, source.affine)
        assert not np.array_equal(np.asarray(made.dataobj), np.asarray(source.dataobj))
    white = np.asarray(nib.load(t1w).dataobj)
    assert np.percentile(white, 95) == pytest.approx(1000, rel=0.3)


def test_masks_and_transforms_come_out_in_the_order_of_the_scans(outer):
    scans, (_, _, to_first), unpacked, matrix = outer
    assert read_itk_affine(to_first)[0, 3] == pytest.approx(0.5)
    assert np.allclose(read_itk_affine(unpacked.to_template[0]), matrix)
    assert np.allclose(read_itk_affine(unpacked.to_first[0]), np.eye(4))
    for scan, mask in zip(scans.values(), unpacked.mask, strict=True):
        mask = nib.load(mask)
        assert mask.shape == nib.load(scan).shape
        assert 0.05 < np.asarray(mask.dataobj).mean() < 0.5
    assert nib.load(unpacked.template[1]).shape == WORKING_SHAPE
    assert nib.load(unpacked.template_mask).shape == WORKING_SHAPE


def test_a_scan_that_cannot_be_used_is_an_error_that_names_it(tmp_path, make_style):
    broken = tmp_path / 'broken_T1w.nii.gz'
    broken.write_bytes(b'nothing')
    styles = {'T1w': make_style('T1w')}
    wf = init_harmonize_scans_wf(contrasts=['T1w'], method=MethodSettings('none'), styles=styles)
    wf.base_dir = str(tmp_path)
    wf.config['execution'] = EXECUTION | {'crashdump_dir': str(tmp_path)}
    wf.inputs.inputnode.in_files = [str(broken)]
    with pytest.raises(Exception, match='broken_T1w.nii.gz: cannot be read as NIfTI'):
        wf.run(plugin=OneByOne())


def test_contrasts_are_checked_when_the_workflow_is_built():
    for wrong in ([], ['T1w', 'bold']):
        with pytest.raises(ValueError, match='contrasts are T1w'):
            init_harmonize_scans_wf(contrasts=wrong, method=MethodSettings('none'), styles={})


def test_settings_of_a_method_find_the_packaged_model():
    settings = MethodSettings.of('transfer', threads=2)
    assert settings.model.is_dir()
    assert len(settings.model_hash) == 64
    assert settings.threads == 2
    assert MethodSettings.of('nyul') == MethodSettings('nyul')
    assert set(styles_of_target(None, settings.model)) >= {'T1w', 'T2w'}
    name = next(iter(styles_of_target(None).values())).name
    assert 'T1w' in styles_of_target(name)


def test_the_table_of_factories_tells_their_fields(tmp_path, make_style):
    """Fields that docs/integration.md names are those of the nodes."""
    wf = init_harmonize_scans_wf(contrasts=['T1w'], method=MethodSettings('none'), styles={})
    row = next(r for r in GUIDE.read_text().splitlines() if 'scans.init_harmonize_scans_wf`' in r)
    _, _, inputs, outputs = (part.strip() for part in row.strip('|').split('|'))
    told = [set(re.findall(r'`(\w+)`', text)) for text in (inputs, outputs)]
    assert told[0] == set(wf.inputs.inputnode.copyable_trait_names())
    assert told[1] == set(wf.outputs.outputnode.copyable_trait_names())
