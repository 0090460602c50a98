"""The part of the workflow that measures styles on scans: of targets, and of sites."""

from collections.abc import Callable, Mapping, Sequence

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from harmony_app.bids.discovery import ScanInput
from harmony_app.workflows.names import node_name, session_name
from harmony_app.workflows.plans import SessionPlan

RECORDS = ('prepared', 'finished', 'aligned')
"""Outputs of a prepared session."""


def prepare_measured(
    prepare: Mapping[str, pe.Workflow],
    sessions: Sequence[SessionPlan],
    scans: Sequence[ScanInput],
    make: Callable[[SessionPlan, str], pe.Workflow],
) -> dict[str, tuple[pe.Workflow, tuple[ScanInput, ...]]]:
    """Preparation of the sessions of some scans: once, also where they are harmonized.

    Parameters
    ----------
    prepare : mapping of str to Workflow
        Of the sessions that are harmonized, by name.
    sessions : sequence of SessionPlan
        These sessions.
    scans : sequence of ScanInput
        Scans whose style is measured; the same one may come twice.
    make : callable
        Makes the preparation of a plan; its second argument goes before the name.

    Returns
    -------
    dict of str to tuple of (Workflow, tuple of ScanInput)
        By session: the workflow and the scans it prepares, in its order.
    """
    planned = {plan.name: plan for plan in sessions}
    groups: dict[str, dict[str, ScanInput]] = {}
    for scan in scans:
        name = session_name(scan.subject, scan.session)
        groups.setdefault(name, {}).setdefault(scan.name, scan)
    found = {}
    for name, wanted in groups.items():
        plan = planned.get(name)
        if plan is not None and wanted.keys() <= {scan.name for scan in plan.scans}:
            found[name] = prepare[name], plan.scans
        else:
            # Not harmonized in this run, or its filters leave a scan out.
            plan = SessionPlan(tuple(wanted.values()))
            found[name] = make(plan, 'target_'), plan.scans
    return found


def connect_measured(
    workflow: pe.Workflow,
    node: pe.Node,
    prepared: Mapping[str, tuple[pe.Workflow, tuple[ScanInput, ...]]],
    scans: Sequence[ScanInput],
    label: str,
) -> None:
    """Give a node the records of the sessions of some scans, scan by scan.

    Parameters
    ----------
    workflow : Workflow
        To add to.
    node : Node
        Has inputs among :data:`RECORDS`.
    prepared : mapping
        Of :func:`prepare_measured`, these scans among them.
    scans : sequence of ScanInput
        What is measured.
    label : str
        Beginning of the names of the nodes in between.
    """
    names = list(dict.fromkeys(session_name(s.subject, s.session) for s in scans))
    keys = [key for key in RECORDS if key in node.interface.inputs.copyable_trait_names()]
    merges = {
        key: pe.Node(niu.Merge(len(names)), name=f'{label}_{key}', run_without_submitting=True)
        for key in keys
    }
    for number, name in enumerate(names, 1):
        inner, session_scans = prepared[name]
        repeat = pe.Node(
            niu.Function(function=_repeat, input_names=['item', 'count'], output_names=['out']),
            name=node_name(f'{label}_{name}_session'),
            run_without_submitting=True,
        )
        repeat.inputs.count = len(session_scans)
        workflow.connect(inner, 'outputnode.aligned', repeat, 'item')
        for key in keys:
            source = (repeat, 'out') if key == 'aligned' else (inner, f'outputnode.{key}')
            workflow.connect(*source, merges[key], f'in{number}')
    for key in keys:
        workflow.connect(merges[key], 'out', node, key)


def _repeat(item, count):
    """Repeat a value: the record of a session for each of its scans."""
    return [item] * count
