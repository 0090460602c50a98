"""Train HACA3 on phantom slices: ``python -m harmony_app.training.haca3 --heads DIR --out DIR``."""

import argparse
import copy
import csv
import math
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from harmony_app.errors import InputError, OptionError
from harmony_app.nets.haca3 import VARIANTS, Haca3Nets, sample_anatomy
from harmony_app.training import losses
from harmony_app.training.checkpoint import load_checkpoint, save_checkpoint
from harmony_app.training.haca3_settings import Settings
from harmony_app.training.haca3_validation import save_examples, validate
from harmony_app.training.heads import VALIDATION, load_heads
from harmony_app.training.slices import LEVELS, Batch, SliceSampler

CHECKPOINT = 'checkpoint.safetensors'
LOG = 'log.csv'
TERMS = ('reconstruction', 'kl', 'anatomy', 'artifact', 'cycle', 'tissue', 'levels')


class Haca3Training:
    """Networks, optimiser and random states of a training.

    Parameters
    ----------
    settings : Settings
    sampler : SliceSampler
        Draws the batches.
    device : str
        Of the networks.
    """

    def __init__(self, settings: Settings, sampler: SliceSampler, device: str = 'cpu'):
        self.settings = settings
        self.sampler = sampler
        self.device = device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.nets = Haca3Nets(VARIANTS[settings.variant]).to(device)
            # the faster layout for few channels, on the CPU too
            self.nets = self.nets.to(memory_format=torch.channels_last)
            self.patchifier = losses.Patchifier().to(device)
            self.reader = torch.nn.Sequential(
                torch.nn.Linear(self.nets.config.theta, 32),
                torch.nn.SiLU(),
                torch.nn.Linear(32, len(LEVELS)),
            ).to(device)
        self.averaged = copy.deepcopy(self.nets).requires_grad_(False)
        trained = (self.nets, self.patchifier, self.reader)
        self.optimizer = torch.optim.AdamW(
            [parameter for module in trained for parameter in module.parameters()],
            lr=settings.rate,
            weight_decay=settings.decay,
            fused=True,
        )
        self.generator = torch.Generator(device=device).manual_seed(settings.seed)
        self.step = 0
        self.seconds = 0.0

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """What a checkpoint holds."""
        return {
            'nets': self.nets,
            'averaged': self.averaged,
            'patchifier': self.patchifier,
            'reader': self.reader,
        }

    def done(self) -> float:
        """Share of the budget that is used up."""
        if self.settings.steps:
            return self.step / self.settings.steps
        return self.seconds / (60 * self.settings.minutes)

    def train_step(self) -> dict[str, float]:
        """One step; the value of every loss."""
        for group in self.optimizer.param_groups:
            group['lr'] = self.settings.rate * _schedule(self.done(), self.step)
        batch = self.sampler.draw(self.settings.batch).to(self.device)
        terms = self.compute_losses(batch)
        weights = asdict(self.settings)
        known = max(0.1, 1 - 0.9 * self.done() / self.settings.tissue_until)
        weights['tissue'] *= known
        weights['levels'] *= known
        total = sum(weights[name] * terms[name] for name in TERMS)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(
            [p for group in self.optimizer.param_groups for p in group['params']], 1.0
        )
        self.optimizer.step()
        self.step += 1
        with torch.no_grad():
            share = 1 - min(self.settings.average, (1 + self.step) / (10 + self.step))
            for slow, fast in zip(self.averaged.parameters(), self.nets.parameters(), strict=True):
                slow.lerp_(fast, share)
        return {name: term.item() for name, term in terms.items()}

    def compute_losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Every loss on a batch, by name."""
        nets, settings = self.nets, self.settings
        count = len(batch.sources)
        images = batch.sources.flatten(0, 1)[:, None]
        masks = batch.source_masks.flatten(0, 1)[:, None]
        logits = nets.logits(images, masks)
        betas = sample_anatomy(logits, masks, self.generator)
        source_theta = nets.theta(images, masks)[0]
        # artifacts are learned in every other step, with twice the weight: they cost the most slices
        extra = [batch.clean, batch.mild, batch.severe] if self.step % 2 == 0 else []
        etas = nets.eta(
            torch.cat([images, batch.style, *extra]),
            torch.cat([masks, *[batch.style_mask] * (1 + len(extra))]),
        )
        source_eta, target_eta, *artifacts = etas.split([2 * count, *[count] * (1 + len(extra))])
        artifact = etas.new_zeros(())
        if artifacts:
            artifact = 2 * losses.severity_loss(*artifacts, batch.severity)
        mean, log_variance = nets.theta(batch.style, batch.style_mask)
        noise = torch.randn(mean.shape, generator=self.generator, device=mean.device)
        theta = mean + noise * torch.exp(0.5 * log_variance)

        sources = torch.cat([source_theta, source_eta], dim=1).unflatten(0, (count, 2))
        present = self._dropout(count)
        weights = nets.attention(torch.cat([theta, target_eta], dim=1), sources, present)
        levels = betas.unflatten(0, (count, 2))
        warm = self.done() < settings.warm
        given = levels.detach() if warm else levels
        fused, union = nets.fuse(given, weights, batch.source_masks[:, :, None])
        if warm and self.step % 2:
            true = batch.anatomy == batch.anatomy.amax(dim=1, keepdim=True)
            fused = true.to(fused.dtype) * union
        # a decoder that knows nothing yet would only drag theta along
        result = nets.decode(fused, union, theta.detach() if warm else theta)

        looks = torch.cat([batch.levels[:, :2].flatten(0, 1), batch.levels[:, 2]])
        # bright fluid would outweigh all brain: above white matter the error is relative
        importance = union / batch.target.clamp_min(1.0)
        reconstruction = losses.masked_l1(result, batch.target, importance)
        edges = losses.edge_l1(result, batch.target, importance)
        cycle = (nets.theta(result, union)[0] - mean.detach()).abs().mean()
        cycle = cycle + (nets.eta(result, union) - target_eta.detach()).abs().mean()
        if self.step % settings.inter_every == 0 and count > 1:
            cycle = cycle + self._between_sites(mean, target_eta, sources, present, levels, batch)
        return {
            'reconstruction': reconstruction + settings.edges * edges,
            'kl': losses.kl_divergence(mean, log_variance),
            'anatomy': self._anatomy_loss(levels, batch),
            'artifact': artifact,
            'cycle': cycle,
            'tissue': losses.soft_cross_entropy(
                logits, batch.anatomy.repeat_interleave(2, dim=0), masks
            ),
            'levels': (self.reader(torch.cat([source_theta, mean])) - looks).abs().mean(),
        }

    def _dropout(self, count: int) -> torch.Tensor:
        """Which sources are present, shape (B, 2), bool; at least one of each pair."""
        draws = torch.rand((count, 2), generator=self.generator, device=self.device)
        dropped = draws[:, :1] < self.settings.dropout
        second = draws[:, 1:] < 0.5
        return ~torch.cat([dropped & second, dropped & ~second], dim=1)

    def _between_sites(self, theta, eta, sources, present, levels, batch) -> torch.Tensor:
        """Cycle with the target of another subject and site: its theta and eta, our anatomy."""
        half = max(1, len(theta) // 2)
        theta, eta = (values.roll(1, dims=0)[:half].detach() for values in (theta, eta))
        weights = self.nets.attention(torch.cat([theta, eta], 1), sources[:half], present[:half])
        fused, union = self.nets.fuse(levels[:half], weights, batch.source_masks[:half, :, None])
        result = self.nets.decode(fused, union, theta)
        again = self.nets.anatomy(result, union, self.generator)
        return (
            (self.nets.theta(result, union)[0] - theta).abs().mean()
            + (self.nets.eta(result, union) - eta).abs().mean()
            + 0.5 * losses.masked_l1(again, fused.detach(), union)
        )

    def _anatomy_loss(self, levels: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Contrastive loss of the patches of both anatomies, each as query once."""
        count = levels.shape[2]
        ramp = torch.arange(1, count + 1, device=levels.device, dtype=levels.dtype) / count
        maps = torch.einsum('bslhw,l->bshw', levels, ramp)
        stacked = torch.cat([maps, batch.sources], dim=1)
        features = self.patchifier(stacked.flatten(0, 1)[:, None]).unflatten(0, stacked.shape[:2])
        patch = self.patchifier.patch
        both = batch.source_masks.prod(1, keepdim=True)
        inside = torch.nn.functional.avg_pool2d(both, patch).flatten(1) > 0.3
        # the images are what anatomy must not resemble, so they are not to move towards it
        images = features[:, 2:].detach()
        return 0.5 * (
            losses.patch_contrast(features[:, 0], features[:, 1], images, inside)
            + losses.patch_contrast(features[:, 1], features[:, 0], images, inside)
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        progress = {
            'step': self.step,
            'seconds': self.seconds,
            'sampler': self.sampler.rng.bit_generator.state,
            'settings': asdict(self.settings),
        }
        save_checkpoint(path, self.modules, self.optimizer, self.generator, progress)

    def begin_from(self, folder: Path) -> None:
        """Start from the networks of a model folder, its optimiser and the helpers fresh."""
        from harmony_app.methods.haca3 import Haca3

        known = Haca3.load(folder, self.device).nets
        if known.config != self.nets.config:
            raise InputError(f'{folder} has other widths than --variant {self.settings.variant}')
        for nets in (self.nets, self.averaged):
            nets.load_state_dict(known.state_dict())

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same widths; the budget may be another."""
        progress = load_checkpoint(path, self.modules, self.optimizer, self.generator)
        self.step, self.seconds = progress['step'], progress['seconds']
        self.sampler.rng.bit_generator.state = progress['sampler']


def train(training: Haca3Training, out: Path, check: SliceSampler | None = None) -> dict:
    """Run a training to the end of its budget, or until it is told to stop (SIGTERM).

    Parameters
    ----------
    training : Haca3Training
        Fresh or resumed.
    out : Path
        Folder of checkpoint, log and example pictures; made where absent.
    check : SliceSampler, optional
        Draws of held-out heads; validated at every checkpoint.

    Returns
    -------
    dict
        Metrics of the last validation; empty without.
    """
    out.mkdir(parents=True, exist_ok=True)
    stop: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    log = _Log(out / LOG, training.step)
    metrics: dict = {}
    try:
        saved = clock = time.monotonic()
        while training.done() < 1 and not stop:
            log.add(training.train_step())
            now = time.monotonic()
            training.seconds += now - clock
            clock = now
            if training.step % 20 == 0:
                log.write(training, training.settings.batch)
            if now - saved > 60 * training.settings.checkpoint_minutes:
                training.save(out / CHECKPOINT)
                if check is not None:
                    metrics = _check(training, check, out)
                saved = time.monotonic()
                training.seconds += saved - clock
                clock = saved
        training.save(out / CHECKPOINT)
        if check is not None and not stop:
            metrics = _check(training, check, out)
    finally:
        signal.signal(signal.SIGTERM, before)
    return metrics


def _check(training: Haca3Training, check: SliceSampler, out: Path) -> dict:
    """Metrics and a picture on the same held-out draws every time."""
    state = check.rng.bit_generator.state
    batches = [check.draw(8).to(training.device) for _ in range(6)]
    check.rng.bit_generator.state = state
    metrics = validate(training.averaged, batches)
    save_examples(training.averaged, batches[0], out / 'examples.png')
    shown = '  '.join(f'{name} {value:.4f}' for name, value in metrics.items())
    _say(f'step {training.step}  {shown}')
    return metrics


class _Log:
    """A CSV of losses and speed; rows after the step that a resume starts from are dropped."""

    def __init__(self, path: Path, step: int):
        self.path = path
        self.sums = dict.fromkeys(TERMS, 0.0)
        self.count, self.start = 0, time.monotonic()
        kept = []
        if step and path.exists():
            with path.open(newline='') as stream:
                kept = [row for row in csv.reader(stream) if row and row[0].isdigit()]
        with path.open('w', newline='') as stream:
            writer = csv.writer(stream)
            writer.writerow(['step', 'seconds', *TERMS, 'slices_per_second'])
            writer.writerows(row for row in kept if int(row[0]) <= step)

    def add(self, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            self.sums[name] += value
        self.count += 1

    def write(self, training: Haca3Training, batch: int) -> None:
        means = [f'{self.sums[name] / self.count:.5f}' for name in TERMS]
        speed = self.count * batch / (time.monotonic() - self.start)
        row = [training.step, f'{training.seconds:.1f}', *means, f'{speed:.2f}']
        with self.path.open('a', newline='') as stream:
            csv.writer(stream).writerow(row)
        if training.step % 100 == 0:
            _say('  '.join(str(value) for value in row))
        self.sums = dict.fromkeys(TERMS, 0.0)
        self.count, self.start = 0, time.monotonic()


def _schedule(done: float, step: int) -> float:
    """Warm up, stay, and fall by a cosine over the last two thirds of the budget."""
    warm = min(1.0, (step + 1) / 100)
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, (done - 0.33) / 0.67)))) + 1e-3


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def make_training(
    heads: Path, settings: Settings, device: str = 'cpu'
) -> tuple[Haca3Training, SliceSampler | None]:
    """A training on the heads of a folder, and a sampler of its validation heads if it has any."""
    sampler = SliceSampler(load_heads(heads), np.random.default_rng(settings.seed), settings.size)
    check = None
    held_out = [name for name in VALIDATION if (heads / f'{name}_maps.npy').exists()]
    if held_out:
        check = SliceSampler(
            load_heads(heads, held_out), np.random.default_rng(9000), settings.size, artifacts=False
        )
    return Haca3Training(settings, sampler, device), check


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--heads', type=Path, required=True, help='folder of cached heads')
    parser.add_argument('--out', type=Path, required=True, help='folder of checkpoint and log')
    parser.add_argument('--minutes', type=float, default=60.0, help='budget of time')
    parser.add_argument('--steps', type=int, default=0, help='budget of steps instead of time')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--size', type=int, default=128, help='edge of the crops')
    parser.add_argument('--variant', choices=sorted(VARIANTS), default='compact')
    parser.add_argument(
        '--begin-from', type=Path, help='model folder to start from; no warm-up then'
    )
    parser.add_argument('--resume', action='store_true', help='continue from the checkpoint')
    parser.add_argument('--device', default='cpu')
    options = parser.parse_args(arguments)
    if options.size % 16:
        raise OptionError(f'--size {options.size}: must be a multiple of 16')
    checkpoint = options.out / CHECKPOINT
    if checkpoint.exists() and not options.resume:
        raise InputError(f'{checkpoint} exists: give --resume or another --out')
    settings = Settings(
        variant=options.variant,
        batch=options.batch,
        size=options.size,
        minutes=options.minutes,
        steps=options.steps,
        seed=options.seed,
        **({'warm': 0.0} if options.begin_from else {}),
    )
    training, check = make_training(options.heads, settings, options.device)
    if options.resume:
        training.load(checkpoint)
    elif options.begin_from:
        training.begin_from(options.begin_from)
    train(training, options.out, check)


if __name__ == '__main__':
    main()
