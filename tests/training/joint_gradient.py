"""One step of HACA3 by one of several processes; prints nothing, writes its gradients.

``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT`` as torchrun sets them.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from harmony_app.training import distributed
from harmony_app.training.haca3 import Haca3Training
from harmony_app.training.haca3_settings import Settings
from harmony_app.training.heads import Head
from harmony_app.training.slices import SliceSampler

BATCH = 4


def gradients(head: Head, ranks: distributed.Ranks, step: int) -> dict[str, torch.Tensor]:
    """Gradients of this process after they were averaged, by name."""
    source = SliceSampler([head, head], 32)
    training = Haca3Training(Settings(size=32, warm=0.0, inter_every=2), source)
    drawn = [source.draw(np.random.default_rng([3, step, i])) for i in ranks.share(BATCH)]
    training.losses(training.collate(drawn), step, 0.5)['loss'].backward()
    modules = {'network': training.network} | training.helpers
    named = {f'{n}.{k}': p for n, m in modules.items() for k, p in m.named_parameters()}
    ranks.average_gradients(named.values())
    return {name: p.grad for name, p in named.items() if p.grad is not None}


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    head = Head('shells', np.load(folder / 'fractions.npy'), np.load(folder / 'maps.npy'))
    ranks = distributed.start('cpu')
    stop, done = ranks.agree(ranks.rank == 1, 0.25 + ranks.rank)
    if not stop or done != 0.25:
        raise SystemExit('the processes do not agree')
    for step in (1, 2):
        found = gradients(head, ranks, step)
        save_file(
            {k: v.contiguous() for k, v in found.items()},
            folder / f'rank{ranks.rank}_step{step}.safetensors',
        )
    distributed.finish()


if __name__ == '__main__':
    main()
