"""Quantizers without a codebook, on the modules of vector-quantize-pytorch: each channel is rounded."""

import math

from einops import rearrange
from torch import Tensor

from unimodal.errors import UserError
from unimodal.images.losses import moment_penalty
from unimodal.images.quantizer import LARGEST, Cells, Quantized, Quantizer, is_whole, to_grid, to_rows


class FSQ(Quantizer):
    """Finite scalars.  levels: how many values each channel may take, 3 or more; their product is the
    vocabulary.  Where the latents have another number of channels, a linear layer on either side maps them.

    Its one term, `latents`, holds each number that is rounded at mean 0 and deviation 1: nothing else holds
    their scale, and grown by a few times they would all be rounded to the outermost levels.
    """

    terms = ("latents",)

    def __init__(self, channels: int, levels: list[int]) -> None:
        from vector_quantize_pytorch import FSQ as Library

        good = isinstance(levels, list | tuple) and levels and all(is_whole(n, 3) for n in levels)
        if not good or math.prod(levels) > LARGEST:
            raise UserError(
                f"levels = {levels!r}; expected whole numbers of 3 or more whose product is at most "
                f"{LARGEST}, such as [8, 5, 5, 5] for 1000 codes."
            )
        super().__init__(math.prod(levels), Library(levels=list(levels), dim=channels))

    def learn(self, latents: Tensor) -> Quantized:
        """See Quantizer; there is nothing but the linear layers to learn."""
        rows = to_rows(latents)
        quantized, codes = self.books(rows)
        rounded = rearrange(self.books.project_in(rows), "b n c -> b c n 1")
        terms = {"latents": moment_penalty(rounded).mean()}
        return Quantized(to_grid(quantized, latents.shape[2:]), codes.long(), terms)

    def choose(self, latents: Tensor) -> Tensor:
        """See Quantizer."""
        return self.books(to_rows(latents))[1].long()

    def term(self, number: int, codes: Tensor, cells: Cells) -> Tensor:
        """See Quantizer."""
        return to_grid(self.books.indices_to_codes(codes), cells)


class LFQ(Quantizer):
    """Signs.  bits: how many; the vocabulary is 2^bits.

    Of its terms, `sample_entropy` is how undecided single latents are and `evenness` how far the use of
    codes over the batch is from even (ln of the vocabulary less its entropy); both are 0 at best, in nats.
    """

    terms = ("commitment", "sample_entropy", "evenness")

    def __init__(self, channels: int, bits: int) -> None:
        from vector_quantize_pytorch import LFQ as Library

        if not is_whole(bits, 1) or 2**bits > LARGEST:
            raise UserError(f"bits = {bits!r}; expected a whole number from 1 to {int(math.log2(LARGEST))}.")
        # The weights count nowhere here; above 0 the library computes the terms.
        books = Library(
            dim=channels, codebook_size=2**bits, commitment_loss_weight=1.0, entropy_loss_weight=1.0
        )
        super().__init__(2**bits, books)

    def learn(self, latents: Tensor) -> Quantized:
        """See Quantizer."""
        (quantized, codes, _), found = self.books(to_rows(latents), return_loss_breakdown=True)
        terms = {
            "commitment": found.commitment,
            "sample_entropy": found.per_sample_entropy,
            "evenness": math.log(self.vocabulary) - found.batch_entropy,
        }
        return Quantized(to_grid(quantized, latents.shape[2:]), codes.long(), terms)

    def choose(self, latents: Tensor) -> Tensor:
        """See Quantizer."""
        return self.books(to_rows(latents))[1].long()

    def term(self, number: int, codes: Tensor, cells: Cells) -> Tensor:
        """See Quantizer."""
        return to_grid(self.books.indices_to_codes(codes), cells)
