"""Drawing with an external model: from prompts to finished pictures.

What is told is read once a picture, for every branch of guidance by the same code from the prompt with its
condition dropped, as training drops it.  All branches are rows of one batch of the denoiser.
"""

import numpy as np
import torch
from torch import Tensor

from unimodal.data.document import Document, drop
from unimodal.denoisers.denoiser import Conditions, rows_of
from unimodal.diffusion.guidance import Guidance, check_nulls, combine
from unimodal.diffusion.process import FLOW, x0_from_velocity
from unimodal.diffusion.solvers import SOLVERS, OnStep
from unimodal.diffusion.times import grid as time_grid
from unimodal.external.model import ExternalModel, alike
from unimodal.external.prompts import as_prompt, reference
from unimodal.images.keep import keep_unchanged
from unimodal.images.signal import to_pixels
from unimodal.paths.path import row_noise


@torch.no_grad()  # not inference_mode: some transformers keep tables that training meets again
def draw(
    model: ExternalModel,
    documents: list[Document],
    size: tuple[int, int],
    generators: list[torch.Generator],
    guidance: Guidance,
    steps: int | None = None,
    on_step: OnStep | None = None,
) -> list[np.ndarray]:
    """Draw the picture that comes next in every conversation: uint8 (H, W, 3).

    size        height and width in pixels
    generators  one a document: a batch equals its singles
    Raises UserError if the guidance needs a null that the model was not trained with.
    """
    prompts = [as_prompt(document, model.config.plans) for document in documents]
    shapes = [None if (picture := reference(prompt)) is None else picture.shape for prompt in prompts]
    pictures: list[np.ndarray | None] = [None] * len(prompts)
    for rows in alike(shapes):
        chance = [generators[row] for row in rows]
        signal = _drawn(model, [prompts[row] for row in rows], size, chance, guidance, steps, on_step)
        for row, picture in zip(rows, to_pixels(signal)):
            pictures[row] = picture
    return pictures


def _drawn(
    model: ExternalModel,
    prompts: list[Document],
    size: tuple[int, int],
    generators: list[torch.Generator],
    guidance: Guidance,
    steps: int | None,
    on_step: OnStep | None,
) -> Tensor:
    """Pixels (B, 3, H, W) in [-1, 1] for prompts whose references have one size, or that have none."""
    config, codec = model.config, model.codec
    branches = guidance.branches(has_image=bool(prompts[0].images))
    check_nulls(branches, config.drop.model_dump())
    told = prompts + [drop(prompt, kind) for kind in branches for prompt in prompts]
    conditions = Conditions.of(*model.connector(*model.read(told)), model.references(told))
    ready = {True: model.denoiser.prepare(conditions)}
    if branches and guidance.interval != (0.0, 1.0):
        ready[False] = rows_of(ready[True], slice(len(prompts)))

    def predict_x0(x: Tensor, t: Tensor) -> Tensor:
        guided = False not in ready or guidance.applies(float(t))
        copies = 1 + len(branches) if guided else 1
        rows = x.repeat(copies, 1, 1, 1)
        v, *nulls = model.look(rows, t.to(x).expand(len(rows)), ready[guided]).chunk(copies)
        return x0_from_velocity(x, combine(v, dict(zip(branches, nulls)), guidance), t.to(x))

    shape = (codec.channels, size[0] // codec.stride, size[1] // codec.stride)
    noise = row_noise(generators, shape, model.device)
    times = time_grid(config.sampling.steps if steps is None else steps, config.sampling.shift)
    finished = SOLVERS[config.sampling.solver](predict_x0, noise, times, FLOW, on_step)
    seen = [reference(prompt) for prompt in prompts]
    return keep_unchanged(codec.decode_latents(finished), seen, codec, config.sampling.keep)
