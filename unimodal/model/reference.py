"""The picture before the one that is drawn, shown to it cell by cell.

Attention can find the same part of another picture, but has to learn from many pictures that an edit copies
what it leaves alone.  Here every position that is drawn is given the latents of the same cell of the picture
before it, as InstructPix2Pix concatenates them (Brooks et al. 2023, section 3.2.1): a projection that begins
at zero is added to its embedding.  Words still say what becomes of them.  The path is given them too, and may
take them over as they are (`paths/flow.py` does).
"""

import torch
from torch import Tensor, nn

from unimodal.paths.path import Before
from unimodal.sequence.spans import Grid, TargetRule


class CellReference(nn.Module):
    """C latent numbers of a cell to model width D."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.channels = channels
        self.proj = nn.Linear(channels, width, bias=False)

    def reset_parameters(self) -> None:
        """Begin as a model without it."""
        nn.init.zeros_(self.proj.weight)

    def before(self, pictures: list[Tensor | None], grids: list[Grid], path: TargetRule) -> Before:
        """What the positions of several drawn pictures, one after another, are shown.

        pictures  latents (cells, C) of the picture before each; None where there is none of its grid
        grids     of those that are drawn, which `path` lays out
        """
        weight = self.proj.weight
        latents, known = [], []
        for picture, grid in zip(pictures, grids, strict=True):
            cells = torch.from_numpy(path.target_layout(grid).cells(grid)).to(weight.device)
            nothing = weight.new_zeros(1, self.channels)  # also of a position outside of the grid, -1
            if picture is None:
                latents.append(nothing.expand(len(cells), -1))
                known.append(torch.zeros_like(cells, dtype=torch.bool))
            else:
                latents.append(torch.cat([picture.to(weight.dtype), nothing])[cells])
                known.append(cells >= 0)
        return Before(torch.cat(latents), torch.cat(known).to(weight.dtype)[:, None])

    def forward(self, before: Before) -> Tensor:
        """What is added (P, D) to the embeddings."""
        return self.proj(before.latents)
