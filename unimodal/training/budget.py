"""A run that is as long as so many operations: what it takes to compare unlike models fairly.

The cost of a step is the mean over the first batches of the data, as the trainee counts it, so the number of
steps is a function of the recipe alone and a resumed run finds the same.
"""

from itertools import islice

from unimodal.errors import UserError
from unimodal.training.config import Recipe
from unimodal.training.trainee import Trainee

BATCHES = 8  # over which the cost of a step is averaged


def step_flops(recipe: Recipe, trainee: Trainee, world: int = 1) -> float:
    """Floating point operations of an optimizer step of `world` processes, forward and backward."""
    costs = [trainee.flops(batch) for batch in islice(trainee.batches(None, 0, 1), BATCHES)]
    return sum(costs) / len(costs) * recipe.train.gradient_accumulation_steps * world


def within_budget(recipe: Recipe, trainee: Trainee, world: int = 1) -> tuple[Recipe, str | None]:
    """The recipe with `train.steps` in the place of `train.flops`, and a sentence about it.

    world  processes, each of which takes micro-batches of its own
    A recipe that gives steps comes back as it is.  Raises UserError if the budget pays for no step, or for
    fewer than its schedule needs.
    """
    train = recipe.train
    if train.flops is None:
        return recipe, None
    a_step = step_flops(recipe, trainee, world)
    steps = int(train.flops / a_step)
    least = max(1, train.warmup_steps + train.decay_steps)
    if steps < least:
        raise UserError(
            f"train.flops = {train.flops:.3g} pays for {steps} steps of {a_step:.3g} operations; expected "
            f"enough for at least {least}, warm-up and decay included. Raise it, or shorten "
            "train.warmup_steps and train.decay_steps."
        )
    said = f"{steps} steps of {a_step:.4g} operations each are {steps * a_step:.4g} of {train.flops:.4g}"
    counted = train.model_copy(update={"steps": steps, "flops": None})
    return recipe.model_copy(update={"train": counted}), said
