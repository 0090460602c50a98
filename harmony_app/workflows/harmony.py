"""Workflow factories: importable by other pipelines, nothing global inside."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from harmony_app.bids.discovery import ScanInput
from harmony_app.imaging.grid import SPACES
from harmony_app.methods.base import Style
from harmony_app.workflows.interfaces import (
    AlignSession,
    AverageSites,
    EncodeTarget,
    FinishScan,
    HarmonizeSession,
    PrepareScan,
    WriteSession,
)
from harmony_app.workflows.measured import RECORDS, connect_measured, prepare_measured
from harmony_app.workflows.names import node_name, scan_node_names
from harmony_app.workflows.plans import MethodSettings, SessionPlan
from harmony_app.workflows.site_averages import SiteAverages
from harmony_app.workflows.wide import WideWorkflow

NO_AVERAGES = SiteAverages()

PREPARE_GB, ALIGN_GB, FINISH_GB, HARMONIZE_GB, WRITE_GB = 1.5, 1.5, 1.5, 3.0, 1.5
"""Memory of the nodes for a session of 1 mm scans, with the libraries they load."""


def init_harmony_wf(
    *,
    sessions: Sequence[SessionPlan],
    method: MethodSettings,
    styles: Mapping[str, Style],
    target_scans: Mapping[str, Sequence[ScanInput]],
    target_names: Mapping[str, str],
    bids_dir: Path,
    output_dir: Path,
    run: str,
    settings: Mapping,
    impute: Sequence[str] = (),
    sites: SiteAverages = NO_AVERAGES,
    sloppy: bool = False,
    bare: bool | None = None,
    super_resolution: str = 'auto',
    spaces: Sequence[str] = SPACES,
    name: str = 'harmony_wf',
) -> pe.Workflow:
    """Build the workflow of a run: every session, and the target where it is measured.

    Parameters
    ----------
    sessions : sequence of SessionPlan
        What to harmonize.
    method : MethodSettings
        With what.
    styles : mapping of str to Style
        Targets that are known, by contrast.
    target_scans : mapping of str to sequence of ScanInput
        Scans whose style is the target, by contrast.
    target_names : mapping of str to str
        Name of each target, by contrast.
    bids_dir, output_dir : Path
        Input dataset and output folder.
    run : str
        Name of the run, for the markers.
    settings : mapping
        Goes into every sidecar.
    impute : sequence of str
        Contrasts to make where they were not acquired.
    sites : SiteAverages
        Of the sites that the scans come from.
    sloppy : bool
        Leave bias fields where they are.
    bare : bool, optional
        Whether the scans show brains only; by default the background of each tells.
    super_resolution : str
        Which slices are divided into thin ones: ``auto``, ``on`` or ``off``.
    spaces : sequence of str
        Grids that images are written on: ``native`` and that of the template.
    name : str
        Name of the workflow.

    Inputs
    ------
    styles_file
        JSON file with styles by contrast that another workflow measured (optional); not read
        where this one measures the target itself.
    sites_file
        JSON file with averages of sites, likewise.

    Outputs
    -------
    sub_01_ses_a, ...
        For each session, by its name with underscores: JSON file, how each scan ended. The
        images are written to ``output_dir``.
    """
    workflow = WideWorkflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(['styles_file', 'sites_file']), name='inputnode')
    ends = {plan.name: node_name(plan.name) for plan in sessions}
    outputnode = pe.Node(niu.IdentityInterface(list(ends.values()) or ['none']), name='outputnode')
    workflow.add_nodes([inputnode, outputnode])
    # Preparation stands apart from the session: another target finds it in the cache.
    common = {'seed': method.seed, 'sloppy': sloppy, 'bare': bare}
    common['super_resolution'] = super_resolution
    prepare = {plan.name: _init_named_prepare_wf(plan, **common) for plan in sessions}
    workflow.add_nodes(list(prepare.values()))

    def make_prepare(plan: SessionPlan, prefix: str) -> pe.Workflow:
        return _init_named_prepare_wf(plan, prefix, **common)

    targets = [scan for scans in target_scans.values() for scan in scans]
    site_scans = [s for found in sites.scans.values() for scans in found.values() for s in scans]
    measured = prepare_measured(prepare, sessions, [*targets, *site_scans], make_prepare)
    encode = average = None
    if targets:
        encode = _init_encode(method, target_scans, target_names)
        connect_measured(workflow, encode, measured, targets, 'target')
    if site_scans:
        names = {
            site: {contrast: [scan.name for scan in scans] for contrast, scans in found.items()}
            for site, found in sites.scans.items()
        }
        average = pe.Node(AverageSites(sites=names), name='average_sites')
        connect_measured(workflow, average, measured, site_scans, 'site')
    for plan in sessions:
        session_wf = init_session_wf(
            plan=plan,
            method=method,
            styles=styles,
            bids_dir=bids_dir,
            output_dir=output_dir,
            run=run,
            settings=settings,
            impute=impute,
            sites=sites,
            spaces=spaces,
            prepared_outside=True,
            name=node_name(f'{plan.name}_wf'),
        )
        records = [(f'outputnode.{key}', f'inputnode.{key}') for key in RECORDS]
        workflow.connect([(prepare[plan.name], session_wf, records)])
        for key, measuring in (('styles_file', encode), ('sites_file', average)):
            source = (inputnode, key) if measuring is None else (measuring, 'out_file')
            workflow.connect(*source, session_wf, f'inputnode.{key}')
        workflow.connect(session_wf, 'outputnode.out_file', outputnode, ends[plan.name])
    return workflow


def init_session_wf(
    *,
    plan: SessionPlan,
    method: MethodSettings,
    styles: Mapping[str, Style],
    bids_dir: Path,
    output_dir: Path,
    run: str,
    settings: Mapping,
    impute: Sequence[str] = (),
    sites: SiteAverages = NO_AVERAGES,
    sloppy: bool = False,
    bare: bool | None = None,
    super_resolution: str = 'auto',
    spaces: Sequence[str] = SPACES,
    prepared_outside: bool = False,
    name: str = 'session_wf',
) -> pe.Workflow:
    """Build the workflow of one session.

    Parameters
    ----------
    plan : SessionPlan
        The session.
    prepared_outside : bool
        Whether the records of the prepared session come in by the ``inputnode``.
    method, styles, bids_dir, output_dir, run, settings, impute, sites, sloppy, bare
    super_resolution, spaces, name
        As for :func:`init_harmony_wf`.

    Inputs
    ------
    styles_file
        JSON file with styles measured in the run (optional).
    sites_file
        JSON file with averages of sites measured in the run (optional).
    prepared, finished, aligned
        Records of the session, where it is prepared outside.

    Outputs
    -------
    out_file
        JSON: how each scan ended.
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(
        niu.IdentityInterface(['styles_file', 'sites_file', *RECORDS]), name='inputnode'
    )
    outputnode = pe.Node(niu.IdentityInterface(['out_file']), name='outputnode')
    known = json.dumps({c: s.to_dict() for c, s in styles.items()}, sort_keys=True)
    averages = json.dumps(
        {
            site: {contrast: profile.to_dict() for contrast, profile in found.items()}
            for site, found in sites.profiles.items()
        },
        sort_keys=True,
    )
    harmonize = pe.Node(
        HarmonizeSession(
            styles=known, sites=averages, impute=list(impute), **method.interface_inputs()
        ),
        name='harmonize',
        mem_gb=HARMONIZE_GB,
        # Nipype takes as many slots of the accelerator as the node has processors.
        n_procs=1 if method.uses_gpu else method.threads,
    )
    write = pe.Node(
        WriteSession(
            session=plan.name,
            styles=known,
            entities={scan.name: dict(scan.entities) for scan in plan.scans},
            bids_dir=str(bids_dir),
            output_dir=str(output_dir),
            settings=dict(settings),
            digest=plan.digest,
            run=run,
            spaces=list(spaces),
        ),
        name='write',
        mem_gb=WRITE_GB,
    )
    if prepared_outside:
        source, prefix = inputnode, ''
    else:
        source = init_prepare_wf(
            scans=plan.scans,
            given=plan.given,
            seed=method.seed,
            sloppy=sloppy,
            bare=bare,
            super_resolution=super_resolution,
            name='prepare_wf',
        )
        prefix = 'outputnode.'
    workflow.connect(
        [
            # A list for each: Nipype takes out of them what it has connected.
            (source, harmonize, [(f'{prefix}{key}', key) for key in RECORDS]),
            (source, write, [(f'{prefix}{key}', key) for key in RECORDS]),
            (inputnode, harmonize, [(f, f) for f in ('styles_file', 'sites_file')]),
            (inputnode, write, [('styles_file', 'styles_file')]),
            (harmonize, write, [('out_file', 'results')]),
            (write, outputnode, [('out_file', 'out_file')]),
        ]
    )
    return workflow


