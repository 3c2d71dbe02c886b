"""Codecs: pictures <-> latents whose channels have mean 0 and deviation 1, or codes (see discrete.py).

A codec folder is a diffusers autoencoder folder (config.json and safetensors) with a codec.json beside it
that holds the measured mean and deviation of each channel, so that everything behind the codec works in
one scale.  Latents are deterministic: of a variational autoencoder they are the mean.

B batch, C latent channels, H W pixels, h w latent grid.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from unimodal.errors import UserError
from unimodal.images import autoencoders

CODEC_FILE = "codec.json"
SHIPPED = Path(__file__).parents[1] / "shipped"
CLASSES = ("DiffusersCodec", "DiscreteCodec", "PixelPatches")  # that codec.json may name

log = logging.getLogger(__name__)


class Codec(nn.Module, ABC):
    """What every codec does.  A subclass gives `to_raw`, `from_raw` and `save_network`.

    stride    pixels per cell along a side
    channels  C
    discrete  whether `encode` gives codes, integers, rather than latents
    """

    discrete = False
    mean: Tensor  # (C,)
    std: Tensor  # (C,)

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride, self.channels = stride, channels
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @abstractmethod
    def to_raw(self, pixels: Tensor) -> Tensor:
        """Pixels (B,3,H,W) in [-1, 1] -> latents (B,C,h,w) in the network's own scale."""

    @abstractmethod
    def from_raw(self, latents: Tensor) -> Tensor:
        """Latents (B,C,h,w) in the network's own scale -> pixels (B,3,H,W), not clamped."""

    @abstractmethod
    def save_network(self, folder: Path) -> dict:
        """Write the weights, if any, and return what codec.json must say besides the normalisation."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B,3,H,W) in [-1, 1] -> latents (B,C,H/stride,W/stride), mean 0 and std 1 a channel.

        Raises UserError if a side is no multiple of the stride: a picture is never cut or padded here.
        """
        self.check_sides(pixels)
        return (self.to_raw(pixels) - self.mean[:, None, None]) / self.std[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """What `encode` gives -> pixels (B,3,H,W), clamped to [-1, 1]."""
        return self.decode_latents(latents)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents (B,C,h,w), be they of a codec with codes or not -> pixels (B,3,H,W) in [-1, 1]."""
        return self.restore(latents).clamp(-1, 1)

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Pixels (B,3,H,W) -> the pixels that are left of them after encoding and decoding."""
        return self.decode(self.encode(pixels))

    def check_sides(self, pixels: Tensor) -> None:
        """Raise UserError if a side of pictures (B,3,H,W) is no multiple of the stride."""
        height, width = pixels.shape[-2:]
        if height % self.stride or width % self.stride:
            raise UserError(
                f"a picture of {height}x{width} pixels does not fit a codec of stride {self.stride}; "
                f"expected sides that are multiples of {self.stride}. Scale it (unimodal.data.pictures.fit)."
            )

    def restore(self, latents: Tensor) -> Tensor:
        """`decode_latents` without its clamp, which stops gradients: what training compares to pictures."""
        return self.from_raw(latents * self.std[:, None, None] + self.mean[:, None, None])

    @torch.no_grad()
    def measure(self, pictures: Iterable[Tensor]) -> None:
        """Set mean and std to those of the raw latents of batches of pictures (B,3,H,W)."""
        count, total, squares = 0, 0.0, 0.0
        training = self.training
        self.eval()
        for pixels in pictures:
            raw = self.to_raw(pixels).double()
            count += raw.numel() // self.channels
            total = total + raw.sum((0, 2, 3))
            squares = squares + raw.square().sum((0, 2, 3))
        self.train(training)
        if not count:
            raise ValueError("no pictures to measure the latents of")
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        self.mean.copy_(mean)
        # A channel that never changes is left as it is rather than blown up.
        self.std.copy_(torch.where(variance > 1e-12, variance.sqrt(), 1.0))

    def save(self, folder: Path | str) -> None:
        """Write a folder that `load_codec` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        entries = self.save_network(folder)
        entries |= {"mean": self.mean.double().tolist(), "std": self.std.double().tolist()}
        (folder / CODEC_FILE).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


class DiffusersCodec(Codec):
    """A continuous autoencoder in diffusers' format: AutoencoderKL, AutoencoderDC or AutoencoderTiny.

    config  what config.json says, `_class_name` included
    fold    squares of fold x fold pixels become the channels of one pixel before the network sees them
            (and back after it), which spares small networks their costliest, full-resolution stage

    Raises UserError if no such network exists.
    """

    def __init__(self, config: dict, fold: int = 1) -> None:
        stride, channels = autoencoders.stride_and_channels(config)
        super().__init__(stride * fold, channels)
        self.config, self.fold = config, fold
        check_fold(config, fold)
        self.network = autoencoders.build(config)
        mean, std = autoencoders.declared_scale(config)
        self.mean.copy_(torch.as_tensor(mean))
        self.std.copy_(torch.as_tensor(std))

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance (B,C,h,w) of the raw latents; None where the network has no variance."""
        return autoencoders.encode(self.network, pixel_unshuffle(pixels, self.fold))

    def to_raw(self, pixels: Tensor) -> Tensor:
        """See Codec; the mean of the posterior."""
        return self.posterior(pixels)[0]

    def from_raw(self, latents: Tensor) -> Tensor:
        """See Codec."""
        return pixel_shuffle(autoencoders.decode(self.network, latents), self.fold)

    def save_network(self, folder: Path) -> dict:
        """config.json and diffusion_pytorch_model.safetensors, as diffusers reads them."""
        autoencoders.save(self.network, self.config, folder)
        return {"class": "DiffusersCodec", "fold": self.fold}


def check_fold(config: dict, fold: int) -> None:
    """Raise UserError unless a network of this configuration takes squares of fold x fold pixels."""
    if fold < 1 or config.get("in_channels", 3) != 3 * fold**2:
        raise UserError(
            f"in_channels = {config.get('in_channels', 3)} and fold = {fold} do not go together: "
            f"expected in_channels = {3 * fold**2}, the colours of {fold}x{fold} pixels."
        )


class PixelPatches(Codec):
    """No compression at all: a cell is the raw pixels of a square, C = 3 stride^2.  Exact."""

    def __init__(self, stride: int = 8) -> None:
        super().__init__(stride, 3 * stride**2)

    def to_raw(self, pixels: Tensor) -> Tensor:
        """See Codec; space to depth."""
        return pixel_unshuffle(pixels, self.stride)

    def from_raw(self, latents: Tensor) -> Tensor:
        """See Codec; depth to space."""
        return pixel_shuffle(latents, self.stride)

    def save_network(self, folder: Path) -> dict:
        """Nothing but the stride."""
        return {"class": "PixelPatches", "stride": self.stride}


def load_codec(folder_or_id: Path | str) -> Codec:
    """Read a codec folder, that of a shipped model (its name), or fetch one from the hub (owner/name).

    In float32, for inference, trainable.  Raises UserError for a missing folder, weights that are not
    safetensors, a network that is not known, or weights that do not fit it.
    """
    folder = _find(folder_or_id)
    entries = _read_json(folder / CODEC_FILE) if (folder / CODEC_FILE).is_file() else None
    kind = None if entries is None else entries.get("class")
    if entries is not None and kind not in CLASSES:
        raise UserError(f"{folder / CODEC_FILE}: class is {kind!r}; expected one of {', '.join(CLASSES)}.")
    if kind == "PixelPatches":
        codec: Codec = PixelPatches(_entry(folder, entries, "stride", int))
    else:
        codec = _load_network(folder, entries)
    if entries is not None:
        _set_scale(codec, entries, folder)
    return codec.eval()


def _load_network(folder: Path, entries: dict | None) -> Codec:
    """A diffusers autoencoder, with a quantizer where codec.json (or the network itself) has one."""
    from unimodal.images.discrete import OWN_CODEBOOK, DiscreteCodec, load_quantizer

    if not (folder / "config.json").is_file():
        inner = next(iter(sorted(path.parent.name for path in folder.glob("*/config.json"))), None)
        hint = f" Did you mean {folder / inner}?" if inner else ""
        raise UserError(
            f"{folder} is no codec: it has no config.json. Expected a diffusers autoencoder folder, as "
            f"`unimodal train recipes/codec/shapes.yaml` writes it.{hint}"
        )
    config = _read_json(folder / "config.json")
    fold = 1 if entries is None else _entry(folder, entries, "fold", int)
    own = config.get("_class_name") == OWN_CODEBOOK
    discrete = own or (entries is not None and entries["class"] == "DiscreteCodec")
    settings = None if own or not discrete else _entry(folder, entries, "quantizer", dict)
    patch = _entry(folder, {"patch": 1} | (entries or {}), "patch", int)
    try:
        codec = DiscreteCodec(config, settings, fold, patch) if discrete else DiffusersCodec(config, fold)
    except UserError as error:
        where = folder / "config.json" if settings is None else folder
        raise UserError(f"{where}: {error}") from None
    autoencoders.load_weights(codec.network, folder)
    if discrete:
        load_quantizer(codec, folder)
    if entries is None:
        log.warning(
            "%s has no %s; latents are scaled by what its config.json declares: mean %s, std %s",
            folder,
            CODEC_FILE,
            _short(codec.mean),
            _short(codec.std),
        )
    return codec


def _short(values: Tensor) -> str:
    unique = values.unique().tolist()
    return f"{unique[0]:.4g}" if len(unique) == 1 else f"of {len(values)} channels"


def _set_scale(codec: Codec, entries: dict, folder: Path) -> None:
    for name in ("mean", "std"):
        values = _entry(folder, entries, name, list)
        good = len(values) == codec.channels and all(isinstance(v, int | float) for v in values)
        if not good or (name == "std" and min(values) <= 0):
            raise UserError(
                f"{folder / CODEC_FILE}: {name} must be {codec.channels} numbers, one a latent channel"
                f"{' and above 0' if name == 'std' else ''}; found {len(values)} entries. Use the file that "
                "was saved with these weights."
            )
        getattr(codec, name).copy_(torch.tensor(values, dtype=torch.float64))


def _entry(folder: Path, entries: dict, name: str, kind: type):
    value = entries.get(name)
    if not isinstance(value, kind):
        raise UserError(f"{folder / CODEC_FILE}: {name} is {value!r}; expected a {kind.__name__}.")
    return value


def _read_json(path: Path) -> dict:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(entries, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(entries).__name__}.")
    return entries


def _find(folder_or_id: Path | str) -> Path:
    """The local folder of a codec, that of a shipped model by the model's name, or fetched by a hub id."""
    if Path(folder_or_id).is_dir():
        return Path(folder_or_id)
    name = str(folder_or_id)
    if "/" not in name and (SHIPPED / name / "codec").is_dir():
        return SHIPPED / name / "codec"
    could_be_id = isinstance(folder_or_id, str) and name.count("/") == 1 and not name.startswith((".", "/"))
    if could_be_id and not Path(name.split("/")[0]).exists():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
        except (HfHubHTTPError, OSError) as error:
            raise UserError(
                f"codec {name!r} is no folder here, and could not be fetched from the hub: {error}"
            ) from None
    raise UserError(
        f"there is no codec folder {name!r}. Train one with `unimodal train recipes/codec/shapes.yaml`, or "
        "give the folder or hub id of a diffusers autoencoder."
    )
