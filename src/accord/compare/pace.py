r"""What a training step of a principle costs: seconds, and passes through the encoder.

A pass is one sample that goes forwards and backwards through the encoder. What a step computes is counted in floating-point
operations (of matrix products and convolutions, wherever they are: teachers, decoders, predictors, steps that search for z, the
terms themselves) and given in passes:

$\text{passes of a step} = \frac{\text{operations of the step}}{\text{operations of the encoder, forwards and backwards, for one sample}}$
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from accord import build
from accord.data.loader import Loader
from accord.data.pair import Pair
from accord.data.pairing import Pairing
from accord.data.random import Draws
from accord.data.samples import Samples
from accord.data.values import rows_of
from accord.evaluate.features import Stop, never
from accord.objective.loss import Objective
from accord.recipe import Recipe
from accord.run import new_objective
from accord.train.device import Device, choose_device, memory_faults, reproducible
from accord.train.optim import parameter_groups
from accord.train.parallel import spread
from accord.train.step import Guard, train_step

UNMEASURED, LEAST, MOST = 3, 5, 200
"""Steps before the clock counts, and how many are timed at least and at most."""


class Cost(NamedTuple):
    """Of one step: seconds (None if not measured) and passes (None where an encoder computes nothing)."""

    seconds: float | None
    passes: float | None


class Steps:
    """The steps of a run that has not begun, for measuring: the objective of its recipe and its own batches."""

    def __init__(self, recipe: Recipe, samples: Samples, train_index: np.ndarray):
        self.recipe, self.device = recipe, choose_device(recipe.training.device, recipe.training.precision)
        pairing = build.pairing(recipe)
        with memory_faults(recipe.training.batch_size):
            self.objective: Objective = new_objective(recipe, samples, train_index, pairing)
        self.pairing: Pairing = build.in_units(pairing, self.objective.model)
        self.device.place(self.objective)
        self.objective.train()
        self.loader = Loader(
            samples,
            train_index,
            batch_size=recipe.training.batch_size,
            seed=recipe.training.seed,
            ahead=1,
            shuffle_buffer=recipe.data.shuffle_buffer,
        )

    def pair(self, step: int, *, parts: int = 1) -> Pair:
        """The batch of a step, or the first of `parts` of it."""
        batch, place = self.loader.read(step), self.device.device
        some = slice(0, max(2, len(batch.index) // parts))
        aspect = None if batch.aspect is None else batch.aspect[some].to(place)
        draws = Draws(self.recipe.training.seed, batch.epoch, batch.index[some].to(place))
        return self.device.lay_out(self.pairing(rows_of(batch.data, some).to(place), draws, aspect))

    def passes(self) -> float | None:
        """Passes of one step; of a batch that is computed in parts one part is counted, as often as it takes."""
        with memory_faults(self.recipe.training.batch_size), reproducible(self.device, 0):
            pair = self.pair(0, parts=self.recipe.training.accumulate or 1)
            model = self.objective.model
            view = pair.first(model.encoder_x.sample_ndim, model.encoder_y.sample_ndim).x
            step = _operations(lambda: self.objective(pair).total, self.device)
            encoder = _operations(lambda: model.encoder_x(view).square().mean(), self.device)
        return self.recipe.training.batch_size / len(view) * step / (encoder / len(view)) if encoder else None

    def seconds(self, limit: float, *, stop: Stop = never) -> float:
        """Seconds of one step, the reading of its batch included; about `limit` seconds are spent."""
        optimizer = build.optimizer(self.recipe).build(parameter_groups(self.objective, 0.0))
        guard, times = Guard(self.objective, optimizer), list[float]()
        gradient = spread(self.objective, self.device, parts=self.recipe.training.accumulate or 1)
        with memory_faults(self.recipe.training.batch_size), reproducible(self.device, 0):
            for step in range(UNMEASURED + MOST):
                stop()
                train_step(self.objective, optimizer, self.pair(step), guard, self.device, gradient)
                guard.is_bad()  # waits for the device
                times.append(time.perf_counter())
                if len(times) >= UNMEASURED + LEAST and times[-1] - times[0] > limit:
                    break
        return (times[-1] - times[UNMEASURED - 1]) / (len(times) - UNMEASURED)


def _operations(scalar: Callable[[], Tensor], device: Device) -> int:
    """Floating-point operations of computing a scalar and its gradients."""
    counter = FlopCounterMode(display=False)
    with counter, device.autocast():
        value = scalar()
        if value.requires_grad:
            value.backward()
    return int(counter.get_total_flops())
