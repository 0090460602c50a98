"""One loop for every training: budget, schedule, checkpoints, validation, an early end.

A method gives a :class:`~harmony_app.training.base.Training`: networks, examples and losses.
Example i of step n is drawn from the seed (seed, n, i) alone, so a training that was
interrupted, and one whose batch is shared by several processes, sees the same examples.
"""

import copy
import logging
import signal
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from harmony_app.errors import HarmonyError, OptionError
from harmony_app.training.base import LoopSettings, Progress, Training
from harmony_app.training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from harmony_app.training.distributed import Ranks
from harmony_app.training.monitor import Monitor, Stopwatch

logger = logging.getLogger('harmony_app')

CHECKPOINT = 'checkpoint.safetensors'
BEST = 'best.safetensors'

BAD_STEPS = 20
"""Steps in a row without a finite gradient after which a training is given up."""


def best_or_last(out: Path) -> Path:
    """File of the best weights in the folder of a training, or of its checkpoint; a file is itself."""
    out = Path(out)
    if out.is_file():
        return out
    return out / BEST if (out / BEST).exists() else out / CHECKPOINT


class Loop:
    """Runs a training.

    Parameters
    ----------
    training : Training
    settings : LoopSettings
    out : Path
        Folder of checkpoint, best weights, tables and pictures.
    device : str
        Where the networks are.
    ranks : Ranks, optional
        This process among several.
    """

    def __init__(
        self,
        training: Training,
        settings: LoopSettings,
        out: Path,
        device: str = 'cpu',
        ranks: Ranks | None = None,
    ):
        self.training, self.settings, self.out = training, settings, Path(out)
        self.device, self.ranks = device, ranks or Ranks()
        if settings.batch % self.ranks.world:
            raise OptionError(
                f'a batch of {settings.batch} cannot be shared by {self.ranks.world} processes '
                'evenly: give a multiple'
            )
        self.average = copy.deepcopy(training.network).requires_grad_(False)
        self.parameters = [
            p
            for module in (training.network, *training.helpers.values())
            for p in module.parameters()
            if p.requires_grad
        ]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.rate, weight_decay=settings.decay, fused=True
        )
        self.progress = Progress()
        bfloat16 = settings.precision == 'bfloat16' or (
            settings.precision == 'auto' and device.startswith('cuda')
        )
        self._kind = device.partition(':')[0]
        self._dtype = torch.bfloat16 if bfloat16 else None

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """What a checkpoint holds."""
        return {'network': self.training.network, 'average': self.average} | dict(
            self.training.helpers
        )

    def done(self) -> float:
        """Share of the budget that is used up."""
        if self.settings.steps:
            return self.progress.step / self.settings.steps
        return self.progress.seconds / (60 * self.settings.minutes)

    def resume(self) -> bool:
        """Continue from the checkpoint of the folder, where there is one."""
        path = self.out / CHECKPOINT
        if not path.exists():
            return False
        told = load_checkpoint(path, self.modules, self.optimizer)
        names = Progress.__dataclass_fields__
        self.progress = Progress(**{k: v for k, v in told['progress'].items() if k in names})
        self.progress.stopped = False
        return True

    def run(self) -> Progress:
        """Train to the end of the budget, or until told to stop (SIGTERM, SIGINT).

        Returns
        -------
        Progress
            ``stopped`` where it was told to; the same call continues then.

        Raises
        ------
        HarmonyError
            Where the losses are not finite any more.
        """
        settings, progress, ranks = self.settings, self.progress, self.ranks
        ranks.same_start(self.modules.values())
        monitor = None
        if ranks.first:
            terms = self.training.terms
            monitor = Monitor(self.out, terms, progress.step, settings.batch)
        saved = clock = time.monotonic()
        watch, counted = Stopwatch(), 0
        with _told_to_stop() as told:
            batches = iter(self._loader())
            while True:
                now = time.monotonic()
                progress.seconds += now - clock
                clock = now
                stop, done = ranks.agree(bool(told), self.done())
                early = bool(settings.patience) and progress.since_best >= settings.patience
                if stop or done >= 1 or early:
                    progress.stopped = stop and done < 1 and not early
                    break
                watch.lap('rest')
                batch = next(batches)
                watch.lap('data')
                self._step(batch, done)
                counted += 1
                watch.lap('compute')
                if progress.step % settings.log_steps == 0:
                    self._log(monitor, counted, watch, done)
                    counted = 0
                if progress.step % settings.validation_steps == 0:
                    self._validate(monitor)
                if time.monotonic() - saved > 60 * settings.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
            if not progress.stopped and progress.step % settings.validation_steps:
                self._validate(monitor)
            progress.seconds += time.monotonic() - clock
            self.save()
        if monitor is not None:
            monitor.close()
        return progress

    def save(self) -> None:
        """Write a checkpoint, by the first process."""
        if self.ranks.first:
            self.out.mkdir(parents=True, exist_ok=True)
            path = self.out / CHECKPOINT
            save_checkpoint(path, self.modules, self.optimizer, self._facts())

    def _facts(self) -> dict:
        return {
            'progress': asdict(self.progress),
            'loop': asdict(self.settings),
            'training': self.training.describe(),
        }

    def _loader(self):
        """Batches of this process from the next step on, drawn ahead where there are workers."""
        share = self.ranks.share(self.settings.batch)
        drawn = _Batches(self.training.source, self.training.collate, self.settings.seed, share)
        return torch.utils.data.DataLoader(
            drawn,
            batch_size=None,
            sampler=range(self.progress.step, 2**62),
            num_workers=self.settings.workers,
            worker_init_fn=_calm,
            prefetch_factor=2 if self.settings.workers else None,
        )

    def _step(self, batch, done: float) -> None:
        settings, progress = self.settings, self.progress
        for group in self.optimizer.param_groups:
            group['lr'] = settings.rate * settings.schedule(progress.step, done)
        self.optimizer.zero_grad(set_to_none=True)
        self.training.network.train()
        with torch.autocast(self._kind, self._dtype, enabled=self._dtype is not None):
            terms = self.training.losses(batch, progress.step, done)
        terms['loss'].backward()
        self.ranks.average_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
            progress.bad_steps = 0
        else:
            # one bad example is left out; many are a training that has failed
            progress.bad_steps += 1
            if progress.bad_steps >= BAD_STEPS:
                raise HarmonyError(
                    f'the losses are not finite since step {progress.step - BAD_STEPS + 1}; resume '
                    'from the last checkpoint with a smaller learning rate'
                )
        progress.step += 1
        share = 1 - min(settings.average, (1 + progress.step) / (10 + progress.step))
        with torch.no_grad():
            fast = self.training.network.parameters()
            for slow, new in zip(self.average.parameters(), fast, strict=True):
                slow.lerp_(new, share)
        if bool(torch.isfinite(norm)):
            progress.counted += 1
            names = self.training.terms
            values = torch.stack([terms[name].detach().float() for name in names]).tolist()
            for name, value in zip(names, values, strict=True):
                progress.sums[name] = progress.sums.get(name, 0.0) + value

    def _log(self, monitor: Monitor | None, counted: int, watch: Stopwatch, done: float) -> None:
        progress, terms = self.progress, self.training.terms
        count = max(1, progress.counted)
        sums = torch.tensor([progress.sums.get(name, 0.0) / count for name in terms])
        means = self.ranks.mean(sums.to(self.device)).tolist()
        progress.sums, progress.counted = {}, 0
        watch.lap('rest')
        spent, drawing = watch.read(), self.training.drawing_seconds()
        spent['data'] += drawing
        spent['compute'] -= drawing
        if monitor is not None:
            rate = self.optimizer.param_groups[0]['lr']
            named = dict(zip(terms, means, strict=True))
            monitor.log(progress.step, progress.seconds, rate, named, counted, spent, done)

    def _validate(self, monitor: Monitor | None) -> None:
        """Metrics by the first process; the best model so far is kept apart."""
        progress = self.progress
        if monitor is not None:
            network = self.average.eval()
            metrics = self.training.validate(network)
            if metrics:
                score = metrics[self.training.score]
                better = progress.best is None or score > progress.best
                progress.metrics = metrics
                monitor.validated(progress.step, progress.seconds, metrics, better)
                if better:
                    progress.best, progress.best_step, progress.since_best = score, progress.step, 0
                    save_weights(self.out / BEST, network, self._facts())
                else:
                    progress.since_best += 1
                picture = self.training.picture(network)
                if picture is not None:
                    monitor.show(picture, progress.step)
        # the others end when the first one does
        _, since = self.ranks.agree(False, float(progress.since_best))
        progress.since_best = int(since)


@dataclass(frozen=True)
class _Batches(torch.utils.data.Dataset):
    """Batch of a step, by its number."""

    source: object
    collate: object
    seed: int
    share: range

    def __getitem__(self, step: int):
        return self.collate(
            [self.source.draw(np.random.default_rng([self.seed, step, i])) for i in self.share]
        )


@contextmanager
def _told_to_stop():
    """List that is no longer empty once SIGTERM or SIGINT came; a second SIGINT interrupts."""
    told: list[int] = []

    def note(number, frame):
        if number == signal.SIGINT and told:
            raise KeyboardInterrupt
        told.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _calm(worker: int) -> None:
    """A worker ends with the training, not by the signals that stop it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
