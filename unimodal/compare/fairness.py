"""Checks before any training that the entrants can be compared, and how many steps each of them gets.

An unfair comparison is refused with its reason while nothing is lost yet.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from unimodal.adapters.base import hashed
from unimodal.compare.plan import Comparison
from unimodal.errors import UserError
from unimodal.training.budget import step_flops
from unimodal.training.config import Recipe

ALIKE = 0.1  # by how much trained parameters may differ and still be called equal
TRIAL_STEPS = 12  # of which the last third is timed


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an entrant before it is trained."""

    trained: int  # parameters
    total: int  # parameters, frozen ones and the codec included
    step_flops: float  # of one optimizer step, forward and backward
    codec: str  # hash of the codec's weights
    image_size: int


def facts_of(recipe: Recipe) -> Facts:
    """Build what the recipe trains and count."""
    trainee = recipe.model.build(recipe, None)
    module = trainee.module
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return Facts(
        trained=sum(n for n, trains in sizes if trains),
        total=sum(n for n, _ in sizes),
        step_flops=step_flops(recipe, trainee),
        codec=hashed((name, w.detach().cpu()) for name, w in sorted(module.codec.state_dict().items()))[:16],
        image_size=module.config.image_size,
    )


def check_fair(comparison: Comparison, facts: dict[str, Facts]) -> None:
    """Raise UserError with the reason if the entrants, by name, cannot be compared."""
    alike = [e.name for e in comparison.entrants if e.name in facts and e.codec == "same"]
    for name in alike[1:]:
        if facts[name].codec != facts[alike[0]].codec:
            raise UserError(
                f"entrant {name} has another codec than {alike[0]} ({facts[name].codec} and "
                f"{facts[alike[0]].codec}), which alone makes its pictures differ. Give both the same "
                "model.codec, or the entrant whose kind needs another one `codec: own`, and the report tells "
                "each codec's own PSNR."
            )
    for name, found in facts.items():
        if found.image_size != comparison.image_size:
            raise UserError(
                f"entrant {name} draws pictures of {found.image_size} pixels, the comparison is about "
                f"{comparison.image_size}. Start it from a model of that size."
            )
    if comparison.equal == "parameters" and facts:
        low, high = (pick(facts, key=lambda name: facts[name].trained) for pick in (min, max))
        if facts[high].trained > (1 + ALIKE) * facts[low].trained:
            raise UserError(
                f"equal: parameters, but {high} trains {facts[high].trained:,} and {low} "
                f"{facts[low].trained:,}: more than {ALIKE:.0%} apart. Change a width in their overrides."
            )


class TrialFailed(Exception):
    """Of the few steps by which an entrant is timed: it fails, and the others go on."""


def steps_of(comparison: Comparison, name: str, recipe: Recipe, facts: Facts, amount: float) -> int:
    """Optimizer steps that entrant `name` gets for `amount`.  Raises UserError if that is not even one."""
    if comparison.equal == "flops":
        steps = amount / facts.step_flops
    elif comparison.equal == "seconds":
        steps = amount / _step_seconds(recipe, facts)
    else:
        steps = amount
    if round(steps) < 1:
        raise UserError(f"a budget of {amount:g} {comparison.equal} is less than one step of {name}")
    return round(steps)


def with_steps(recipe: Recipe, facts: Facts, steps: int) -> Recipe:
    """The recipe with that many steps; warm-up and decay keep their shares of the run."""
    train = recipe.train
    share = steps / (train.steps or train.flops / facts.step_flops)
    changed = {
        "steps": steps,
        "flops": None,
        "warmup_steps": round(train.warmup_steps * min(1.0, share)),
        "decay_steps": max(1, round(train.decay_steps * share)) if train.decay_steps else 0,
        "save_steps": max(1, min(train.save_steps, steps)),
    }
    return recipe.model_copy(update={"train": train.model_copy(update=changed)})


def _step_seconds(recipe: Recipe, facts: Facts) -> float:
    """Seconds a step, of the last third of a short run in a folder that is thrown away.

    Raises TrialFailed if the run fails, KeyboardInterrupt if it was stopped: then it has returned as if done.
    """
    import json

    from unimodal.training.loop import train

    with TemporaryDirectory() as folder:
        output = recipe.output.model_copy(update={"dir": Path(folder) / "trial"})
        short = with_steps(recipe, facts, TRIAL_STEPS)
        changed = {"logging_steps": TRIAL_STEPS // 3, "resume": None, "save_steps": TRIAL_STEPS}
        short = short.model_copy(update={"output": output, "train": short.train.model_copy(update=changed)})
        try:
            train(short)
        except UserError as error:
            raise TrialFailed(str(error)) from error
        lines = (output.dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    if not entries or entries[-1]["step"] < TRIAL_STEPS:
        raise KeyboardInterrupt
    return entries[-1]["step_seconds"]
