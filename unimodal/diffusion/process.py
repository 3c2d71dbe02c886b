"""A diffusion process is its (alpha_t, sigma_t): x_t = alpha_t x0 + sigma_t eps, with t = 1 noise.

Predictions convert between x0, eps and velocity by these two functions alone, so solvers and paths do
not know which process they serve.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Process:
    """alpha and sigma as functions of t in [0, 1] (tensors in, tensors out)."""

    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]

    def noised(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t; `t` broadcasts against x0."""
        return self.alpha(t) * x0 + self.sigma(t) * eps

    def eps_from_x0(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The noise that x holds if x0 is its clean part; needs sigma_t > 0."""
        return (x - self.alpha(t) * x0) / self.sigma(t)


# Flow matching on a straight line (Lipman et al. 2023; rectified flow, Liu et al. 2023).
FLOW = Process(alpha=lambda t: 1 - t, sigma=lambda t: t)


def velocity(x0: Tensor, eps: Tensor) -> Tensor:
    """dx/dt of the straight line from data (t = 0) to noise (t = 1)."""
    return eps - x0


def x0_from_velocity(x: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """x0 = x_t - t v on the straight line."""
    return x - t * v


def beyond_straight_line(said: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Velocity from what a network says at unit size of what the best straight line through x leaves open.

    Near t = 1 that is the picture, so the network need not carry the noise through its layers to give it back
    (Karras et al. 2022, section 5, for flow matching of latents of unit variance).  `t` broadcasts against x.
    """
    power = t.square() + (1 - t).square()  # of x, for latents of unit variance
    return (2 * t - 1) / power * x + said.float() / power.sqrt()
