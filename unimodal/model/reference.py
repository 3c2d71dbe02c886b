"""The picture before the one that is drawn, shown to it cell by cell.

Attention can find the same part of another picture, but has to learn from many pictures that an edit copies
what it leaves alone.  Here every position that is drawn is given the latents of the same cell of the picture
before it, as InstructPix2Pix concatenates them (Brooks et al. 2023, section 3.2.1): a projection that begins
at zero is added to its embedding.  Words still say what becomes of them.
"""

import torch
from torch import Tensor, nn

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

    def forward(self, pictures: list[Tensor | None], grids: list[Grid], path: TargetRule) -> Tensor:
        """What is added (P, D) to the positions of several drawn pictures, one after another.

        pictures  latents (cells, C) of the picture before each; None where there is none of its grid
        grids     of those that are drawn, which `path` lays out
        """
        weight = self.proj.weight
        seen = []
        for picture, grid in zip(pictures, grids, strict=True):
            cells = torch.from_numpy(path.target_layout(grid).cells(grid)).to(weight.device)
            nothing = weight.new_zeros(1, self.channels)  # also of a position outside of the grid, -1
            if picture is None:
                seen.append(nothing.expand(len(cells), -1))
            else:
                seen.append(torch.cat([picture.to(weight.dtype), nothing])[cells])
        return self.proj(torch.cat(seen))
