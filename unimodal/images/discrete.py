"""Codecs whose latents are codes: an autoencoder of diffusers with a quantizer in its middle.

What a path needs, whichever quantizer it is (B batch, h w cells of stride x stride pixels, N codes):

    codec.vocabulary                    every code is in [0, vocabulary)
    codec.maps(cells)                   the maps of codes of a picture: [(rows, columns), ...]; they are
                                        maps_of(codec.shares, cells), and the shares are plain numbers
    codec.encode(pixels)                codes (B, N): the maps one after another, each row by row
    codec.decode(codes, cells)          pixels
    codec.codes_to_latents(codes, cells)  latents (B, C, h, w), normalised as those of any codec; codes may
                                        end after any whole map, and what is missing adds nothing
    codec.decode_latents(latents)       pixels of such latents, as of those of any codec
    codec.next_input(codes, cells)      what the maps so far say at the places of the next one: (B, n, C)
    codec.inputs(codes, cells)          the same for every map at once: (B, N, C), one row a code

    quantizer     maps of 8 x 8 cells        what a map adds to the latents
    vq, fsq, lfq  8x8                        all there is
    grouped       8x8, once a group          a share of the channels
    residual      8x8, once a depth          what the maps before it left over
    multi_scale   1x1, 2x2, ... 8x8          the same, scaled up and smoothed

So `next_token` writes the N codes in order; `masked` fills in the N codes of all maps, where `codec.nested` a
map after the other; `next_scale` writes a map a step, with `inputs` as its teacher-forced
inputs and `next_input`, which is the same code, while it draws.  The first map's inputs are those of an empty
sum: a path begins with a start embedding of its own.  Codes of different maps come from different codebooks,
unless `codec.shared`, so a path tells the maps apart.

A codec folder holds the network as diffusers writes it, quantizer.safetensors, and codec.json.  A diffusers
VQModel folder is a codec as it is.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pixel_shuffle, pixel_unshuffle

from unimodal.errors import UserError
from unimodal.images import autoencoders
from unimodal.images.codebooks import InsideNetwork
from unimodal.images.codec import Codec, check_fold
from unimodal.images.quantizer import Cells, to_rows
from unimodal.images.quantizers import build_quantizer, complete

QUANTIZER_WEIGHTS = "quantizer.safetensors"
OWN_CODEBOOK = "VQModel"  # the one class of diffusers that brings its quantizer


class DiscreteCodec(Codec):
    """See the module's docstring.

    config     of the network, as config.json says it, `_class_name` included
    quantizer  {"kind": ..., **arguments} (see quantizers.py); None for VQModel, which has its own
    fold       as of DiffusersCodec
    patch      squares of patch x patch of the network's cells become the channels of one cell before the
               quantizer sees them: fewer positions, each of several codes (grouped, residual) or a rich one
    Raises UserError if no such network or quantizer exists, or if the two do not go together.
    """

    discrete = True

    def __init__(self, config: dict, quantizer: dict[str, Any] | None, fold: int = 1, patch: int = 1) -> None:
        stride, channels = autoencoders.stride_and_channels(config)
        super().__init__(stride * fold * patch, channels * patch**2)
        name = config["_class_name"]
        if (name == OWN_CODEBOOK) != (quantizer is None):
            raise UserError(
                f"{name} {'brings its own codebook' if quantizer else 'has no codebook'}: expected "
                f"{'no quantizer with it' if quantizer else 'a quantizer, as {kind: vq, codes: 1024}'}."
            )
        if patch < 1 or (quantizer is None and patch > 1):
            raise UserError(f"patch = {patch}; expected 1 or more, and 1 where the network has its codebook.")
        if name == "AutoencoderKL":
            raise UserError(
                "AutoencoderKL encodes to distributions, which a quantizer has no use for; expected "
                "AutoencoderDC or AutoencoderTiny."
            )
        check_fold(config, fold)
        self.config, self.fold, self.patch = config, fold, patch
        self.network = autoencoders.build(config)
        if quantizer is None:
            self.settings, self.quantizer = None, InsideNetwork(self.network)
            mean, std = autoencoders.declared_scale(config)
            self.mean.copy_(torch.as_tensor(mean))
            self.std.copy_(torch.as_tensor(std))
        else:
            self.settings = complete(quantizer)
            self.quantizer = build_quantizer(quantizer, self.channels)

    @property
    def vocabulary(self) -> int:
        """Every code is in [0, vocabulary)."""
        return self.quantizer.vocabulary

    @property
    def shares(self) -> tuple[float, ...]:
        """Sides of each map as shares of the picture's: all that `maps_of` has to know."""
        return self.quantizer.shares

    @property
    def shared(self) -> bool:
        """Whether a code means the same vector in every map."""
        return self.quantizer.shared

    @property
    def nested(self) -> bool:
        """Whether a map says what the sum of those before it left over."""
        return self.quantizer.nested

    def maps(self, cells: Cells) -> list[Cells]:
        """Rows and columns of each map of a picture of (h, w) cells, in the order of its codes."""
        return self.quantizer.maps(cells)

    def unquantized(self, pixels: Tensor) -> Tensor:
        """Pixels (B,3,H,W) -> what the network says, latents (B,C,h,w) that the quantizer has not seen."""
        latents = autoencoders.encode(self.network, pixel_unshuffle(pixels, self.fold))[0]
        return pixel_unshuffle(latents, self.patch)

    def to_raw(self, pixels: Tensor) -> Tensor:
        """See Codec; the quantized latents."""
        latents = self.unquantized(pixels)
        return self.quantizer.latents(self.quantizer.codes(latents), tuple(latents.shape[2:]))

    def from_raw(self, latents: Tensor) -> Tensor:
        """See Codec."""
        latents = pixel_shuffle(latents, self.patch)
        return pixel_shuffle(autoencoders.decode(self.network, latents), self.fold)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B,3,H,W) in [-1, 1] -> codes (B,N), integers.  Raises UserError as Codec.encode does."""
        self.check_sides(pixels)
        return self.quantizer.codes(self.unquantized(pixels))

    def decode(self, codes: Tensor, cells: Cells) -> Tensor:
        """Codes (B,N) of pictures of `cells` = (h, w) -> pixels (B,3,H,W), clamped to [-1, 1].

        Raises ValueError if the codes do not end where a map ends.
        """
        return self.from_raw(self.quantizer.latents(codes, cells)).clamp(-1, 1)

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """See Codec."""
        height, width = pixels.shape[-2:]
        return self.decode(self.encode(pixels), (height // self.stride, width // self.stride))

    def codes_to_latents(self, codes: Tensor, cells: Cells) -> Tensor:
        """Codes (B,N), or those of the first few maps, or none (B,0) -> latents (B,C,h,w), normalised."""
        if codes.shape[1]:
            raw = self.quantizer.latents(codes, cells)
        else:
            raw = self.mean.new_zeros(len(codes), self.channels, *cells)
        return (raw - self.mean[:, None, None]) / self.std[:, None, None]

    def next_input(self, codes: Tensor, cells: Cells) -> Tensor:
        """What the first maps, codes (B,n) or none, say about the next: (B, its rows * columns, C).

        The latents of the codes so far, averaged over the cells of the next map.
        """
        done = len(self.quantizer.split(codes, cells)) if codes.shape[1] else 0
        return to_rows(adaptive_avg_pool2d(self.codes_to_latents(codes, cells), self.maps(cells)[done]))

    def inputs(self, codes: Tensor, cells: Cells) -> Tensor:
        """`next_input` of every map, given the true maps before it: codes (B,N) -> (B,N,C)."""
        found, done = [], 0
        for rows, columns in self.maps(cells):
            found.append(self.next_input(codes[:, :done], cells))
            done += rows * columns
        return torch.cat(found, 1)

    def save_network(self, folder: Path) -> dict:
        """config.json and weights as diffusers reads them, and the quantizer beside them."""
        from safetensors.torch import save_file

        autoencoders.save(self.network, self.config, folder)
        if self.settings is not None:
            weights = self.quantizer.state_dict()
            save_file(
                {n: w.detach().cpu().contiguous() for n, w in weights.items()}, folder / QUANTIZER_WEIGHTS
            )
        return {
            "class": "DiscreteCodec",
            "fold": self.fold,
            "patch": self.patch,
            "quantizer": self.settings,
        }


def load_quantizer(codec: DiscreteCodec, folder: Path) -> None:
    """Read quantizer.safetensors, unless the network brings its own codebook.

    Raises UserError if it is missing, damaged, or of another quantizer than codec.json says.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if codec.settings is None:
        return
    path = folder / QUANTIZER_WEIGHTS
    if not path.is_file():
        raise UserError(f"{path} is missing; expected the file that was saved with this codec.json.")
    try:
        codec.quantizer.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise UserError(
            f"{path} does not fit the quantizer of codec.json or is damaged: {error}. Expected the file that "
            "was saved with it."
        ) from error
