"""Writing by masked prediction: a block of tokens at once, the surest first.

A block begins as nothing but masks.  In each forward all hidden tokens are said from those that are known,
and those that the model is surest of stay (Chang et al. 2022; of text LLaDA, Nie et al. 2025).  A block is a
look over the cached context, which keeps nothing; what stands before its end is then read as text.
"""

import torch
from torch import Tensor

from unimodal.generation.context import Context
from unimodal.model.masked_text import HIDDEN
from unimodal.model.unified import UnifiedModel
from unimodal.paths.choose import Choice, choose
from unimodal.paths.sets import counts
from unimodal.sequence.mask import Marks


@torch.inference_mode()
def say_block(
    model: UnifiedModel,
    context: Context,
    forbidden: Tensor,
    generators: list[torch.Generator],
    choice: Choice,
) -> Tensor:
    """The next block of tokens (B, n) of every row; the context is left as it was.

    forbidden  (B, V) bool, tokens that may not be said
    generators  one a row: what a row says does not depend on its neighbours
    """
    settings, device = model.config.masked_text, model.device
    ids = torch.full((context.rows, settings.block), HIDDEN, device=device)
    ahead = torch.arange(settings.block, device=device)
    zero = torch.zeros_like(ids)
    marks = Marks(zero, context.step[:, None] + zero, context.span[:, None] + 1 + zero, zero.bool())
    position = (context.position[:, None] + ahead)[..., None].expand(-1, -1, 3)
    for count in counts("linear", settings.block, settings.forwards):
        hidden = model.look(context.cache, model.embed_text(ids), position, marks, image=False)
        logits = model.logits(hidden).float().masked_fill(forbidden[:, None], -torch.inf)
        said = choose(logits, generators, choice)
        sure = logits.log_softmax(-1).gather(-1, said[..., None])[..., 0]
        at = sure.masked_fill(ids != HIDDEN, -torch.inf).topk(count).indices
        ids = ids.scatter(1, at, said.gather(1, at))
    return ids
