"""Solvers against diffusers and against closed forms; grids end where they should."""

import math
from itertools import pairwise

import pytest
import torch

from unimodal.diffusion.process import FLOW, Process, velocity, x0_from_velocity
from unimodal.diffusion.solvers import SOLVERS, euler, heun
from unimodal.diffusion.times import grid, logit_normal, shifted
from unimodal.errors import UserError

SPREAD = 0.5  # data is N(0, SPREAD^2), for which the best prediction is known
COSINE = Process(alpha=lambda t: torch.cos(t * math.pi / 2), sigma=lambda t: torch.sin(t * math.pi / 2))


def best_x0(process):
    """E[x0 | x_t] for Gaussian data."""

    def predict(x, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        return x * alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)

    return predict


def exact(x, process, start):
    """The flow of Gaussian data scales x by the ratio of marginal deviations."""
    alpha, sigma = process.alpha(start), process.sigma(start)
    return x * SPREAD / (alpha**2 * SPREAD**2 + sigma**2).sqrt()


@pytest.mark.parametrize("process", [FLOW, COSINE], ids=["flow", "cosine"])
@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(process, name, order):
    x = torch.randn(1, 64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors = []
    for steps in (20, 40, 80):
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        got = SOLVERS[name](best_x0(process), x, times, process)
        errors.append((got - exact(x, process, times[0])).abs().max())
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_equals_diffusers_flow_matching(shift):
    from diffusers import FlowMatchEulerDiscreteScheduler

    steps = 10
    times = grid(steps, shift)
    theirs = FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=times[:-1].tolist())
    noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    x = noise.clone()
    for t, timestep in zip(times[:-1], theirs.timesteps):
        v = (x - best_x0(FLOW)(x, t)) / t
        x = theirs.step(v, timestep, x).prev_sample
    torch.testing.assert_close(euler(best_x0(FLOW), noise, times, FLOW), x, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_grid_has_all_its_steps_and_lands_on_zero(steps):
    """Mistake: 50 steps that run 49, or a last step that does not reach t = 0."""
    calls = []
    times = grid(steps, 3.0)
    euler(lambda x, t: calls.append(float(t)) or x * 0, torch.ones(1, 1, 1), times, FLOW)
    assert len(calls) == steps
    assert times[0] == 1
    assert times[-1] == 0


def test_heun_evaluates_twice_except_at_the_end():
    calls = []
    heun(lambda x, t: calls.append(1) or x * 0, torch.ones(1, 1, 1), grid(6), FLOW)
    assert len(calls) == 11


def test_a_perfect_prediction_is_reached_in_one_step():
    data, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    for solver in SOLVERS.values():
        torch.testing.assert_close(solver(lambda x, t: data, noise, grid(1), FLOW), data)


def test_steps_are_told():
    told = []
    euler(lambda x, t: x, torch.ones(1, 1, 1), grid(3), FLOW, lambda *step: told.append(step))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_times_must_decrease():
    with pytest.raises(UserError, match="must decrease"):
        euler(lambda x, t: x, torch.ones(1, 1, 1), torch.tensor([0.0, 1.0]), FLOW)
    with pytest.raises(UserError, match="at least 1 step"):
        grid(0)


def test_velocity_and_x0_are_inverse():
    data, noise, t = torch.randn(5, 2), torch.randn(5, 2), torch.rand(5, 1)
    x = FLOW.noised(data, noise, t)
    torch.testing.assert_close(x0_from_velocity(x, velocity(data, noise), t), data)
    torch.testing.assert_close(FLOW.eps_from_x0(x, data, t), noise, atol=1e-3, rtol=1e-3)


def test_logit_normal_levels():
    t = logit_normal(200_000, torch.Generator().manual_seed(0), mean=0.3, std=0.8)
    logits = torch.logit(t.double())
    assert logits.mean() == pytest.approx(0.3, abs=0.01)
    assert logits.std() == pytest.approx(0.8, abs=0.01)


def test_shift_matches_its_formula_and_keeps_the_ends():
    t = torch.tensor([0.0, 0.5, 1.0])
    assert shifted(t, 3.0).tolist() == pytest.approx([0.0, 0.75, 1.0])
