"""Judging a run on rows that it does not learn from: their losses, the best step so far, when to stop.

Every evaluation takes the same rows, the same noise and the weights that users get, so that two of them
differ by what was learned between them alone.  Names are those of Hugging Face's TrainingArguments and of
its EarlyStoppingCallback.
"""

import hashlib
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from unimodal.errors import UserError, nearest
from unimodal.training.checkpoint import checkpoint_path
from unimodal.training.config import Recipe, TrainSection
from unimodal.training.processes import noise_seed
from unimodal.training.trainee import Trainee

if TYPE_CHECKING:
    from unimodal.training.run import Run

HELD_OUT = 1  # sets the noise of evaluations apart from that of training


@dataclass
class Best:
    """The best evaluation so far; the lower the metric, the better.

    stale   evaluations since then
    judged  by what (see `judged_by`): figures that were judged by something else cannot be compared
    """

    metric: str
    step: int | None = None
    value: float | None = None
    stale: int = 0
    judged: str = ""

    def see(self, step: int, metrics: dict[str, float]) -> bool:
        """Take note of an evaluation; gives whether it is the best so far."""
        value = metrics[self.metric]
        better = self.value is None or value < self.value
        if better:
            self.step, self.value = step, value
        self.stale = 0 if better else self.stale + 1
        return better

    def over(self, train: TrainSection) -> bool:
        """Whether the run has gone on for long enough without a better evaluation."""
        return train.early_stopping_patience is not None and self.stale >= train.early_stopping_patience

    def state(self) -> dict[str, Any]:
        """JSON values for the checkpoint, from which `Best(**state)` goes on."""
        return asdict(self)


def judged_by(recipe: Recipe) -> str:
    """SHA-256 of all that the metric of a run depends on beside the weights: rows, noise, weights of losses.

    A file of rows counts by its bytes, wherever it lies; pictures outside of it by their root alone.
    """
    data, train = recipe.data, recipe.train
    total = train.metric_for_best_model == "eval_loss"  # no other metric has a use for weights
    said = {
        "sources": [source.model_dump(exclude={"path"}) for source in data.eval_sources],
        "files": [_digest(source.path) for source in data.eval_sources if source.path],
        "rows": [data.eval_rows, data.tokens, data.seed, train.seed],
        "size": getattr(recipe.model, "image_size", None),
        "times": _told(recipe, "times"),
        "weights": _told(recipe, "loss") if total else None,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told(recipe: Recipe, section: str) -> dict[str, Any] | None:
    found = getattr(recipe.model, section, None)
    return None if found is None else found.model_dump(mode="json")


def metric_names(trainee: Trainee) -> list[str]:
    """What `evaluate` will give: of a loss that no held-out row has, nothing.

    Raises UserError for a trainee that cannot be judged on held-out rows, and for a row that is wrong.
    """
    if not hasattr(trainee, "held_out"):
        raise UserError(
            "train.eval_steps: this kind of model has no losses on held-out rows; leave it and "
            "data.eval_sources out."
        )
    counts = Counter()
    for batch in trainee.held_out():
        counts.update(trainee.count(batch))
    return ["eval_loss", *(f"eval_loss_{name}" for name in sorted(counts) if counts[name])]


def check_metric(trainee: Trainee, metric: str) -> None:
    """Raise UserError unless `evaluate` gives this metric."""
    known = metric_names(trainee)
    if metric not in known:
        raise UserError(
            f"train.metric_for_best_model is {metric!r}{nearest(metric, known)}; expected one of "
            f"{', '.join(known)}."
        )


def best_so_far(recipe: Recipe, trainee: Trainee, before: dict[str, Any] | None) -> Best | None:
    """The best evaluation of a run; None if it is not evaluated.

    before  its `state()` in the checkpoint from which the run goes on
    Raises UserError for a metric that `evaluate` does not give.
    """
    train = recipe.train
    if train.eval_steps is None:
        return None
    check_metric(trainee, train.metric_for_best_model)
    new = Best(train.metric_for_best_model, judged=judged_by(recipe))
    if before and (before["metric"], before.get("judged")) == (new.metric, new.judged):
        best = Best(**before)
        if checkpoint_path(recipe.output.dir, best.step).is_dir():
            return best
    # What was judged otherwise cannot be compared; a checkpoint that is gone, or elsewhere, cannot be given.
    return new


@torch.no_grad()
def evaluate(run: "Run") -> dict[str, float]:
    """Losses of the held-out rows: `eval_loss` and, a name, `eval_loss_<name>`, each divided by its count.

    Processes share the batches; the result is the same in all of them.
    Raises UserError if a loss is not finite.
    """
    rank, world = run.accelerator.process_index, run.accelerator.num_processes
    device, autocast = run.generator.device, run.precision.autocast
    sums, counts, weights = Counter(), Counter(), {}
    with run.averaged():
        run.module.eval()
        for number, batch in enumerate(run.trainee.held_out()):
            if number % world != rank:
                continue
            run.generator.manual_seed(noise_seed(run.recipe.train.seed, number, 0, 0, HELD_OUT))
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                losses = run.trainee.losses(batch, run.generator)
            weights |= losses.weights
            sums.update({name: value.item() for name, value in losses.sums.items()})
            counts.update(run.trainee.count(batch))
        run.module.train()
    everyone = gather_object([(sums, counts, weights)])  # added up in one order, so that all ranks agree
    sums, counts, weights = Counter(), Counter(), {}
    for part in everyone:
        sums.update(part[0])
        counts.update(part[1])
        weights |= part[2]
    means = {name: sums[name] / counts[name] for name in sorted(sums) if counts[name]}
    total = sum(weights[name] * mean for name, mean in means.items())
    if not math.isfinite(total):
        raise UserError(
            f"The loss of the held-out rows is not finite after step {run.step}: {means}. Look at the rows "
            "of data.eval_sources with `unimodal data preview`; if they are sound, lower train.learning_rate."
        )
    return {"eval_loss": total} | {f"eval_loss_{name}": mean for name, mean in means.items()}
