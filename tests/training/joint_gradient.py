"""One step of HACA3 and of ImUnity by one of several processes; writes their gradients.

``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT`` as torchrun sets them.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from harmony_app.training import distributed, imunity_settings
from harmony_app.training.base import Training
from harmony_app.training.haca3 import Haca3Training
from harmony_app.training.haca3_settings import Settings
from harmony_app.training.heads import Head
from harmony_app.training.imunity import ImUnityTraining
from harmony_app.training.imunity_draws import PhantomPairs, training_sites
from harmony_app.training.imunity_sites import FEW
from harmony_app.training.slices import SliceSampler

BATCH = {'haca3': 4, 'imunity': FEW}
"""The module of sites reads a scan where as many are known."""

STEPS = (('haca3', 1), ('haca3', 2), ('imunity', 1))
"""Without artifacts and with them; the second of HACA3 with a cycle between sites."""


def begun(method: str, head: Head) -> tuple[Training, SliceSampler]:
    """Training of a method before its first step, and what it draws from."""
    if method == 'haca3':
        source = SliceSampler([head, head], 32)
        return Haca3Training(Settings(size=32, warm=0.0, inter_every=2), source), source
    settings = imunity_settings.Settings(size=32, slices=2, sited=1.0, t1w=1.0, warm=0.0)
    source = PhantomPairs([head, head], settings, training_sites())
    return ImUnityTraining(settings, source, sites=list(training_sites())), source


def gradients(
    head: Head, ranks: distributed.Ranks, step: int, method: str = 'haca3'
) -> dict[str, torch.Tensor]:
    """Gradients of this process after they were averaged, by name."""
    training, source = begun(method, head)
    drawn = [source.draw(np.random.default_rng([3, step, i])) for i in ranks.share(BATCH[method])]
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
    for method, step in STEPS:
        found = gradients(head, ranks, step, method)
        save_file(
            {k: v.contiguous() for k, v in found.items()},
            folder / f'rank{ranks.rank}_{method}{step}.safetensors',
        )
    distributed.finish()


if __name__ == '__main__':
    main()
