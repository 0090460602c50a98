"""What a plan will cost: processor time, memory and disk, by what steps were measured to take.

The seconds and memory are those that ``--resource-monitor`` gave on one core of a shared server
without an accelerator, for a phantom session of four contrasts (2 to 9 million voxels); of the methods on
slices HACA3 was measured (docs/benchmarks.md), and the others are taken for it. Another machine
differs by a factor of two easily: what is told is an order, not a promise. The disk of the scratch
follows from the arrays that are kept, that of the results from how noisy images compress.
"""

import math
from dataclasses import dataclass

from harmony_app.bids.discovery import ScanInput
from harmony_app.config import RunConfig
from harmony_app.errors import ScanError
from harmony_app.imaging.grid import SPACE, WORKING_SHAPE
from harmony_app.methods.registry import method_takes
from harmony_app.workflows.pace import in_words
from harmony_app.workflows.plans import Plan

USUAL_VOXELS = 9e6
"""Voxels of a scan whose header cannot be read: a whole head at 1 mm."""

PREPARE, FINISH, WRITE = (0.3, 0.2), (5.0, 0.1), (3.5, 0.25)
"""Seconds of a scan, and of each million of its voxels."""

ALIGN = (46.0, 5.0)
"""Seconds of a session, and of each scan beyond its first."""

TRANSFER, SLICES, CLASSICAL, ACCELERATED = 14.0, 60.0, 1.5, 5.0
"""Seconds of the harmonization of a scan: by transfer, by networks on slices, without, on a GPU."""

PEAK_GB, SLICES_GB = 1.2, 2.6
"""Largest memory of a process with the libraries it holds; with networks on slices."""

NATIVE_BYTES, TEMPLATE_BYTES, MAPS_BYTES = 3.6, 2.8, 0.7
"""Bytes of a voxel of a float32 image in the results, compressed, and of the tissue maps."""


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Parameters
    ----------
    cpu_seconds : float
        Of one core.
    memory_gb : float
        Of the largest step.
    work_gb, results_gb : float
        Disk of the scratch of one session at a time, and of all results.
    guessed : int
        Scans whose size is not known.
    """

    cpu_seconds: float
    memory_gb: float
    work_gb: float
    results_gb: float
    guessed: int


def estimate(plan: Plan, config: RunConfig) -> Cost:
    """Estimate the cost of a plan from the headers of its scans.

    Parameters
    ----------
    plan : Plan
        What will be done.
    config : RunConfig
        With what settings.
    """
    seconds, results, work, guessed = 0.0, 0.0, [], 0
    slices = method_takes(config.method, 'batch')
    of_method = SLICES if slices else TRANSFER if config.method == 'transfer' else CLASSICAL
    if plan.device.startswith('cuda'):
        of_method = min(of_method, ACCELERATED)
    grid = math.prod(WORKING_SHAPE)
    native, template = ('native' in config.output_spaces, SPACE in config.output_spaces)
    for session in plan.sessions:
        sizes = [_voxels(scan) for scan in session.scans]
        guessed += sizes.count(None)
        voxels = [USUAL_VOXELS if size is None else size for size in sizes]
        steps = (FINISH, WRITE) if config.keeps_bias else (PREPARE, FINISH, WRITE)
        seconds += sum(a + b * v / 1e6 for a, b in steps for v in voxels)
        seconds += ALIGN[0] + ALIGN[1] * (len(voxels) - 1) + of_method * len(voxels)
        # Prepared and harmonized on the own grid, both on the working grid, float32; the maps.
        scratch = sum(8 * v + 8 * grid for v in voxels) + 4 * grid
        work.append(scratch)
        results += native * sum(NATIVE_BYTES * v for v in voxels)
        results += template * (2 * TEMPLATE_BYTES * len(voxels) + MAPS_BYTES) * grid
    kept = sum(work) if config.keep_workdir else max(work, default=0) * max(config.nprocs, 1)
    memory = SLICES_GB if slices else PEAK_GB
    return Cost(seconds, memory, kept / 1e9, results / 1e9, guessed)


def describe_cost(cost: Cost, config: RunConfig, sessions: int) -> list[str]:
    """The cost in words.

    Parameters
    ----------
    cost : Cost
        Of :func:`estimate`.
    config : RunConfig
        Processes are told.
    sessions : int
        Sessions to compute.
    """
    if not sessions:
        return ['  cost: nothing is left to compute']
    at_once = min(config.nprocs, sessions * 2)
    lines = [
        f'  cost: about {in_words(cost.cpu_seconds)} of one processor core, '
        f'{in_words(cost.cpu_seconds / at_once)} with --nprocs {config.nprocs}; '
        f'{cost.memory_gb:.1f} GB of memory for each process',
        f'    disk: {_amount(cost.work_gb)} of scratch'
        + ('' if config.keep_workdir else ' at a time')
        + f', {_amount(cost.results_gb)} of results',
        '    (measured on phantom sessions, on one core of a server without a GPU: a guide to the '
        'order, not a promise)',
    ]
    if cost.guessed:
        lines.append(f'    ({cost.guessed} headers cannot be read: taken for heads at 1 mm)')
    return lines


def _amount(gigabytes: float) -> str:
    return f'{gigabytes:.1f} GB' if gigabytes >= 1 else f'{gigabytes * 1000:.0f} MB'


def _voxels(scan: ScanInput) -> float | None:
    """Voxels of a scan by its header; None where it cannot be read."""
    from harmony_app.imaging.headers import open_image

    try:
        return float(math.prod(open_image(scan.path).shape[:3]))
    except ScanError:
        return None
