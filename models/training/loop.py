"""The training loop that every recipe shares: batches, optimiser, schedule, moving average, checkpoints."""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# image [N, C, D, H, W] normalised; label int64 and weight, both [N, D, H, W], or [N] where patches are classified
Batch = tuple[Tensor, Tensor, Tensor]
Normalise = Callable[[Tensor], Any]  # the preprocessing of a bundle
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits [N, K, D, H, W], label, weight -> scalar


@dataclass(frozen=True)
class Progress:
    """Where a training run stands."""

    step: int
    seconds: float
    loss: float  # moving average
    fraction: float  # of the budget


@dataclass(frozen=True)
class Budget:
    """How long to train: whichever ends first. At least one must be given."""

    steps: int | None = None
    minutes: float | None = None

    def fraction(self, step: int, seconds: float) -> float:
        """Share of the budget that is used up."""
        if self.steps is None and self.minutes is None:
            raise ValueError("a training budget needs steps or minutes")
        shares = [0.0]
        if self.steps is not None:
            shares.append(step / self.steps)
        if self.minutes is not None:
            shares.append(seconds / (60 * self.minutes))
        return max(shares)


def learning_rate(fraction: float, peak: float, warm_up: float = 0.03) -> float:
    """Linear warm-up, then a cosine down to 1 % of the peak."""
    if fraction < warm_up:
        return peak * (0.05 + 0.95 * fraction / warm_up)
    share = min(1.0, (fraction - warm_up) / (1 - warm_up))
    return peak * (0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * share))))


def fit(
    network: nn.Module,
    batches: Iterator[Batch],
    loss_of: Loss,
    budget: Budget,
    *,
    device: str,
    peak_rate: float = 2e-3,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 120.0,
    on_step: Callable[[Progress], None] | None = None,
    average: float = 0.995,
) -> nn.Module:
    """Train `network` in place and return the moving average of its weights, which is the one to keep.

    The checkpoint (a state dict of the moving average) is written aside and renamed, so that it can be taken at any
    time. A step whose loss is not finite is skipped.
    """
    network.to(device).train()
    kept = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=peak_rate, weight_decay=1e-3)
    start = saved = time.monotonic()
    running = 0.0
    step = 0
    while (fraction := budget.fraction(step, time.monotonic() - start)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(fraction, peak_rate)
        image, label, weight = (t.to(device) for t in next(batches))
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(network(image), label, weight)
        step += 1
        if torch.isfinite(loss):
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            value = float(loss.detach())
            running = value if step == 1 else 0.97 * running + 0.03 * value
            decay = min(average, step / (step + 20))
            with torch.no_grad():
                for a, b in zip(kept.parameters(), network.parameters(), strict=True):
                    a.lerp_(b, 1 - decay)
                # Running statistics of normalisations are averages already.
                for kept_buffer, buffer in zip(kept.buffers(), network.buffers(), strict=True):
                    kept_buffer.copy_(buffer)
        if on_step is not None:
            on_step(Progress(step, time.monotonic() - start, running, fraction))
        if checkpoint is not None and time.monotonic() - saved > checkpoint_every_s:
            save_state(kept, checkpoint)
            saved = time.monotonic()
    if checkpoint is not None:
        save_state(kept, checkpoint)
    return kept


def save_state(network: nn.Module, path: Path) -> None:
    """Write the state dict in half precision: half the size, and no measurable loss for these networks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A DynUNet lists its blocks twice in its state dict: what is one tensor is stored once.
    halves: dict[int, Tensor] = {}
    for value in network.state_dict().values():
        halves.setdefault(value.data_ptr(), (value.half() if value.is_floating_point() else value).cpu())
    state = {key: halves[value.data_ptr()] for key, value in network.state_dict().items()}
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)
