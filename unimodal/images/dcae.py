"""The convolutional deep-compression autoencoder, light: the same network and weights as diffusers' own.

Chen et al. 2024 (https://arxiv.org/abs/2410.10733): down and up sampling by pixel (un)shuffle, each beside
a shortcut without parameters, so that the network learns only what rearranging pixels cannot do.
Importing diffusers' class takes longer than everything else in the start of a chat, so the plain form
(residual blocks, RMSNorm) is written out here under the same parameter names; a folder saved by either
loads in the other.  Forms with attention go to diffusers.

B batch, C channels, H W rows and columns; C' after the layer.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

# What diffusers assumes where config.json is silent, and what this form demands.
DEFAULTS = {
    "in_channels": 3,
    "latent_channels": 32,
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_block_out_channels": (128, 256, 512, 512, 1024, 1024),
    "decoder_block_out_channels": (128, 256, 512, 512, 1024, 1024),
    "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
    "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
    "upsample_block_type": "pixel_shuffle",
    "downsample_block_type": "pixel_unshuffle",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
    "encoder_out_shortcut": True,
    "decoder_in_shortcut": True,
    "decoder_conv_act_fn": "relu",
    "scaling_factor": 1.0,
}
FIXED = (
    "encoder_block_types",
    "decoder_block_types",
    "upsample_block_type",
    "downsample_block_type",
    "decoder_norm_types",
    "decoder_act_fns",
    "encoder_out_shortcut",
    "decoder_in_shortcut",
    "decoder_conv_act_fn",
)
ATTENTION = {"attention_head_dim", "encoder_qkv_multiscales", "decoder_qkv_multiscales"}  # of no meaning here


def is_plain(config: dict) -> bool:
    """Whether this module can stand in for diffusers' AutoencoderDC of that config.json."""

    def same(value: object, expected: object) -> bool:
        values = value if isinstance(value, list | tuple) else [value]
        return all(v == expected for v in values)

    known = DEFAULTS.keys() | ATTENTION
    return all(name in known or name.startswith("_") for name in config) and all(
        same(config.get(name, DEFAULTS[name]), DEFAULTS[name]) for name in FIXED
    )


class ChannelNorm(nn.Module):
    """Root-mean-square norm over the channels of every pixel, (B,C,H,W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(Tensor(channels).fill_(1.0))
        self.bias = nn.Parameter(Tensor(channels).fill_(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> same."""
        last = rearrange(x, "b c h w -> b h w c").float()
        normed = F.rms_norm(last, self.weight.shape, self.weight, eps=1e-5) + self.bias
        return rearrange(normed, "b h w c -> b c h w").to(x.dtype)


class ResBlock(nn.Module):
    """x + norm(conv(silu(conv(x)))), (B,C,H,W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> same."""
        return x + self.norm(self.conv2(F.silu(self.conv1(x))))


