"""The slices of a step, rendered from plans on the device that trains.

The heads lie there once, 13 tissues and the brain as uint8, 116 MB each; every step cuts,
deforms, alters, renders, blurs, biases, adds noise and artifacts and masks all its slices at
once. :class:`harmony_app.training.slices.SliceSampler` does the same on a CPU and is the reference.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from harmony_app.phantom.artifacts import ARTIFACTS
from harmony_app.phantom.tissues import TISSUES
from harmony_app.training.crops import cubic_weights
from harmony_app.training.heads import Head
from harmony_app.training.slice_batch import ANATOMY, Batch
from harmony_app.training.slice_plans import CONTROLS, KNOTS, LESIONS
from harmony_app.training.spoiled import BRIGHTEST, KINDS

_WM, _GM, _LESION = (TISSUES.index(name) for name in ('wm', 'gm', 'lesion'))

SMALLEST_BLUR = 0.25
"""Blurs of a smaller standard deviation, in pixels, are none."""


class SliceRenderer:
    """Renders plans.

    Parameters
    ----------
    heads : sequence of Head
        Those of the :class:`~harmony_app.training.slice_plans.PlanSampler`, in its order.
    size : int
        Height and width of the crops.
    device : str
        Where heads and slices are.
    """

    def __init__(self, heads: Sequence[Head], size: int, device: str):
        self.size, self.device = size, device
        self.shape = tuple(heads[0].maps.shape[1:])
        channels = len(TISSUES) + 1
        # a voxel's tissues side by side: one look-up fetches them all
        self.volumes = torch.empty(
            (len(heads), *self.shape, channels), dtype=torch.uint8, device=device
        )
        for volume, head in zip(self.volumes, heads, strict=True):
            stack = np.concatenate([head.fractions, head.maps[:1]])
            volume.copy_(torch.from_numpy(stack).to(device).movedim(0, -1))
        self.knots = torch.from_numpy(KNOTS).float().to(device)
        first, last = CONTROLS
        weights = torch.zeros(last - first, size, last - 1)
        for control in range(*CONTROLS):
            weights[control - first, :, :control] = cubic_weights(size, control)
        self.texture_weights = weights.to(device)

    @torch.no_grad()
    def render(self, plans: Mapping[str, torch.Tensor]) -> Batch:
        """Batch of plans, on the device; the same plans give the same batch.

        Parameters
        ----------
        plans : mapping of str to Tensor
            Of :func:`harmony_app.training.slice_plans.join_plans`.
        """
        seed = int(plans['seeds'][0])
        generator = torch.Generator(self.device).manual_seed(seed)
        # kinds stay on the CPU too: which slices get which artifact is decided there
        kinds, source_severity = plans['kind'], plans['source_severity']
        given = {k: v.to(self.device, non_blocking=True) for k, v in plans.items()}
        count = len(kinds)

        stack = self._crops(given, generator)
        fractions, brain = stack[:, :-1], fill_holes(stack[:, -1] > 0.5)
        fractions = self._altered(fractions, given, generator)
        stripped = given['stripped'].repeat_interleave(2)[:, None, None]
        mask = torch.where(stripped, brain, fill_holes(fractions.sum(1) > 0.3))
        fractions = torch.where((stripped & ~brain)[:, None], 0.0, fractions)
        fractions, mask = fractions.unflatten(0, (count, 2)), mask.unflatten(0, (count, 2))
        anatomy, style_anatomy = fractions.unbind(1)
        silhouette, style_mask = mask.unbind(1)

        shown = _dilated(silhouette, given['rim'])
        seen = self._seen(given['box'])
        masks = shown[:, None] & seen
        airy = given['airy'][:, None, None]
        views = torch.where(airy[:, None], seen, masks)
        style_view = airy | style_mask

        signals, curves = given['signals'], given['curves']
        plain = self._mapped(torch.einsum('blk,bkhw->blhw', signals, anatomy), curves)
        style = torch.einsum('bk,bkhw->bhw', signals[:, 2], style_anatomy)[:, None]
        style = self._mapped(style, curves[:, 2:])
        scans = self._scanned(torch.cat([plain[:, :2], style], dim=1), given, generator)
        turned = given['turned']
        sources = self._corrupted(
            scans[:, :2].flatten(0, 1),
            kinds[:, :2].flatten(),
            turned[:, :2].flatten(),
            source_severity.flatten(),
            seed,
        ).unflatten(0, (count, 2))
        grain = given['grain'][:, None, None]
        clean = torch.where(grain > 0, _rician(style[:, 0], grain, generator), scans[:, 2])
        mild, severe = (
            self._corrupted(clean, kinds[:, 2], turned[:, 2], plans['severity'][:, i], seed + 7)
            for i in range(2)
        )
        target = _blurred(plain[:, 2], torch.full((count,), 0.3, device=self.device))
        return Batch(
            sources=sources * views,
            source_masks=masks.float(),
            views=torch.cat([views, style_view[:, None]], dim=1).float(),
            target=(target * shown)[:, None],
            anatomy=_levels(anatomy),
            style=(scans[:, 2] * style_view)[:, None],
            style_mask=style_mask[:, None].float(),
            clean=(clean * style_view)[:, None],
            mild=(mild * style_view)[:, None],
            severe=(severe * style_view)[:, None],
            severity=given['severity'],
            source_severity=given['source_severity'],
            levels=given['levels'],
            contrasts=given['contrasts'],
            present=torch.ones((count, 2), dtype=torch.bool, device=self.device),
            known=torch.ones(count, device=self.device),
            seeds=plans['seeds'],
        )

    def _crops(self, given: Mapping, generator: torch.Generator) -> torch.Tensor:
        """Deformed crops (2 B, K + 1, size, size), 0 to 1, of both slices of every example."""
        size, window = self.size, self.size + self.size // 4
        plan = {
            k: given[k].flatten(0, 1)
            for k in ('head', 'axis', 'plane', 'start', 'matrix', 'bend', 'flip')
        }
        line = torch.arange(window, device=self.device)
        rows = (plan['start'][:, :1] + line)[:, :, None].expand(-1, window, window)
        columns = (plan['start'][:, 1:] + line)[:, None].expand(-1, window, window)
        axis, plane = (plan[k][:, None, None] for k in ('axis', 'plane'))
        x = torch.where(axis == 0, plane, rows)
        y = torch.where(axis == 1, plane, torch.where(axis == 0, rows, columns))
        z = torch.where(axis == 2, plane, columns)
        stack = self.volumes[plan['head'][:, None, None], x, y, z].movedim(-1, 1).float() / 255

        line = torch.arange(size, device=self.device, dtype=torch.float32) - (size - 1) / 2
        points = torch.stack(torch.meshgrid(line, line, indexing='ij'), dim=-1)
        points = torch.einsum('hwi,nij->nhwj', points, plan['matrix'])
        bends = self._smooth(5, (len(points), 2), generator).movedim(1, -1)
        points = points + plan['bend'][:, None, None, None] * bends
        grid = points.flip(-1) / ((window - 1) / 2)
        grid = torch.where(plan['flip'][:, None, None, None], grid.flip(1), grid)
        return functional.grid_sample(stack, grid, align_corners=True)

    def _smooth(self, control: int, count: tuple, generator: torch.Generator) -> torch.Tensor:
        """Smooth random fields (*count, size, size) of about unit spread."""
        noise = self._normal((*count, control, control), generator)
        weights = cubic_weights(self.size, control).to(self.device)
        return weights @ noise @ weights.T

    def _normal(self, shape: tuple, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=self.device)

    def _altered(
        self, fractions: torch.Tensor, given: Mapping, generator: torch.Generator
    ) -> torch.Tensor:
        """Texture within tissues, and lesions in the white matter, of slices (N, K, H, W)."""
        first, last = CONTROLS
        weights = self.texture_weights[given['controls'].flatten() - first]
        noise = self._normal((len(fractions), last - 1, last - 1), generator)
        wave = 0.06 * weights @ noise @ weights.transpose(1, 2)
        wave = wave + 0.04 * self._normal(wave.shape, generator)
        wm, gm = fractions[:, _WM], fractions[:, _GM]
        exchanged = wave * torch.where(wave > 0, wm, gm)
        wm, gm = wm - exchanged, gm + exchanged
        lesions = given['lesions'].flatten(0, 1)
        chance = torch.rand(wm.shape, generator=generator, device=self.device) * (wm > 0.7)
        chosen, place = chance.flatten(1).topk(LESIONS, dim=1)
        line = torch.arange(self.size, device=self.device)
        lesion = fractions[:, _LESION]
        for i in range(LESIONS):
            radius, stretch, share = (v[:, None, None] for v in lesions[:, i].unbind(1))
            rows = line[None, :, None] - (place[:, i] // self.size)[:, None, None]
            columns = line[None, None] - (place[:, i] % self.size)[:, None, None]
            inside = (radius - torch.hypot(rows.float(), columns * stretch) + 0.5).clamp(0, 1)
            moved = inside * share * wm * (chosen[:, i] > 0)[:, None, None]
            wm, lesion = wm - moved, lesion + moved
        altered = fractions.clone()
        altered[:, _WM], altered[:, _GM], altered[:, _LESION] = wm, gm, lesion
        return altered

    def _seen(self, box: torch.Tensor) -> torch.Tensor:
        """Field of view (B, 2, H, W), bool, of boxes (B, 2, 2, 2)."""
        line = torch.arange(self.size, device=self.device)
        inside = (line >= box[..., :1]) & (line <= box[..., 1:])
        return inside[:, :, 0, :, None] & inside[:, :, 1, None]

    def _mapped(self, images: torch.Tensor, curves: torch.Tensor) -> torch.Tensor:
        """Monotone maps with values (B, L, knots) of images (B, L, H, W)."""
        upper = torch.bucketize(images.contiguous(), self.knots, right=True)
        upper = upper.clamp(1, len(self.knots) - 1)
        start, end = self.knots[upper - 1], self.knots[upper]
        share = ((images - start) / (end - start)).clamp(0, 1)
        low, high = (
            curves.gather(2, index.flatten(2)).reshape(images.shape) for index in (upper - 1, upper)
        )
        return low + share * (high - low)

    def _scanned(
        self, images: torch.Tensor, given: Mapping, generator: torch.Generator
    ) -> torch.Tensor:
        """Blur, residual bias, noise and a white-matter peak slightly off, of (B, 3, H, W)."""
        flat = images.flatten(0, 1)
        plan = {
            k: given[k].flatten(0, 1) for k in ('blur', 'thick', 'again', 'bias', 'gain', 'noise')
        }
        flat = _blurred(flat, plan['blur'])
        for axis in range(2):
            flat = _blurred_along(flat, plan['thick'][:, axis], axis + 1, truncate=4)
        field = self._smooth(4, (len(flat),), generator)
        bias, gain, noise = (plan[k][:, None, None] for k in ('bias', 'gain', 'noise'))
        flat = _rician(flat * torch.exp(bias * field) * gain, noise, generator)
        return _blurred(flat, plan['again']).clamp(0, 6).reshape(images.shape)

    def _corrupted(
        self,
        images: torch.Tensor,
        kinds: torch.Tensor,
        turned: torch.Tensor,
        severity: torch.Tensor,
        seed: int,
    ) -> torch.Tensor:
        """Slices (N, H, W) with their artifacts; kinds and severities (N,) are on the CPU."""
        turned = turned[:, None, None]
        result = torch.where(turned, images.transpose(1, 2), images)
        for number, kind in enumerate(KINDS):
            index = torch.nonzero((kinds == number) & (severity > 0))[:, 0]
            if len(index):
                generator = torch.Generator(self.device).manual_seed(seed + number)
                here = index.to(self.device)
                given = severity[index].to(self.device)
                spoiled = ARTIFACTS[kind](result[here], given, generator)
                result = result.index_copy(0, here, spoiled.clamp(0, BRIGHTEST))
        return torch.where(turned, result.transpose(1, 2), result)


def fill_holes(mask: torch.Tensor) -> torch.Tensor:
    """Masks (N, H, W), bool, with what the border cannot be reached from filled.

    As ``scipy.ndimage.binary_fill_holes`` of every slice: the outside spreads along whole rows
    and columns at once until nothing changes.
    """
    wall = functional.pad(mask, (1, 1, 1, 1))
    outside = torch.zeros_like(wall)
    outside[:, 0], outside[:, -1], outside[:, :, 0], outside[:, :, -1] = (True,) * 4
    while True:
        spread = outside
        for axis in (1, 2):
            for backwards in (False, True):
                spread = _spread(spread, wall, axis, backwards)
        if torch.equal(spread, outside):
            return ~outside[:, 1:-1, 1:-1]
        outside = spread


def _spread(outside: torch.Tensor, wall: torch.Tensor, axis: int, backwards: bool) -> torch.Tensor:
    """Let the outside go along an axis as far as no wall is in the way."""
    if backwards:
        outside, wall = outside.flip(axis), wall.flip(axis)
    shape = [1, 1, 1]
    shape[axis] = -1
    place = torch.arange(1, wall.shape[axis] + 1, device=wall.device).reshape(shape)
    reached, stopped = ((place * x).cummax(dim=axis).values for x in (outside, wall))
    spread = outside | ((reached > stopped) & ~wall)
    return spread.flip(axis) if backwards else spread


def _dilated(masks: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Masks (B, H, W), each grown by 0 to 3 steps to its four neighbours."""
    for step in range(3):
        image = masks.float()[:, None]
        grown = torch.maximum(
            functional.max_pool2d(image, (3, 1), 1, (1, 0)),
            functional.max_pool2d(image, (1, 3), 1, (0, 1)),
        )[:, 0].bool()
        masks = torch.where((steps > step)[:, None, None], grown, masks)
    return masks


