"""A convolutional network that tells two kinds of maps or images apart, place by place."""

import torch
from torch import nn

from harmony_app.nets.masked import MaskedConv, pool_mask


class Discriminator(nn.Module):
    """Judges every place by itself, on the foreground only: one channel of logits.

    Parameters
    ----------
    inputs : int
        Channels of what it judges.
    widths : tuple of int
        Channels of its strided convolutions, which are not normalised.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...]):
        super().__init__()
        self.convs = nn.ModuleList(
            MaskedConv(i, o, norm=False, stride=2)
            for i, o in zip((inputs, *widths[:-1]), widths, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], 1, 1)

    def forward(
        self, images: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Judge (B, inputs, H, W) inside their masks (B, 1, H, W).

        Returns
        -------
        logits, mask : Tensor, shape (B, 1, h, w)
            Positive where the first kind is likely, and the places that show something.
        """
        for conv in self.convs:
            mask = pool_mask(mask)
            images = conv(images, mask)
        return self.head(images) * mask, mask
