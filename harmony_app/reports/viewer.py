"""Volumes inside a page, and NiiVue to look at them in three dimensions.

NiiVue stands in ``vendor`` as its npm package gives it; ``vendor/niivue.json`` holds version and
sha256, and beside it is its licence.
"""

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from harmony_app.imaging.volume import Volume
from harmony_app.reports.canvas import foreground_box
from harmony_app.reports.html import asset, paragraph
from harmony_app.reports.views import base64_text


@dataclass(frozen=True)
class Shown:
    """A scan of the viewer.

    Parameters
    ----------
    name : str
    stages : mapping of str to str
        Text of :func:`volume_text` by stage; every scan has the same stages.
    edge : float
        Edge of its voxels, mm.
    """

    name: str
    stages: Mapping[str, str]
    edge: float

    @property
    def size(self) -> int:
        """Characters that its volumes take."""
        return sum(map(len, self.stages.values()))


def volume_text(
    volume: Volume, window: tuple[float, float], step: int, box: tuple[slice, ...]
) -> str:
    """A volume of 256 greys, as the text of a gzipped NIfTI.

    Parameters
    ----------
    volume : Volume
    window : tuple of 2 float
        Intensities that become 0 and 255.
    step : int
        Edge, in voxels, of the cubes that are averaged; 1 for all voxels.
    box : tuple of 3 slice
        Part of the volume to keep.
    """
    import nibabel as nib

    corner = np.eye(4)
    corner[:3, 3] = [part.start for part in box]
    data = volume.data[tuple(box)]
    data = data[tuple(slice(0, n // step * step) for n in data.shape)]
    x, y, z = (n // step for n in data.shape)
    data = data.reshape(x, step, y, step, z, step).mean(axis=(1, 3, 5), dtype=np.float32)
    low, high = window
    greys = np.clip(np.rint((data - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
    larger = np.diag([step, step, step, 1.0])
    larger[:3, 3] = (step - 1) / 2
    image = nib.Nifti1Image(greys, volume.affine @ corner @ larger)
    # No time in the header: the same volume gives the same page.
    return base64_text(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))


def shown_scan(
    name: str, volumes: Mapping[str, Volume], window: tuple[float, float], step: int
) -> Shown:
    """A scan of the viewer, all stages in one window and one box."""
    box = foreground_box(*volumes.values())
    edge = step * max(next(iter(volumes.values())).zooms)
    return Shown(name, {s: volume_text(v, window, step, box) for s, v in volumes.items()}, edge)


def viewer(scans: Sequence[Shown]) -> str:
    """The part of a page with the volumes; :func:`viewer_scripts` make it live.

    Parameters
    ----------
    scans : sequence of Shown
        At least one.
    """
    stages = list(scans[0].stages)
    data = '\n'.join(
        f'<script type="text/plain" id="volume-{index}-{escape(stage)}">{text}</script>'
        for index, scan in enumerate(scans)
        for stage, text in scan.stages.items()
    )
    return (
        '<div class="viewer">'
        + paragraph(
            f'Voxels of {scans[0].edge:g} mm and 256 greys, for a look; measures come from the '
            'images. Before and after share one window.',
            note=True,
        )
        + '<noscript><p class="note">This part needs a script.</p></noscript>'
        '<button type="button" class="open">Open the 3D view</button>'
        '<div class="tools" hidden>'
        f'<select class="scan" aria-label="Scan">{_options([s.name for s in scans])}</select> '
        f'<select class="stages" aria-label="Stage">{_options(stages)}</select> '
        '<select class="view" aria-label="View"><option value="Multiplanar">three planes</option>'
        '<option value="Render">surface</option><option value="Axial">axial</option>'
        '<option value="Coronal">coronal</option><option value="Sagittal">sagittal</option></select>'
        '</div><p class="told" aria-live="polite"></p>'
        '<div class="screen" hidden><canvas aria-label="Volume in three dimensions"></canvas></div>'
        f'{data}</div>'
    )


def viewer_scripts() -> tuple[str, str]:
    """NiiVue, and what starts it."""
    return asset('vendor/niivue.umd.js'), asset('assets/viewer.js')


def _options(words: Sequence[str]) -> str:
    return ''.join(f'<option value="{escape(w)}">{escape(w)}</option>' for w in words)
