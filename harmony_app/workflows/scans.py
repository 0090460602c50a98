"""A workflow that harmonizes some files and knows no BIDS, for use inside other pipelines."""

import json
from collections.abc import Mapping, Sequence

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from harmony_app.bids.discovery import ScanInput
from harmony_app.methods.base import CONTRASTS, Style
from harmony_app.workflows.harmony import HARMONIZE_GB, WRITE_GB, init_prepare_wf
from harmony_app.workflows.interfaces import HarmonizeSession
from harmony_app.workflows.measured import RECORDS
from harmony_app.workflows.plans import MethodSettings
from harmony_app.workflows.unpacking import SCAN_FILES, UnpackScans


def init_harmonize_scans_wf(
    *,
    contrasts: Sequence[str],
    method: MethodSettings,
    styles: Mapping[str, Style],
    sloppy: bool = False,
    super_resolution: str = 'auto',
    name: str = 'harmonize_scans_wf',
) -> pe.Workflow:
    """Build a workflow that harmonizes the scans of one session.

    Nothing is named or written beyond the working folder: the outer workflow does that. A scan
    that cannot be harmonized is an error, for the outer workflow waits for it.

    Parameters
    ----------
    contrasts : sequence of str
        Contrast of each scan (T1w, T2w, PDw, FLAIR), in the order of ``in_files``; the same
        one may come twice.
    method : MethodSettings
        With what; ``MethodSettings.of('transfer')`` is the packaged one.
    styles : mapping of str to Style
        Targets by contrast; :func:`~harmony_app.workflows.targets.styles_of_target` finds them
        by name.
    sloppy : bool
        Leave bias fields where they are: for tests, or where they were corrected before.
    super_resolution : str
        Which slices are divided into thin ones for the template grid: ``auto``, ``on`` or ``off``.
    name : str
        Name of the workflow.

    Inputs
    ------
    in_files
        List of NIfTI files, one for each contrast.
    mask_file
        Brain mask on the grid of the first scan (optional).
    styles_file
        JSON file with styles that another workflow measured (optional).

    Outputs
    -------
    harmonized
        List of files: the scans in the contrast of the target, each on its own grid.
    mask
        List of files: brain masks on the same grids.
    template
        List of files: the harmonized scans on the grid of MNI152NLin2009aSym at 1 mm.
    to_template, to_first
        Lists of files: rigid transforms to the template, and to the first scan (ITK text).
    template_mask
        File: brain mask on the grid of the template.

    Raises
    ------
    ValueError
        For an unknown contrast, or none.

    Examples
    --------
    >>> wf = init_harmonize_scans_wf(contrasts=['T1w'], method=MethodSettings('none'), styles={})
    >>> sorted(wf.outputs.outputnode.copyable_trait_names())
    ['harmonized', 'mask', 'template', 'template_mask', 'to_first', 'to_template']
    """
    unknown = sorted(set(contrasts) - set(CONTRASTS))
    if unknown or not contrasts:
        raise ValueError(
            f'contrasts are {", ".join(CONTRASTS)}, not {", ".join(unknown) or "none"}'
        )
    scans = [
        ScanInput(None, 'outer', None, contrast, (('sub', 'outer'), ('run', str(number))))
        for number, contrast in enumerate(contrasts, 1)
    ]
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(
        niu.IdentityInterface(['in_files', 'mask_file', 'styles_file']), name='inputnode'
    )
    outputs = [*SCAN_FILES, 'template_mask']
    outputnode = pe.Node(niu.IdentityInterface(outputs), name='outputnode')
    known = json.dumps({c: s.to_dict() for c, s in styles.items()}, sort_keys=True)
    prepare_wf = init_prepare_wf(
        scans=scans,
        given={},
        seed=method.seed,
        sloppy=sloppy,
        super_resolution=super_resolution,
        name='prepare_wf',
    )
    harmonize = pe.Node(
        HarmonizeSession(styles=known, **method.interface_inputs()),
        name='harmonize',
        mem_gb=HARMONIZE_GB,
        n_procs=1 if method.uses_gpu else method.threads,
    )
    unpack = pe.Node(UnpackScans(styles=known), name='unpack', mem_gb=WRITE_GB)
    workflow.connect(
        [
            (inputnode, prepare_wf, [(f, f'inputnode.{f}') for f in ('in_files', 'mask_file')]),
            (inputnode, harmonize, [('styles_file', 'styles_file')]),
            (inputnode, unpack, [('styles_file', 'styles_file')]),
            (prepare_wf, harmonize, [(f'outputnode.{key}', key) for key in RECORDS]),
            (prepare_wf, unpack, [(f'outputnode.{key}', key) for key in RECORDS]),
            (harmonize, unpack, [('out_file', 'results')]),
            (unpack, outputnode, [(key, key) for key in outputs]),
        ]
    )
    return workflow
