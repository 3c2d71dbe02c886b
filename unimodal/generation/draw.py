"""Drawing: from a context to finished pictures.

The context is computed once.  Guidance needs the same picture under less condition: those null contexts
are read by the same code from documents with the condition dropped, and all branches are rows of one
batch, so a denoising step is one forward over the image's own positions.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unimodal.data.document import Document, drop
from unimodal.diffusion.guidance import Guidance, check_nulls
from unimodal.generation.context import Context, image_place, read_documents, stack_contexts, start_image
from unimodal.images.keep import keep_unchanged
from unimodal.images.signal import to_pixels
from unimodal.model.unified import Prepared, UnifiedModel
from unimodal.paths.path import Before
from unimodal.sequence.spans import Grid
from unimodal.sequence.tokenizer import Tokenizer

OnStep = Callable[[int, int], None]


@torch.inference_mode()
def draw(
    model: UnifiedModel,
    tokenizer: Tokenizer,
    context: Context,
    documents: list[Document],
    grid: Grid,
    generators: list[torch.Generator],
    guidance: Guidance,
    steps: int | None = None,
    on_step: OnStep | None = None,
) -> list[np.ndarray]:
    """Draw the image that comes next in every row: uint8 (H, W, 3) pictures.

    context    read up to where the picture begins (see start_image); left as it was
    documents  what the rows have read, from which the null branches are made
    grid       positions of the picture, the same for all rows
    Raises UserError if the guidance needs a null that the model was not trained with.
    """
    branches = guidance.branches(any(document.reads_pictures for document in documents))
    check_nulls(branches, model.config.drop.model_dump())
    contexts, read = [context], list(documents)
    for kind in branches:
        dropped = [drop(document, kind) for document in documents]
        read += dropped
        null = read_documents(model, tokenizer, dropped)
        start_image(model, tokenizer, null, grid)
        contexts.append(null)
    everything = stack_contexts(contexts) if branches else context
    layout = model.path.target_layout(grid)
    everything.cache.reserve(len(layout.steps))  # once, however many looks there will be
    places = {True: (everything.cache, *image_place(everything, grid, layout))}
    if branches and guidance.interval != (0.0, 1.0):
        places[False] = (context.cache, *image_place(context, grid, layout))
    prepared: dict[bool, Prepared] = {}
    committed = everything.cache.length
    before = _before(model, read, grid)
    reference = None if before is None else model.reference(before).unflatten(0, (len(read), -1))

    def look(
        embeds: Tensor, guided: bool = True, at: slice | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        guided = guided or False not in places or at is not None
        copies = len(contexts) if guided else 1
        cache, position, marks = places[guided]
        if at is not None:
            position, marks = position[:, at], marks.map(lambda mark: mark[:, at])
        embeds = embeds.repeat(copies, 1, 1)
        if reference is not None:
            shown = reference[: len(embeds)]
            embeds = embeds + (shown if at is None else shown[:, at]).to(embeds.dtype)
        if at is None and guided not in prepared:
            prepared[guided] = model.prepare(cache, marks)
        hidden = model.look(cache, embeds, position, marks, prepared=prepared[guided] if at is None else None)
        if at is not None:
            cache.commit(torch.full((cache.rows,), embeds.shape[1]))
        full, *nulls = hidden.chunk(copies)
        return full, dict(zip(branches, nulls))

    finished = model.path.sample(look, model.codec, grid, generators, guidance, steps, on_step, before)
    everything.cache.length = committed  # of the context alone: what was kept for this image goes
    pictures = model.path.decode(model.codec, finished, grid)
    seen = [document.images[-1].pixels if document.images else None for document in documents]
    return list(to_pixels(keep_unchanged(pictures, seen, model.codec, model.config.sampling.keep)))


def _before(model: UnifiedModel, documents: list[Document], grid: Grid) -> Before | None:
    """What the last picture of each document has in the cells of the one that comes next, of `grid`.

    None if the model is not shown it (see CellReference).
    """
    if model.reference is None:
        return None
    size = (grid[0] * model.multiple, grid[1] * model.multiple)
    last = {row: document.images[-1].pixels for row, document in enumerate(documents) if document.images}
    fit = [row for row, picture in last.items() if picture.shape[:2] == size]
    latents = dict(zip(fit, model.encode([last[row] for row in fit])))
    rows = range(len(documents))
    return model.reference.before([latents.get(row) for row in rows], [grid for _ in rows], model.path)


def grid_for(model: UnifiedModel, height: int, width: int) -> Grid:
    """Positions of a picture of about height x width pixels: at least one, sides rounded."""
    return tuple(max(1, round(side / model.multiple)) for side in (height, width))
