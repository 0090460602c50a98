"""HACA3's networks on one scan and one target: ours, and as the published code computes them.

The published code pads a scan to a cube, takes all slices of the three orientations, empty ones as
well, 56 at a time in float32, and fuses the whole cube. This is done here with our networks, which gives
the same image, and with networks as wide as the published ones; the weights of these are random, for
time does not depend on them.
"""

from pathlib import Path

import numpy as np
import torch

from benchmarks.speed_preprocessing import load_records, session_of, spent_in
from benchmarks.truth import map_of, truth_of
from harmony_app.bids.discovery import ScanInput
from harmony_app.engine.anatomy import shown_part
from harmony_app.engine.slicing import ORIENTATIONS
from harmony_app.evaluation.cost import measure_cost
from harmony_app.evaluation.metrics import ssim
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.resample import resample
from harmony_app.methods.base import Scan
from harmony_app.methods.haca3 import Haca3
from harmony_app.methods.registry import packaged_model
from harmony_app.nets.fusion import FusionNet
from harmony_app.nets.haca3 import VARIANTS, Haca3Nets

CUBE, BATCH = 224, 56
"""Edge of the cube and slices at once, of the published code: 672 slices in three orientations."""


def network_rows(bids: Path, out: Path) -> list[dict]:
    """Cost of each way, and SSIM to the truth of those that have trained weights.

    Parameters
    ----------
    bids : Path
        Phantom dataset.
    out : Path
        Where the part ``preprocessing`` left its records.
    """
    (scan,) = load_records(out / 'records', ['T1w'])
    source = session_of(bids)['T1w']
    image = out / 'decoded.npy'
    rows = []
    for who, variant in (
        ('harmony-app', ''),
        ('same networks, all slices', 'compact'),
        ('widths of the published networks, all slices', 'paper'),
    ):
        call, arguments = (
            (decode_plainly, (scan, variant, image)) if variant else (decode_ours, (scan, image))
        )
        cost = measure_cost(call, *arguments)
        row = {
            'who': who,
            **spent_in(cost),
        }
        if variant != 'paper':
            value = _similarity(bids, source, scan, np.load(image))
            row |= {'measure': 'ssim_to_own_truth', 'value': value}
        rows.append(row)
    return rows


def decode_ours(scan: Scan, out: Path) -> None:
    """The decoder's image of a scan in its own contrast, as ``--detail decoder`` makes it."""
    method = Haca3.load(packaged_model('haca3'), detail='decoder')
    style = method.encode_target([scan], 'own')
    method.forget()
    np.save(out, method.decode([scan], style).working.data)


@torch.inference_mode()
def decode_plainly(scan: Scan, variant: str, out: Path) -> None:
    """The same, nothing left out."""
    method = Haca3.load(packaged_model('haca3'), detail='decoder')
    nets, fusion = method.nets, method.fusion or FusionNet()
    if variant != nets.config.variant:
        nets = Haca3Nets(VARIANTS[variant]).eval()
    data, shown = (
        _cube(a.astype(np.float32)) for a in (scan.working.data, shown_part(scan.working))
    )
    decoded = torch.zeros(3, CUBE, CUBE, CUBE)
    theta = _theta(nets, data, shown)
    for volume, axis in zip(decoded, ORIENTATIONS.values(), strict=True):
        images, masks = (torch.from_numpy(np.moveaxis(a, axis, 0).copy()) for a in (data, shown))
        for start in range(0, CUBE, BATCH):
            part, mask = (a[start : start + BATCH, None] for a in (images, masks))
            nets.theta(part, mask)
            nets.eta(part, mask)
            anatomy = nets.anatomy(part, mask)
            result = nets.decode(anatomy, mask, theta.expand(BATCH, -1))
            volume.movedim(axis, 0)[start : start + BATCH] = result[:, 0]
    fused = fusion(decoded[None], torch.from_numpy(shown)[None, None])[0, 0].numpy()
    inside = _inside()
    np.save(out, fused[inside])


def _theta(nets: Haca3Nets, data: np.ndarray, shown: np.ndarray) -> torch.Tensor:
    """Theta of the target, which is the scan itself: mean over axial slices."""
    slices = slice(CUBE // 4, 3 * CUBE // 4, 8)
    images, masks = (
        torch.from_numpy(np.moveaxis(a, 2, 0)[slices].copy())[:, None] for a in (data, shown)
    )
    return nets.theta(images, masks)[0].mean(0, keepdim=True)


def _inside() -> tuple[slice, ...]:
    """Where the working grid lies in the cube; offsets are multiples of 16, as our crops are."""
    starts = [(CUBE - n) // 2 // 16 * 16 for n in WORKING_SHAPE]
    return tuple(slice(a, a + n) for a, n in zip(starts, WORKING_SHAPE, strict=True))


def _cube(data: np.ndarray) -> np.ndarray:
    """A volume of the working grid in the middle of the cube."""
    cube = np.zeros((CUBE,) * 3, np.float32)
    cube[_inside()] = data
    return cube


def _similarity(bids: Path, source: ScanInput, scan: Scan, image: np.ndarray) -> float:
    """SSIM in the brain to the noise-free scan of the same site, white matter at 1."""
    truth = resample(
        truth_of(bids, source, source.session),
        WORKING_SHAPE,
        WORKING_AFFINE,
        scan.native_to_working,
    ).data
    white = map_of(bids, source, 'label-WM_probseg')
    white = resample(white, WORKING_SHAPE, WORKING_AFFINE, scan.native_to_working, order=1).data
    truth = truth / np.median(truth[white > 0.95])
    return ssim(image, truth, scan.brain, float(np.percentile(truth[scan.brain], 99.5)))
