"""Heads of the phantom scanned at several sites, as preprocessing leaves the scans.

Each is acquired on the grid of its protocol and brought to the working grid once, as real scans
are; what their registration would leave is drawn.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.intensity import white_matter_peak
from harmony_app.imaging.profile import measure_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan
from harmony_app.phantom.acquisition import acquire
from harmony_app.phantom.anatomy import Anatomy
from harmony_app.phantom.geometry import head_position
from harmony_app.phantom.sites import Site
from harmony_app.phantom.subject import Subject, draw_texture
from harmony_app.training.heads import Head

RESIDUAL = 0.3
"""Share of the receive field that the bias correction leaves."""

MISALIGNED = {'rotation': 0.2, 'translation': 0.3}
"""Degrees and mm by which a scan lies beside the template's place of its head."""


def scanned_volumes(head: Head, sites: Sequence[Site], contrast: str, seed: int) -> list[Scan]:
    """Scans of one person at some sites, white-matter peak at 1.

    Parameters
    ----------
    head : Head
        On the working grid.
    sites : sequence of Site
        Each with a protocol of the contrast.
    contrast : str
    seed : int
        Of the person's tissues, and of positions and noise.

    Returns
    -------
    list of Scan
        In the order of the sites, each named by head and site, its ``site`` that of the phantom.
    """
    generator = torch.Generator().manual_seed(seed)
    fractions = torch.from_numpy(np.asarray(head.fractions, np.float32) / np.float32(255))
    anatomy = Anatomy(fractions, WORKING_AFFINE)
    person = Subject(anatomy, draw_texture(anatomy, generator), seed)
    brain, tissues = np.array(head.maps[0]) > 127, np.array(head.maps[1:])
    scans = []
    for site in sites:
        protocol = site.protocols[contrast]
        protocol = replace(protocol, bias=RESIDUAL * protocol.bias)
        position = head_position(generator)
        acquired = acquire(
            anatomy,
            person.signals([protocol]),
            protocol,
            generator,
            texture=person.texture,
            position=position,
            receive=site.receive_field,
            spread=site.point_spread,
        )
        native = _to_ras(acquired.scan[0].numpy(), acquired.affine)
        to_working = head_position(generator, **MISALIGNED) @ np.linalg.inv(position)
        working = resample(native, brain.shape, WORKING_AFFINE, to_working)
        working = working.with_data(np.maximum(working.data, 0))
        scale = np.float32(1 / white_matter_peak(working.data, brain, tissues))
        working = working.with_data(working.data * scale)
        scans.append(
            Scan(
                name=f'{head.name} at {site.name}',
                contrast=contrast,
                working=working,
                native=native.with_data(native.data * scale),
                native_to_working=to_working,
                brain=brain,
                tissues=tissues,
                profile=measure_profile(working.data, brain, tissues),
                site=site.name,
            )
        )
    return scans


def _to_ras(data: np.ndarray, affine: np.ndarray) -> Volume:
    orientation = io_orientation(affine)
    turned = np.ascontiguousarray(apply_orientation(data, orientation), np.float32)
    return Volume(turned, affine @ inv_ornt_aff(orientation, data.shape))
