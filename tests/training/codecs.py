"""A codec in training: its recipe, what the recipe builds, and its whole loss."""

import torch

from tests.images.networks import DC, KL, TINY
from unimodal.training.codec_trainee import CodecTrainee
from unimodal.training.config import Recipe, parse_recipe

NETWORKS = {"AutoencoderDC": DC, "AutoencoderKL": KL, "AutoencoderTiny": TINY}


def codec_recipe(rows, out, steps=2, class_name="AutoencoderDC", train_section=(), **model) -> Recipe:
    """A recipe on these rows; a network of that class unless `init_from` brings one."""
    if "init_from" not in model:
        model = {"class_name": class_name, "config": NETWORKS[class_name]} | model
    train = {"steps": steps, "precision": "fp32", "ema_decay": None, "learning_rate": 0.003}
    return parse_recipe(
        {
            "model": {"kind": "codec", "image_size": 16} | model,
            "data": {"sources": [{"path": str(rows)}], "workers": 0},
            "train": train | dict(train_section),
            "output": {"dir": str(out)},
        },
        "test",
    )


def built(recipe: Recipe) -> CodecTrainee:
    """What the recipe trains, the same every time."""
    torch.manual_seed(0)
    return recipe.model.build(recipe)


def total(trainee: CodecTrainee, batch, seed: int = 0) -> torch.Tensor:
    """The loss of a batch: its sums over its counts, weighted."""
    losses = trainee.losses(batch, torch.Generator().manual_seed(seed))
    counts = trainee.count(batch)
    assert losses.sums.keys() == counts.keys() == losses.weights.keys()
    return sum(losses.weights[name] * value / counts[name] for name, value in losses.sums.items())
