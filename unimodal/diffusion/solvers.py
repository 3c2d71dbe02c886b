"""Denoising by ordinary differential equations.

A solver walks x from noise (t = 1) to data (t = 0) along `times`, calling `predict_x0(x, t)` once or
more a step.  Any process is a straight flow in disguise: with s = alpha + sigma, y = x / s and
u = sigma / s, y = (1 - u) x0 + u eps, so dy/du = (y - x0) / u.  Solvers work in (y, u) and serve every
process alike.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unimodal.diffusion.process import Process
from unimodal.errors import UserError

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x (B, P, C), t scalar) -> predicted clean latents (B, P, C)."""
OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


def euler(
    predict_x0: Denoiser, x: Tensor, times: Tensor, process: Process, on_step: OnStep | None = None
) -> Tensor:
    """First-order steps: Euler on the straight flow, which is DDIM (Song et al. 2021, eq. 12, eta = 0).

    x      (B, P, C) noise at times[0]
    times  (S + 1,) decreasing, times[-1] = 0 returns clean latents; S calls of predict_x0
    Raises UserError if times does not decrease.
    """
    scale, level = _straighten(times, process)
    y = x / scale[0]
    for i, t in enumerate(times[:-1]):
        y = y + (level[i + 1] - level[i]) * _slope(predict_x0, y, t, scale[i], level[i])
        if on_step:
            on_step(i + 1, len(times) - 1)
    return y * scale[-1]


def heun(
    predict_x0: Denoiser, x: Tensor, times: Tensor, process: Process, on_step: OnStep | None = None
) -> Tensor:
    """Second-order steps (Karras et al. 2022, algorithm 1): an Euler step, then the mean of both slopes.

    Arguments and errors as `euler`.  2 S - 1 calls of predict_x0: where the step ends at sigma = 0 it is
    Euler's, because no slope exists there.  Global error O(h^2).
    """
    scale, level = _straighten(times, process)
    y = x / scale[0]
    for i, t in enumerate(times[:-1]):
        step = level[i + 1] - level[i]
        slope = _slope(predict_x0, y, t, scale[i], level[i])
        ahead = y + step * slope
        if level[i + 1] > 0:
            slope_ahead = _slope(predict_x0, ahead, times[i + 1], scale[i + 1], level[i + 1])
            ahead = y + step * (slope + slope_ahead) / 2
        y = ahead
        if on_step:
            on_step(i + 1, len(times) - 1)
    return y * scale[-1]


SOLVERS = {"euler": euler, "heun": heun}


def _straighten(times: Tensor, process: Process) -> tuple[Tensor, Tensor]:
    """alpha + sigma, and sigma / (alpha + sigma), at every time."""
    if len(times) < 2 or bool((times[1:] >= times[:-1]).any()):
        raise UserError(f"solver times must decrease from noise to data, got {times.tolist()}")
    scale = process.alpha(times) + process.sigma(times)
    return scale, process.sigma(times) / scale


def _slope(predict_x0: Denoiser, y: Tensor, t: Tensor, scale: Tensor, level: Tensor) -> Tensor:
    return (y - predict_x0(y * scale, t)) / torch.as_tensor(level)
