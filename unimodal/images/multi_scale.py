"""Multi-scale residual codes: a picture coarse to fine, for prediction scale by scale.

What is left of the latents is averaged down to a scale's few cells, each takes the nearest entry of the one
codebook, and the entries, scaled up again and smoothed by a small convolution, are taken off what is left
(Tian et al. 2024, algorithms 1 and 2).  vector-quantize-pytorch does the same for pictures of one size
(HierarchicalVQ); here the scales are shares of the picture, so that any size and shape has its maps, and
entries are moved once a batch by what chose them at all scales.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unimodal.errors import UserError
from unimodal.images.quantizer import (
    Cells,
    Quantized,
    Quantizer,
    is_whole,
    moving,
    straight_through,
    to_grid,
    to_rows,
)

SMOOTHED = 0.5  # share of the convolved in what a scale adds, as in the paper's code
ASTRAY = 32  # a code that goes astray is among one in so many entries, those nearest to what is left


class MultiScale(Quantizer):
    """One codebook for all scales.

    codes   entries
    scales  cells along a side of each map, coarse to fine, for a picture whose sides are the last of them;
            of other pictures they are shares: [1, 2, 4] cuts 8 x 12 cells into 2 x 3, 4 x 6 and 8 x 12;
            a number may come again, for what its first map leaves over
    decay, reset  as of VQ, in latents of all scales together
    """

    terms = ("commitment", "codebook")
    shared = True
    nested = True

    def __init__(
        self, channels: int, codes: int, scales: list[int], decay: float = 0.95, reset: float = 0.02
    ) -> None:
        from vector_quantize_pytorch import VectorQuantize

        good = isinstance(scales, list | tuple) and scales and all(is_whole(n, 1) for n in scales)
        if not good or any(a > b for a, b in pairwise(scales)):
            raise UserError(
                f"scales = {scales!r}; expected whole numbers that never fall, as [1, 2, 3, 4, 6, 8]."
            )
        # The commitment is that of the sums, below, so the library's own is not asked for.
        arguments = moving(codes, decay, reset) | {"commitment_weight": 0.0}
        shares = [scale / scales[-1] for scale in scales]
        super().__init__(codes, VectorQuantize(channels, **arguments), shares)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in scales)

    def entries(self) -> Tensor:
        """The one codebook (1, V, C), before it is smoothed: what is nearest in it is what is chosen."""
        return self.books.codebook.detach()[None]

    def term(self, number: int, codes: Tensor, cells: Cells) -> Tensor:
        """See Quantizer."""
        return self._spread(number, self.books.get_codes_from_indices(codes), cells)

    def _spread(self, number: int, entries: Tensor, cells: Cells) -> Tensor:
        """Entries (B, n, C) of a map, scaled up and smoothed: (B, C, h, w)."""
        grid = to_grid(entries, self.maps(cells)[number])
        if grid.shape[2:] != cells:
            grid = F.interpolate(grid, cells, mode="bilinear", align_corners=False)
        return grid.lerp(self.smooth[number](grid), SMOOTHED)

    def choose(self, latents: Tensor) -> Tensor:
        """See Quantizer."""
        cells, left, found = tuple(latents.shape[2:]), latents, []
        for number, size in enumerate(self.maps(cells)):
            found.append(self.books(to_rows(F.adaptive_avg_pool2d(left, size)))[1])
            left = left - self.term(number, found[-1], cells)
        return torch.cat(found, 1)

    @torch.no_grad()
    def astray(
        self, codes: Tensor, cells: Cells, shares: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Pictures of codes (B, N) said with mistakes: codes that should be said, and that were, (B, N) each.

        shares  (B,) of each picture's codes that go astray, to an entry near the right one
        What should be said after a mistake is what makes up for it best (Han et al. 2025, Infinity).
        """
        left, true, wanted, said = self.latents(codes, cells), self.split(codes, cells), [], []
        book, off = self.books.codebook, torch.zeros(len(codes), 1, dtype=torch.bool, device=codes.device)
        for number, size in enumerate(self.maps(cells)):
            distances = torch.cdist(to_rows(F.adaptive_avg_pool2d(left, size)), book)
            near = distances.topk(max(2, len(book) // ASTRAY), largest=False).indices
            # The codec's own code as long as nothing went astray; the sum it made is not what it was made of.
            wanted.append(near[..., 0].where(off, true[number]))
            chance = torch.rand(2, *wanted[-1].shape, generator=generator, device=generator.device)
            chance = chance.to(codes.device)
            other = near.gather(-1, (1 + chance[0] * (near.shape[-1] - 1)).long()[..., None])[..., 0]
            goes = chance[1] < shares[:, None]
            said.append(other.where(goes, wanted[-1]))
            off = off | (said[-1] != wanted[-1]).any(1, keepdim=True)
            left = left - self.term(number, said[-1], cells)
        return torch.cat(wanted, 1), torch.cat(said, 1)

    def learn(self, latents: Tensor) -> Quantized:
        """See Quantizer.

        `commitment` draws the latents to the sums after every scale, `codebook` the sums to the latents; the
        entries are moved by averages, so the latter teaches the convolutions alone.
        """
        cells = tuple(latents.shape[2:])
        maps = self.maps(cells)
        target = latents.detach()
        left, total, found = target, torch.zeros_like(target), []
        commitment = codebook = latents.new_zeros(())
        for number, size in enumerate(maps):
            last = number == len(maps) - 1
            new = not self.fitted  # k-means wants many latents, and the finest map has most
            if last:
                self.start()
            rows = to_rows(F.adaptive_avg_pool2d(left, size))
            # The entries as they were when chosen: the last call moves the codebook.
            entries, chosen, _ = self.books(rows, freeze_codebook=new and not last, accum_ema_update=not last)
            part = self._spread(number, entries, cells)
            left, total = left - part.detach(), total + part
            commitment = commitment + F.mse_loss(latents, total.detach()) / len(maps)
            codebook = codebook + F.mse_loss(total, target) / len(maps)
            found.append(chosen)
        terms = {"commitment": commitment, "codebook": codebook}
        return Quantized(straight_through(latents, total), torch.cat(found, 1), terms)
