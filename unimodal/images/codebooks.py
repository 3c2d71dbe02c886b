"""Quantizers with codebooks, on the modules of vector-quantize-pytorch.

Codebooks move by averages of the latents that choose them, start by k-means over the first batch, and an
entry that hardly anything chooses any more is moved onto a latent of the batch.
"""

from typing import Any

from einops import rearrange
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


class VQ(Quantizer):
    """One codebook.

    codes   entries
    decay   of the averages that move the entries: they remember about 1 / (1 - decay) batches
    reset   an entry is moved when fewer latents a batch than this choose it; 0: never
    cosine  compare directions alone: latents and entries have length 1
    """

    terms = ("commitment",)

    def __init__(
        self, channels: int, codes: int, decay: float = 0.95, reset: float = 0.02, cosine: bool = False
    ) -> None:
        from vector_quantize_pytorch import VectorQuantize

        if not isinstance(cosine, bool):
            raise UserError(f"cosine = {cosine!r}; expected true or false.")
        super().__init__(
            codes, VectorQuantize(channels, use_cosine_sim=cosine, **moving(codes, decay, reset))
        )

    def learn(self, latents: Tensor) -> Quantized:
        """See Quantizer."""
        self.start()
        quantized, codes, commitment = self.books(to_rows(latents))
        return Quantized(to_grid(quantized, latents.shape[2:]), codes, {"commitment": commitment})

    def choose(self, latents: Tensor) -> Tensor:
        """See Quantizer."""
        return self.books(to_rows(latents))[1]

    def term(self, number: int, codes: Tensor, cells: Cells) -> Tensor:
        """See Quantizer."""
        return to_grid(self.books.get_codes_from_indices(codes), cells)


class Residual(Quantizer):
    """`depth` maps of full size, each for what the sum of those before it left over; see VQ for the rest."""

    terms = ("commitment",)
    nested = True

    def __init__(
        self, channels: int, codes: int, depth: int, decay: float = 0.95, reset: float = 0.02
    ) -> None:
        from vector_quantize_pytorch import ResidualVQ

        _check_count("depth", depth)
        arguments = moving(codes, decay, reset)
        books = ResidualVQ(dim=channels, num_quantizers=depth, **arguments)
        super().__init__(codes, books, [1.0] * depth)

    def learn(self, latents: Tensor) -> Quantized:
        """See Quantizer; the commitments of all depths are added up.

        The library hands the gradient through once a depth, so it is passed on here, once.
        """
        self.start()
        rows = to_rows(latents)
        quantized, codes, commitments = self.books(rows)
        passed = straight_through(rows, quantized.detach())
        return Quantized(
            to_grid(passed, latents.shape[2:]), _map_by_map(codes), {"commitment": commitments.sum()}
        )

    def choose(self, latents: Tensor) -> Tensor:
        """See Quantizer."""
        return _map_by_map(self.books(to_rows(latents))[1])

    def term(self, number: int, codes: Tensor, cells: Cells) -> Tensor:
        """See Quantizer."""
        return to_grid(self.books.layers[number].get_codes_from_indices(codes), cells)


class Grouped(Quantizer):
    """`groups` maps of full size, each with a codebook for its own share of the channels; see VQ."""

    terms = ("commitment",)

    def __init__(
        self, channels: int, codes: int, groups: int, decay: float = 0.95, reset: float = 0.02
    ) -> None:
        from vector_quantize_pytorch import GroupedResidualVQ

        _check_count("groups", groups)
        if channels % groups:
            raise UserError(
                f"groups = {groups} do not share out {channels} latent channels evenly; expected a divisor."
            )
        arguments = moving(codes, decay, reset)
        books = GroupedResidualVQ(dim=channels, groups=groups, num_quantizers=1, **arguments)
        super().__init__(codes, books, [1.0] * groups)

    def learn(self, latents: Tensor) -> Quantized:
        """See Quantizer; the commitment is the mean over the groups, as over any channels."""
        self.start()
        quantized, codes, commitments = self.books(to_rows(latents))
        terms = {"commitment": commitments.mean()}
        return Quantized(to_grid(quantized, latents.shape[2:]), _group_by_group(codes), terms)

    def choose(self, latents: Tensor) -> Tensor:
        """See Quantizer."""
        return _group_by_group(self.books(to_rows(latents))[1])

    def term(self, number: int, codes: Tensor, cells: Cells) -> Tensor:
        """See Quantizer; zero in the channels of other groups."""
        part = to_grid(self.books.rvqs[number].layers[0].get_codes_from_indices(codes), cells)
        before, width = number * part.shape[1], self.books.dim
        return F.pad(part, (0, 0, 0, 0, before, width - before - part.shape[1]))


class InsideNetwork(Quantizer):
    """The codebook of a diffusers VQModel, which stays where its file has it: in the network.

    It is moved by gradients, those of the `codebook` term (van den Oord et al. 2017, equation 3).
    """

    terms = ("commitment", "codebook")

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.quantize.n_e, nn.Identity())
        self._network = [network]  # in a list, so that its weights are not counted and saved twice

    def learn(self, latents: Tensor) -> Quantized:
        """See Quantizer."""
        codes = self.choose(latents)
        entries = self.term(0, codes, latents.shape[2:])
        terms = {
            "commitment": F.mse_loss(latents, entries.detach()),
            "codebook": F.mse_loss(entries, latents.detach()),
        }
        return Quantized(straight_through(latents, entries.detach()), codes, terms)

    def choose(self, latents: Tensor) -> Tensor:
        """See Quantizer."""
        return self._network[0].quantize(latents)[2][2].reshape(len(latents), -1)

    def term(self, number: int, codes: Tensor, cells: Cells) -> Tensor:
        """See Quantizer."""
        return to_grid(self._network[0].quantize.embedding(codes), cells)


def _check_count(name: str, count: Any) -> None:
    if not is_whole(count, 1):
        raise UserError(f"{name} = {count!r}; expected a whole number of 1 or more.")


def _map_by_map(codes: Tensor) -> Tensor:
    return rearrange(codes, "b n q -> b (q n)")


def _group_by_group(codes: Tensor) -> Tensor:
    return rearrange(codes, "g b n 1 -> b (g n)")
