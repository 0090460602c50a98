"""How near thick slices come to thin ones: ``python -m benchmarks.super_resolution --heads DIR``.

Heads that no model has seen are scanned in thick slices (noise and all, without a receive field,
which is taken off before), brought to thin ones by cubic B-splines and by super-resolution, and
compared with the noise-free scan in thin slices. Prints a table in Markdown.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from harmony_app.engine.super_resolution import super_resolve
from harmony_app.evaluation.metrics import psnr, ssim
from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.resample import resample
from harmony_app.imaging.slice_profile import thin_factor
from harmony_app.imaging.volume import Volume
from harmony_app.phantom.acquisition import acquire, point_spread, render, sample, spread_widths
from harmony_app.phantom.anatomy import Anatomy
from harmony_app.phantom.geometry import Grid, head_position, prescribe
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.sites import load_sites
from harmony_app.phantom.subject import draw_subject
from harmony_app.phantom.tissues import BRAIN_TISSUES, TISSUES
from harmony_app.training.heads import TEST, Head, load_heads
from harmony_app.training.script import run_script

SPIN_ECHO_T1W = Protocol(
    'T1w', 'TSE', field=1.5, repetition_time=550, echo_time=12, flip_angle=90,
    zooms=(0.9, 0.9, 5.0), acquisition='2D', plane='axial', snr=28,
)  # fmt: skip
"""The sites have no T1w in thick slices; this is the usual one."""

SITES = {'T2w': 'siteC', 'PDw': 'siteD', 'FLAIR': 'siteB'}
"""Whose protocol is taken, by contrast; only the thickness of the slices is changed."""

THICKNESS = (3.0, 4.0, 5.0)

LESIONS = 8.0
"""White-matter lesions of a head, ml."""


@dataclass(frozen=True)
class Case:
    """A scan and what it should have been.

    Parameters
    ----------
    scan : Volume
        Thick slices, white matter around 1.
    truth : Volume
        Noise-free thin ones.
    brain, head : ndarray, shape of the truth, bool
        Where they are compared.
    """

    scan: Volume
    truth: Volume
    brain: np.ndarray
    head: np.ndarray


def protocol_of(contrast: str, thickness: float) -> Protocol:
    """Two-dimensional protocol of a contrast, without a receive field."""
    protocol = SPIN_ECHO_T1W
    if contrast in SITES:
        protocol = load_sites()[SITES[contrast]].protocols[contrast]
    return replace(protocol, zooms=(*protocol.zooms[:2], thickness), bias=0.0)


def draw_case(head: Head, contrast: str, thickness: float, seed: int = 0) -> Case:
    """Scan a head twice: as a protocol does, and in thin slices without noise."""
    fractions = torch.from_numpy(np.array(head.fractions, np.float32)) / 255
    generator = torch.Generator().manual_seed(seed)
    subject = draw_subject(
        Anatomy(fractions, WORKING_AFFINE), generator, deformation=0, lesion_volume=LESIONS
    )
    anatomy, protocol = subject.anatomy, protocol_of(contrast, thickness)
    position = head_position(generator)
    grid = prescribe(anatomy, protocol, position, generator)
    signals = subject.signals([protocol])
    signals = signals / signals[:, [TISSUES.index('wm')]]
    scan = acquire(
        anatomy, signals, protocol, generator,
        texture=subject.texture, position=position, grid=grid,
    ).scan  # fmt: skip
    factor = thin_factor(grid.zooms)
    step = np.eye(4)
    step[2, 2], step[2, 3] = 1 / factor, 0.5 / factor - 0.5
    thin = Grid((*grid.shape[:2], grid.shape[2] * factor), grid.affine @ step)

    def seen(images: torch.Tensor) -> torch.Tensor:
        images = sample(images, anatomy.affine, thin, position, slice_profile=True)
        return point_spread(images, spread_widths(protocol, 1.0))

    truth = seen(render(anatomy.fractions, signals, subject.texture))[0].numpy()
    tissues = [TISSUES.index(name) for name in (*BRAIN_TISSUES, 'csf')]
    brain = seen(anatomy.fractions[tissues].sum(0, keepdim=True))[0].numpy() > 0.5
    inside = seen(anatomy.fractions.sum(0, keepdim=True))[0].numpy() > 0.5
    return Case(Volume(scan[0].numpy(), grid.affine), Volume(truth, thin.affine), brain, inside)


def score(data: np.ndarray, case: Case) -> dict[str, float]:
    """PSNR (dB) and SSIM in the brain and the head, over the range of the brain."""
    truth = case.truth.data
    extent = float(np.percentile(truth[case.brain], 99.5))
    return {
        f'{metric.__name__}_{name}': metric(data, truth, mask, extent)
        for metric in (psnr, ssim)
        for name, mask in (('brain', case.brain), ('head', case.head))
    }


def compare(case: Case) -> Iterator[dict]:
    """Rows of B-splines and of super-resolution; seconds are those of the processor."""
    factor = thin_factor(case.scan.zooms)
    shape, affine = case.truth.shape, case.truth.affine
    for name in ('B-spline', 'super-resolution'):
        start = time.process_time()
        if name == 'B-spline':
            data = resample(case.scan, shape, affine).data
        else:
            data = super_resolve(case.scan, factor).data
        yield {'by': name, 'seconds': time.process_time() - start} | score(data, case)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--names', nargs='+', default=list(TEST), help='of the heads')
    parser.add_argument('--contrasts', nargs='+', default=['T1w', *SITES])
    parser.add_argument('--thickness', nargs='+', type=float, default=list(THICKNESS), help='mm')
    parser.add_argument('--out', type=Path, help='TSV of all rows')
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for head in load_heads(options.heads, options.names):
        for contrast in options.contrasts:
            for thickness in options.thickness:
                key = {'contrast': contrast, 'mm': thickness, 'head': head.name}
                for row in compare(draw_case(head, contrast, thickness)):
                    rows.append(key | row)
                if options.out:
                    pd.DataFrame(rows).to_csv(options.out, sep='\t', index=False)
    print(to_markdown(pd.DataFrame(rows)))  # noqa: T201


def to_markdown(rows: pd.DataFrame) -> str:
    """Mean over heads, B-spline to super-resolution in each cell."""
    columns = ['psnr_brain', 'ssim_brain', 'psnr_head', 'ssim_head']
    lines = [
        '| contrast | slices mm | PSNR brain | SSIM brain | PSNR head | SSIM head | seconds |',
        '|---|---|---|---|---|---|---|',
    ]
    for (contrast, thickness), own in rows.groupby(['contrast', 'mm'], sort=False):
        means = own.groupby('by')[[*columns, 'seconds']].mean()
        before, after = means.loc['B-spline'], means.loc['super-resolution']
        cells = [
            f'{before[c]:.{digits}f} to {after[c]:.{digits}f}'
            for c, digits in zip(columns, (1, 3, 1, 3), strict=True)
        ]
        cells.append(f'{after.seconds:.0f}')
        lines.append(f'| {contrast} | {thickness:g} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


if __name__ == '__main__':
    run_script(main)
