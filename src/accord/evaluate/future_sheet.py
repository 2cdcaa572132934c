"""Hypotheses of futures as one picture: the past of each input, what came true, and how it could have gone on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from accord.evaluate.futures import last_values
from accord.evaluate.hypothesis_sheet import INK, MARK
from accord.evaluate.line_sheet import Line, Panel, draw_lines, mixed

CHANNELS = 3
"""Channels that are drawn, the first ones, side by side."""
LINES = 24
"""Hypotheses that are drawn of each input, the most probable ones."""
COULD_BE = "#c8641e"
TRUTH = mixed(MARK, 0.45)
FAINTEST = 0.35


class Course(NamedTuple):
    """One input: its past (step, channel), what came true (step, channel), hypotheses (k, step, channel) with their probabilities (k,).

    nearest: the hypothesis that the truth is nearest to, None where it is not known.
    """

    title: str
    past: Tensor
    truth: Tensor
    hypotheses: Tensor
    probability: Tensor
    nearest: int | None


def draw_courses(courses: Sequence[Course], channels: Sequence[str], inputs: int) -> bytes:
    """The picture as PNG: for each input a panel of each of the first three channels; probable hypotheses are stronger.

    At most 24 hypotheses are drawn of each. A note says what is shown of how many: inputs of `inputs`, hypotheses, channels.
    """
    shown = list(channels[:CHANNELS])
    panels = [
        _panel(course, place, name if len(channels) > 1 else "")
        for course in courses
        for place, name in enumerate(shown)
    ]
    legend = [("given", INK), ("truth", TRUTH), ("what could be: the stronger, the more probable", COULD_BE)]
    k = max((len(course.hypotheses) for course in courses), default=0)
    counts = [
        (len(courses), inputs, "windows", "spread evenly"),
        (min(k, LINES), k, "hypotheses", "the most probable"),
        (len(shown), len(channels), "channels", "the first"),
    ]
    note = "; ".join(f"{some:,} of {of:,} {what}, {which}" for some, of, what, which in counts if some < of)
    return draw_lines(panels, legend, columns=max(2, len(shown)), width=340, height=150, note=note)


def _panel(course: Course, channel: int, name: str) -> Panel:
    past = course.past[:, channel].double().numpy()
    now = last_values(course.past[None].double())[0, channel].numpy()

    def ahead(values: Tensor, colour: str, width: float) -> Line:
        return Line(len(past) - 1, np.concatenate([[now], values[:, channel].double().numpy()]), colour, width)

    top = float(course.probability.max().clamp_min(1e-12))
    order = torch.argsort(course.probability, descending=True, stable=True)[:LINES].flip(0).tolist()
    lines = [
        ahead(
            course.hypotheses[k], mixed(COULD_BE, FAINTEST + (1 - FAINTEST) * float(course.probability[k]) / top), 1.5
        )
        for k in order
    ]
    title = f"{course.title}  {name}".rstrip()
    return Panel(title, [ahead(course.truth, TRUTH, 5), *lines, Line(0, past, INK, 1.5)], upright=[len(past) - 1])
