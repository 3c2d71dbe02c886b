"""The quantizers by name, on the modules of vector-quantize-pytorch.

    vq           one codebook, the nearest entry (van den Oord et al. 2017); `cosine` compares directions
    fsq          each channel rounded to a few levels, no codebook (Mentzer et al. 2023)
    lfq          the signs of the channels (Yu et al. 2023), kept busy by two entropy terms
    residual     `depth` codebooks, each for what those before it left over (Lee et al. 2022)
    grouped      `groups` codebooks, each for its own channels (product quantization)
    multi_scale  one codebook for a picture of pictures, coarse to fine (see multi_scale.py)

Codebooks move by averages of the latents that choose them, start by k-means over the first batch, and an
entry that hardly anything chooses any more is moved onto a latent of the batch.
"""

import math
from inspect import Parameter, signature
from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from unimodal.errors import UserError, nearest
from unimodal.images.losses import moment_penalty
from unimodal.images.multi_scale import MultiScale
from unimodal.images.quantizer import (
    LARGEST,
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


class Residual(Quantizer):
    """`depth` maps of full size, each for what the sum of those before it left over; see VQ for the rest."""

    terms = ("commitment",)

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


QUANTIZERS: dict[str, type[Quantizer]] = {
    "vq": VQ,
    "fsq": FSQ,
    "lfq": LFQ,
    "residual": Residual,
    "grouped": Grouped,
    "multi_scale": MultiScale,
}


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """`config` ({"kind": ..., **arguments of that class}) with every default written out.

    Raises UserError for a kind or an argument that is not known, and for one that is missing.
    """
    kind = config.get("kind")
    if kind not in QUANTIZERS:
        raise UserError(
            f"the quantizer's kind is {kind!r}{nearest(str(kind), QUANTIZERS)}; known are "
            f"{', '.join(QUANTIZERS)}."
        )
    known = dict(signature(QUANTIZERS[kind]).parameters)
    del known["channels"]
    for key in config.keys() - known.keys() - {"kind"}:
        raise UserError(f"{kind} has no argument {key!r}{nearest(key, known)}; it has {', '.join(known)}.")
    for key, parameter in known.items():
        if parameter.default is Parameter.empty and key not in config:
            raise UserError(f"{kind} needs {key}; it has {', '.join(known)}.")
    defaults = {key: p.default for key, p in known.items() if p.default is not Parameter.empty}
    return {"kind": kind} | defaults | config


def build_quantizer(config: dict[str, Any], channels: int) -> Quantizer:
    """The quantizer of a configuration, new, for latents of `channels` channels.

    Raises UserError if it cannot be (see `complete`) or if a value is out of range.
    """
    arguments = complete(config)
    return QUANTIZERS[arguments.pop("kind")](channels, **arguments)


def _check_count(name: str, count: Any) -> None:
    if not is_whole(count, 1):
        raise UserError(f"{name} = {count!r}; expected a whole number of 1 or more.")


def _map_by_map(codes: Tensor) -> Tensor:
    return rearrange(codes, "b n q -> b (q n)")


def _group_by_group(codes: Tensor) -> Tensor:
    return rearrange(codes, "g b n 1 -> b (g n)")
