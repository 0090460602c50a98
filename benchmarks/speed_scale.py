"""A dataset of 1,000 people on paper: how long until the first scan could begin."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.speed_preprocessing import spent_in
from harmony_app.app import make_plan, make_workflow
from harmony_app.bids.atomic import write_json, write_table
from harmony_app.cli import make_config, make_parser
from harmony_app.evaluation.cost import measure_cost

PEOPLE = 1000
"""Each with a session of T1w, T2w and FLAIR."""


def planning_rows(out: Path) -> list[dict]:
    """Cost of the index with the plan, and of these with the graph that Nipype runs."""
    bids = skeleton(out / 'skeleton')
    rows = []
    for who, call in (('index and plan', _plan), ('index, plan and graph', _graph)):
        cost = measure_cost(call, bids, out / 'planned')
        rows.append(
            {
                'who': f'harmony-app, {PEOPLE} people: {who}',
                **spent_in(cost),
            }
        )
    return rows


def skeleton(bids: Path) -> Path:
    """a valid dataset of tiny images."""
    if (bids / 'participants.tsv').exists():
        return bids
    write_json(bids / 'dataset_description.json', {'Name': 'skeleton', 'BIDSVersion': '1.10.0'})
    image = bids.parent / 'tiny.nii.gz'
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), np.diag([8.0, 8.0, 8.0, 1.0])), image)
    labels = [f'{number:04}' for number in range(1, PEOPLE + 1)]
    for label in labels:
        folder = bids / f'sub-{label}' / 'ses-a' / 'anat'
        folder.mkdir(parents=True, exist_ok=True)
        for contrast in ('T1w', 'T2w', 'FLAIR'):
            shutil.copy(image, folder / f'sub-{label}_ses-a_{contrast}.nii.gz')
    write_table(
        bids / 'participants.tsv',
        ['participant_id'],
        [{'participant_id': f'sub-{label}'} for label in labels],
    )
    return bids


def _config(bids: Path, out: Path):
    argv = [str(bids), str(out), 'participant', '--nprocs', '2']
    return make_config(make_parser().parse_args(argv), argv)


def _plan(bids: Path, out: Path) -> None:
    make_plan(_config(bids, out))


def _graph(bids: Path, out: Path) -> None:
    from nipype.pipeline.engine.utils import generate_expanded_graph

    config = _config(bids, out)
    workflow = make_workflow(config, make_plan(config), 'paper')
    # what Nipype does with it before the first node runs
    generate_expanded_graph(workflow._create_flat_graph())
