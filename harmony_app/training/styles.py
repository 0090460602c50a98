"""Named target styles of a model: standard protocols, averaged over the training heads.

``python -m harmony_app.training.styles --heads DIR --model FOLDER`` measures them by the
method's own ``encode_target`` and keeps them in ``model.json``; the first of each contrast is
the default target.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan, Style
from harmony_app.methods.model_folder import read_metadata
from harmony_app.phantom.protocol import Protocol
from harmony_app.phantom.sequences import signal
from harmony_app.phantom.tissues import TISSUES, tissue_properties
from harmony_app.training.heads import Head, load_heads
from harmony_app.training.script import run_script

logger = logging.getLogger(__name__)


def _mprage(field: float, **changes: float) -> Protocol:
    common = {
        'repetition_time': 2300,
        'echo_time': 2.9,
        'inversion_time': 900,
        'flip_angle': 9,
        'excitation_interval': 7.1,
        'snr': 60,
    }
    return Protocol('T1w', 'MPRAGE', field, **(common | changes))


STANDARD = {
    'mprage-3t': _mprage(3.0),
    'mprage-1.5t': _mprage(1.5, repetition_time=2400, inversion_time=1000, flip_angle=8),
    'spgr-1.5t': Protocol('T1w', 'SPGR', 1.5, 24, 5, flip_angle=30, snr=60),
    'tse-3t': Protocol('T2w', 'TSE', 3.0, 5000, 100, snr=60),
    'tse-1.5t': Protocol('T2w', 'TSE', 1.5, 4500, 95, snr=60),
    'pd-3t': Protocol('PDw', 'TSE', 3.0, 3500, 15, snr=60),
    'pd-1.5t': Protocol('PDw', 'TSE', 1.5, 2800, 15, snr=60),
    'flair-3t': Protocol('FLAIR', 'FLAIR', 3.0, 9000, 110, 2500, snr=60),
    'flair-1.5t': Protocol('FLAIR', 'FLAIR', 1.5, 9000, 110, 2450, snr=60),
}
"""Protocols that a manufacturer's standard examination uses; the ADNI ones for MPRAGE (Jack 2008,
JMRI 27:685)."""


def simulated_scan(head: Head, protocol: Protocol, seed: int) -> Scan:
    """A head at a protocol, already preprocessed: on the working grid, white matter at 1.

    Parameters
    ----------
    head : Head
        Head on the working grid.
    protocol : Protocol
        Its contrast and signal-to-noise ratio; its grid is the working grid.
    seed : int
        Of the noise.
    """
    signals = signal(protocol, tissue_properties(protocol.field))
    signals = signals / signals[TISSUES.index('wm')]
    image = torch.zeros(head.fractions.shape[1:])
    for part, level in zip(head.fractions, signals, strict=True):
        image += torch.from_numpy(np.array(part)).float() * (float(level) / 255)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((2, *image.shape), generator=generator) / protocol.snr
    data = torch.sqrt((image + noise[0]) ** 2 + noise[1] ** 2).numpy()
    volume = Volume(data, WORKING_AFFINE)
    brain, tissues = np.array(head.maps[0]) > 127, np.array(head.maps[1:])
    return Scan.of_working(head.name, protocol.contrast, volume, brain, tissues)


def standard_styles(method, heads: Sequence[Head], seed: int = 0) -> list[Style]:
    """The styles of :data:`STANDARD` that a method reaches, as it encodes them, averaged over heads."""
    styles = []
    for name, protocol in STANDARD.items():
        if not method.reaches(name, protocol.contrast):
            continue
        scans = [simulated_scan(head, protocol, seed + i) for i, head in enumerate(heads)]
        styles.append(method.encode_target(scans, name))
        logger.info('%s: GM, WM, CSF at %s', name, np.round(styles[-1].profile.medians, 3))
    return styles


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--heads', type=Path, required=True, help='folder of the heads')
    parser.add_argument('--model', type=Path, required=True, help='model folder to add them to')
    parser.add_argument('--count', type=int, default=6, help='heads to average over')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    from harmony_app.methods.registry import get_method

    name = read_metadata(options.model)['method']
    method = get_method(name, options.model)
    heads = [head for head in load_heads(options.heads) if head.name != 'icbm'][: options.count]
    styles = standard_styles(method, heads)
    method.metadata = method.metadata | {'styles': [style.to_dict() for style in styles]}
    method.save(options.model)


if __name__ == '__main__':
    run_script(main)