class Down(nn.Module):
    """Half the resolution, (B,C,H,W) -> (B,C',H/2,W/2); the shortcut averages groups of unshuffled pixels."""

    def __init__(self, channels: int, out: int, shortcut: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out // 4, 3, padding=1)
        self.out, self.shortcut = out, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C',H/2,W/2)."""
        y = F.pixel_unshuffle(self.conv(x), 2)
        return y + _average(F.pixel_unshuffle(x, 2), self.out) if self.shortcut else y


class Up(nn.Module):
    """Twice the resolution, (B,C,H,W) -> (B,C',2H,2W); the shortcut repeats channels, then shuffles."""

    def __init__(self, channels: int, out: int, shortcut: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out * 4, 3, padding=1)
        self.out, self.shortcut = out, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C',2H,2W)."""
        y = self.conv(x)
        return F.pixel_shuffle(y + _repeat(x, self.out * 4) if self.shortcut else y, 2)


def _average(x: Tensor, channels: int) -> Tensor:
    return reduce(x, "b (c g) h w -> b c h w", "mean", c=channels)


def _repeat(x: Tensor, channels: int) -> Tensor:
    return repeat(x, "b c h w -> b (c g) h w", g=channels // x.shape[1])


class Encoder(nn.Module):
    """Pixels (B,3,H,W) -> latents; stage i works at H / 2^i; an empty first stage is skipped."""

    def __init__(self, pixels: int, latents: int, widths: Sequence[int], layers: Sequence[int]) -> None:
        super().__init__()
        self.conv_in = (
            nn.Conv2d(pixels, widths[0], 3, padding=1) if layers[0] else Down(pixels, widths[1], False)
        )
        self.down_blocks = nn.ModuleList()
        for i, (width, count) in enumerate(zip(widths, layers)):
            stage: list[nn.Module] = [ResBlock(width) for _ in range(count)]
            if i + 1 < len(widths) and count:
                stage.append(Down(width, widths[i + 1]))
            self.down_blocks.append(nn.Sequential(*stage))
        self.conv_out = nn.Conv2d(widths[-1], latents, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,latents,h,w)."""
        x = self.conv_in(x)
        for stage in self.down_blocks:
            x = stage(x)
        return self.conv_out(x) + _average(x, self.conv_out.out_channels)


class Decoder(nn.Module):
    """Latents -> pixels (B,3,H,W), the stages of the encoder from last to first."""

    def __init__(self, pixels: int, latents: int, widths: Sequence[int], layers: Sequence[int]) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(latents, widths[-1], 3, padding=1)
        self.up_blocks = nn.ModuleList()
        for i, (width, count) in enumerate(zip(widths, layers)):
            stage: list[nn.Module] = [ResBlock(width) for _ in range(count)]
            if i + 1 < len(widths) and count:
                stage.insert(0, Up(widths[i + 1], width))
            self.up_blocks.append(nn.Sequential(*stage))
        last = widths[0] if layers[0] else widths[1]
        self.norm_out = ChannelNorm(last)
        self.conv_out = nn.Conv2d(last, pixels, 3, padding=1) if layers[0] else Up(last, pixels, False)

    def forward(self, z: Tensor) -> Tensor:
        """(B,latents,h,w) -> (B,3,H,W)."""
        x = self.conv_in(z) + _repeat(z, self.conv_in.out_channels)
        for stage in reversed(self.up_blocks):
            x = stage(x)
        return self.conv_out(F.relu(self.norm_out(x)))


class PlainAutoencoderDC(nn.Module):
    """Encoder and decoder of a config.json that `is_plain`; raises ValueError if widths do not divide."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        c = DEFAULTS | config
        for side in ("encoder", "decoder"):
            widths, layers = c[f"{side}_block_out_channels"], c[f"{side}_layers_per_block"]
            _check(side, widths, layers, c["latent_channels"])
        pixels, latents = c["in_channels"], c["latent_channels"]
        self.encoder = Encoder(
            pixels, latents, c["encoder_block_out_channels"], c["encoder_layers_per_block"]
        )
        self.decoder = Decoder(
            pixels, latents, c["decoder_block_out_channels"], c["decoder_layers_per_block"]
        )


def _check(side: str, widths: Sequence[int], layers: Sequence[int], latents: int) -> None:
    """The shortcuts group or repeat whole channels, and only the first stage may be empty."""
    if len(widths) != len(layers) or len(widths) < 2:
        raise ValueError(
            f"{side}_block_out_channels and {side}_layers_per_block need one length of 2 or more"
        )
    if not all(layers[1:]):
        raise ValueError(f"{side}_layers_per_block = {list(layers)}: only the first stage may have no layers")
    first = 0 if layers[0] else 1
    for width, deeper in zip(widths[first:], widths[first + 1 :]):
        if 4 * width % deeper:
            raise ValueError(
                f"{side}_block_out_channels: four times {width} is no multiple of the next, {deeper}"
            )
    if widths[-1] % latents:
        raise ValueError(f"latent_channels = {latents} does not divide the last {side} width, {widths[-1]}")
    if any(width % 4 for width in widths[first:]):
        raise ValueError(f"{side}_block_out_channels = {list(widths)}: widths must be multiples of 4")
