"""The flow path's head against what least squares finds, and against the definitions of its settings."""

import pytest
import torch

from tests.models import tiny_model
from tests.paths.toy import energy_from_two_modes
from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.process import FLOW, velocity
from unimodal.paths.flow import LEAST_TIME
from unimodal.paths.path import Before, Corrupted


def test_an_untrained_head_says_the_best_straight_line():
    """For latents of unit variance; its residual has the size that the head's output is scaled by."""
    path = tiny_model().path
    path.reset_parameters()
    generator = torch.Generator().manual_seed(0)
    count = 20_000
    x0, eps = torch.randn(2, count, path.channels, generator=generator)
    for t in (0.02, 0.3, 0.5, 0.8, 1.0):
        times, owner = torch.tensor([t]), torch.zeros(count, dtype=torch.long)
        x, v = FLOW.noised(x0, eps, t), velocity(x0, eps)
        said = path.velocity(torch.randn(count, path.head.in_features), x, times, owner)
        slope = (x * v).sum() / (x * x).sum()
        torch.testing.assert_close(said, slope * x, atol=0.05, rtol=0)
        left = (v - said).square().mean()
        torch.testing.assert_close(left, torch.tensor(1 / (t**2 + (1 - t) ** 2)), atol=0.05, rtol=0)


def test_a_picture_that_is_said_is_scored_by_its_velocity():
    """The loss of x0 against its definition: |(x_t - said) / t - (eps - x0)|^2, with 1/t bounded."""
    path = tiny_model(path_options={"prediction": "x0"}).path
    truth = torch.randn(6, path.channels, generator=torch.Generator().manual_seed(0))
    seen = path.corrupt([truth], [(2, 3)], torch.Generator().manual_seed(1))
    hidden = torch.randn(6, path.head.in_features)
    for t in (0.5, 0.9, 0.01):
        times = torch.tensor([t])
        seen = Corrupted(FLOW.noised(truth, seen.target + truth, t), seen.target, seen.owner, times)
        picture = seen.inputs - t * path.velocity(hidden, seen.inputs, times, seen.owner)
        expected = ((picture - truth) / max(t, LEAST_TIME)).square().mean(-1)
        torch.testing.assert_close(path.loss(hidden, seen), expected, rtol=1e-3, atol=1e-3)
    path.reset_parameters()  # an untrained head says the mean picture, whatever it sees
    assert torch.equal(path.velocity(hidden, seen.inputs, times, seen.owner), seen.inputs / times)


def test_a_solver_ends_at_the_picture_that_is_said():
    """A head that says one picture whatever it sees draws that picture, in any number of steps."""
    path = tiny_model(path_options={"prediction": "x0"}).path
    path.reset_parameters()
    with torch.no_grad():
        path.head.bias.fill_(0.7)

    def look(embeds, guided=True, at=None):
        return embeds, {}

    for steps in (1, 3, 40):
        drawn = path.sample(look, None, (2, 2), [torch.Generator()], Guidance(), steps)
        torch.testing.assert_close(drawn, torch.full_like(drawn, 0.7))


@pytest.mark.parametrize(("prediction", "steps"), [("velocity", 8), ("velocity", 100), ("x0", 24)])
def test_what_is_copied_is_exact_and_only_where_there_is_something(prediction, steps):
    """A model that copies all there is draws the picture before (each branch its own) and says as much."""
    path = tiny_model(path_options={"prediction": prediction}, reference="cells").path
    torch.nn.init.constant_(path.copied.bias, 40.0)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(12, path.channels, generator=generator)  # two pictures, then their nulls
    known = torch.tensor([1.0] * 7 + [0.0] * 5)[:, None]
    before = Before(latents * known, known)

    def look(embeds, guided=True, at=None):
        hidden = torch.cat([embeds, embeds]) if guided else embeds
        full, null = hidden.chunk(2) if guided else (hidden, None)
        return full, {"both": null} if guided else {}

    noise = [torch.Generator().manual_seed(n) for n in range(2)]
    rest = (None, (1, 3), noise, Guidance(1.5, 1.5, interval=(0.0, 0.5)), steps)
    drawn = path.sample(look, *rest, before=before).flatten(0, 1)
    full, nulls = latents[:6], latents[6:]
    # Nothing is guided at first and all at last, when the one null position that is known pulls.
    torch.testing.assert_close(drawn[0], 1.5 * full[0] - 0.5 * nulls[0])
    without = path.sample(look, *rest, before=None).flatten(0, 1)
    assert not torch.isclose(drawn, without).any()

    truth = latents[:6]
    seen = path.corrupt([truth[:3], truth[3:]], [(1, 3)] * 2, generator)
    hidden = torch.randn(6, path.head.in_features, generator=generator)
    plain = path.loss(hidden, seen)
    seen.before = Before(truth, torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])[:, None])
    copied = path.loss(hidden, seen)
    here = seen.before.known[:, 0] == 1
    torch.testing.assert_close(copied[~here], plain[~here])
    assert copied[here].max() < 1e-6 < plain.min()


def test_a_new_deeper_head_is_a_shallow_one():
    """Its layers do nothing before they are trained; trained, each position has its own picture's level."""
    deep = tiny_model(path_options={"head_depth": 2}).path
    owner, times = torch.tensor([0, 0, 1]), torch.tensor([0.3, 0.8])
    x, hidden = torch.randn(3, deep.channels), torch.randn(3, deep.head.in_features)
    together = deep.velocity(hidden, x, times, owner)
    for at in range(3):
        one = slice(at, at + 1)
        alone = deep.velocity(hidden[one], x[one], times[owner[one]], torch.zeros(1, dtype=torch.long))
        torch.testing.assert_close(together[one], alone)
    for layer in deep.head_layers:
        layer.reset_parameters()
    shallow = tiny_model().path
    shallow.load_state_dict({n: w for n, w in deep.state_dict().items() if "head_layers" not in n})
    torch.testing.assert_close(
        deep.velocity(hidden, x, times, owner), shallow.velocity(hidden, x, times, owner)
    )


@pytest.mark.parametrize(
    ("options", "steps"), [({}, 250), ({"prediction": "x0"}, 400)], ids=["velocity", "picture"]
)
def test_latents_come_out_as_often_as_they_should(options, steps):
    """Two pixels, drawn together: see `energy_from_two_modes`."""
    found, apart = energy_from_two_modes(steps, path="flow", path_options=options)
    assert found < 0.02
    assert apart > 0.1
