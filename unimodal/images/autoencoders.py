"""The networks behind a codec, one door to all: build, load, save, encode, decode.

Names and files are diffusers'.  diffusers itself is imported only for networks that need it, because the
import takes longer than everything else in the start of a chat; the plain AutoencoderDC does without.
"""

import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path

from torch import Tensor, nn

from unimodal.errors import UserError, nearest
from unimodal.images.dcae import ATTENTION, DEFAULTS, PlainAutoencoderDC, is_plain

WEIGHTS = "diffusion_pytorch_model.safetensors"
# The version whose format save() writes for networks that are built without diffusers.
FORMAT_VERSION = "0.42.1"


def _diffusers(name: str) -> Callable[[dict], nn.Module]:
    def build(config: dict) -> nn.Module:
        import diffusers

        return getattr(diffusers, name).from_config(config)

    return build


def _deep_compression(config: dict) -> nn.Module:
    return PlainAutoencoderDC(config) if is_plain(config) else _diffusers("AutoencoderDC")(config)


# Class -> (builder, the widths whose number gives the stride and diffusers' default for them, default C)
CLASSES: dict[str, tuple[Callable[[dict], nn.Module], str, int, int]] = {
    "AutoencoderKL": (_diffusers("AutoencoderKL"), "block_out_channels", 1, 4),
    "AsymmetricAutoencoderKL": (_diffusers("AsymmetricAutoencoderKL"), "down_block_out_channels", 1, 4),
    "AutoencoderDC": (_deep_compression, "encoder_block_out_channels", 6, 32),
    "AutoencoderTiny": (_diffusers("AutoencoderTiny"), "encoder_block_out_channels", 4, 4),
    "VQModel": (_diffusers("VQModel"), "block_out_channels", 1, 3),
}


def _class_of(config: dict) -> str:
    name = config.get("_class_name")
    if name not in CLASSES:
        raise UserError(
            f"the autoencoder class is {name!r}{nearest(str(name), CLASSES)}; known are {', '.join(CLASSES)}."
        )
    return name


def stride_and_channels(config: dict) -> tuple[int, int]:
    """Pixels per latent cell along a side, and latent channels."""
    _, widths, levels, channels = CLASSES[_class_of(config)]
    stride = 2 ** (len(config.get(widths, [None] * levels)) - 1)
    return stride, config.get("vq_embed_dim") or config.get("latent_channels", channels)


def declared_scale(config: dict) -> tuple[float | list[float], float | list[float]]:
    """Mean and deviation of the raw latents as config.json declares them, a number or one a channel.

    diffusers feeds generators (z - shift_factor) * scaling_factor, or where the latents' own moments are
    given, (z - latents_mean) * scaling_factor / latents_std.
    """
    default = 0.18215 if _class_of(config) in ("AutoencoderKL", "AsymmetricAutoencoderKL", "VQModel") else 1.0
    scale = config.get("scaling_factor") or default
    if config.get("latents_mean") and config.get("latents_std"):
        return config["latents_mean"], [value / scale for value in config["latents_std"]]
    return config.get("shift_factor") or 0.0, 1.0 / scale


def build(config: dict) -> nn.Module:
    """The network of a config.json with fresh weights.  Raises UserError if the configuration is wrong."""
    name = _class_of(config)
    try:
        return CLASSES[name][0](config)
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise UserError(f"no {name} can be built from this configuration: {error}") from error


def check_arguments(config: dict) -> None:
    """Raise UserError if `config` names an argument that its class does not have."""
    name = _class_of(config)
    if name == "AutoencoderDC":
        known = DEFAULTS.keys() | ATTENTION
    else:
        import diffusers

        known = signature(getattr(diffusers, name)).parameters.keys()
    for key in config.keys() - known - {"_class_name"}:
        raise UserError(
            f"{name} has no argument {key!r}{nearest(key, known)}; it has {', '.join(sorted(known))}."
        )


def load_weights(network: nn.Module, folder: Path) -> None:
    """Read the folder's safetensors into `network`; every weight must be there and fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = {}
        for name in _weight_files(folder):
            weights |= load_file(folder / name)
        network.load_state_dict(weights)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise UserError(
            f"the weights in {folder} do not fit its config.json or are damaged: {error}. Expected the "
            f"{WEIGHTS} that was saved with this config.json."
        ) from error


def _weight_files(folder: Path) -> list[str]:
    """One file, or the shards that the index names."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    index = folder / f"{WEIGHTS}.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
        if outside:
            raise UserError(f"{index} names {outside[0]!r}; expected safetensors files in the same folder.")
        return names
    pickles = sorted(path.name for end in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(end))
    if pickles:
        raise UserError(
            f"{folder} holds its weights only as {pickles[0]}, a pickle, which could run code when read. "
            f"Expected {WEIGHTS}: where you trust it, load it with diffusers and save_pretrained it again."
        )
    raise UserError(f"{folder} has no weights: expected {WEIGHTS} beside its config.json.")


def save(network: nn.Module, config: dict, folder: Path) -> None:
    """config.json and safetensors, as diffusers writes and reads them."""
    if hasattr(network, "save_pretrained"):
        network.save_pretrained(folder)
        return
    from safetensors.torch import save_file

    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    full = {"_diffusers_version": FORMAT_VERSION} | config
    (folder / "config.json").write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")


def encode(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean and log-variance of the latents (B,C,h,w); None for networks without a variance."""
    if isinstance(network, PlainAutoencoderDC):
        return network.encoder(pixels), None
    out = network.encode(pixels)
    if hasattr(out, "latent_dist"):
        return out.latent_dist.mean, out.latent_dist.logvar
    return (out.latents if hasattr(out, "latents") else out.latent), None


def decode(network: nn.Module, latents: Tensor) -> Tensor:
    """Latents in the network's own scale -> pixels (B,3,H,W), not clamped."""
    if isinstance(network, PlainAutoencoderDC):
        return network.decoder(latents)
    if hasattr(network, "quantize"):  # VQModel, whose own decode would quantize again
        spatial = network.config.norm_type == "spatial"  # its norms then look at the latents too
        return network.decoder(network.post_quant_conv(latents), latents if spatial else None)
    return network.decode(latents).sample