def init_prepare_wf(
    *,
    scans: Sequence[ScanInput],
    given: Mapping[str, Mapping[str, Path]],
    seed: int,
    sloppy: bool = False,
    bare: bool | None = None,
    super_resolution: str = 'auto',
    name: str = 'prepare_wf',
) -> pe.Workflow:
    """Build the preparation of one session: bias field, alignment, working grid, profile.

    Parameters
    ----------
    scans : sequence of ScanInput
        Scans of the session; where the path of one is None, its file comes by the ``inputnode``.
    given : mapping
        By scan: ``mask_file`` and ``transform_file`` made by others.
    seed : int
        Seed of the samplers.
    sloppy : bool
        Leave bias fields where they are.
    bare : bool, optional
        Whether the scans show brains only; by default the background of each tells.
    super_resolution : str
        Which slices are divided into thin ones: ``auto``, ``on`` or ``off``.
    name : str
        Name of the workflow.

    Inputs
    ------
    in_files
        List of NIfTI files in the order of the scans, for those without a path.
    mask_file
        Brain mask on the grid of the first scan (optional).

    Outputs
    -------
    prepared, finished
        Lists of records, in the order of the scans.
    aligned
        Record of the session.
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(['in_files', 'mask_file']), name='inputnode')
    outputnode = pe.Node(niu.IdentityInterface(list(RECORDS)), name='outputnode')
    count = len(scans)
    prepared, finished = (
        pe.Node(niu.Merge(count), name=f'{kind}_scans', run_without_submitting=True)
        for kind in ('prepared', 'finished')
    )
    align = pe.Node(AlignSession(seed=seed), name='align', mem_gb=ALIGN_GB)
    workflow.connect(
        [
            (prepared, align, [('out', 'prepared')]),
            (prepared, outputnode, [('out', 'prepared')]),
            (finished, outputnode, [('out', 'finished')]),
            (align, outputnode, [('out_file', 'aligned')]),
        ]
    )
    for number, (scan, label) in enumerate(zip(scans, scan_node_names(scans), strict=True), 1):
        inputs = {'scan_name': scan.name, 'contrast': scan.contrast}
        if scan.path is not None:
            inputs['in_file'] = str(scan.path)
        if scan.volume is not None:
            inputs['volume'] = scan.volume
        if scan.site:
            inputs['site'] = scan.site
        inputs |= {'sloppy': sloppy, 'super_resolution': super_resolution}
        if bare is not None:
            inputs['bare'] = bare
        inputs |= {key: str(path) for key, path in given.get(scan.name, {}).items()}
        prepare = pe.Node(PrepareScan(**inputs), name=f'prepare_{label}', mem_gb=PREPARE_GB)
        finish = pe.Node(FinishScan(), name=f'finish_{label}', mem_gb=FINISH_GB)
        if scan.path is None:
            workflow.connect(inputnode, ('in_files', _take, number - 1), prepare, 'in_file')
        if number == 1 and 'mask_file' not in inputs:
            workflow.connect(inputnode, 'mask_file', prepare, 'mask_file')
        workflow.connect(
            [
                (prepare, prepared, [('out_file', f'in{number}')]),
                (prepare, finish, [('out_file', 'prepared')]),
                (align, finish, [('out_file', 'aligned')]),
                (finish, finished, [('out_file', f'in{number}')]),
            ]
        )
    return workflow


def _take(items, index):
    """One file of a list; Nipype runs this in a module of its own."""
    return items[index] if isinstance(items, (list, tuple)) else [items][index]


def _init_encode(
    method: MethodSettings,
    target_scans: Mapping[str, Sequence[ScanInput]],
    target_names: Mapping[str, str],
) -> pe.Node:
    """Node that turns target scans into styles."""
    return pe.Node(
        EncodeTarget(
            targets={c: [s.name for s in scans] for c, scans in target_scans.items()},
            names={c: target_names[c] for c in target_scans},
            **method.interface_inputs(),
        ),
        name='encode_target',
        mem_gb=HARMONIZE_GB,
        n_procs=1 if method.uses_gpu else method.threads,
    )


def _init_named_prepare_wf(plan: SessionPlan, prefix: str = '', **settings) -> pe.Workflow:
    name = node_name(f'{prefix}{plan.name}_prepare_wf')
    return init_prepare_wf(scans=plan.scans, given=plan.given, name=name, **settings)