def _blurred(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of images (N, H, W), each by its own standard deviation in pixels."""
    return _blurred_along(_blurred_along(images, sigma, 1), sigma, 2)


def _blurred_along(
    images: torch.Tensor, sigma: torch.Tensor, axis: int, truncate: float = 3
) -> torch.Tensor:
    """One axis of it; mirrored beyond the edges, as scipy.ndimage does."""
    radius = 9
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    width = sigma[:, None].clamp(min=1e-3)
    kernel = torch.exp(-0.5 * (offsets / width) ** 2)
    reach = torch.where(sigma[:, None] < SMALLEST_BLUR, 0, (truncate * width + 0.5).floor())
    kernel = kernel * (offsets.abs() <= reach)
    kernel = kernel / kernel.sum(1, keepdim=True)
    length = images.shape[axis]
    index = torch.arange(-radius, length + radius, device=images.device)
    index = torch.where(index < 0, -1 - index, index)
    index = torch.where(index >= length, 2 * length - 1 - index, index)
    padded = images.index_select(axis, index)
    shape = (len(images), 1, -1, 1) if axis == 1 else (len(images), 1, 1, -1)
    return functional.conv2d(padded[None], kernel.reshape(shape), groups=len(images))[0]


def _rician(images: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn((2, *images.shape), generator=generator, device=images.device)
    return torch.hypot(images + sigma * noise[0], sigma * noise[1])


def _levels(fractions: torch.Tensor) -> torch.Tensor:
    """Fractions (B, K, H, W) summed by level of the anatomy, shape (B, 5, H, W)."""
    levels = [fractions[:, [TISSUES.index(name) for name in names]].sum(1) for names in ANATOMY]
    levels[0] = levels[0] + (1 - fractions.sum(1)).clamp_min(0)
    return torch.stack(levels, dim=1)
