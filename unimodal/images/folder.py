"""Reading the folder of a codec: continuous, with codes, or a diffusers autoencoder as it is."""

import json
import logging
from pathlib import Path

import torch
from torch import Tensor

from unimodal.errors import UserError
from unimodal.hub import fetch
from unimodal.images import autoencoders
from unimodal.images.codec import CODEC_FILE, Codec, DiffusersCodec, PixelPatches

SHIPPED = Path(__file__).parents[1] / "shipped"
CLASSES = ("DiffusersCodec", "DiscreteCodec", "PixelPatches")  # that codec.json may name

log = logging.getLogger(__name__)


def load_codec(folder_or_id: Path | str) -> Codec:
    """Read a codec folder, a shipped one or that of a shipped model (its name), or fetch one from the hub.

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
        if not inner and (folder / "model_index.json").is_file():
            hint = " It is a whole pipeline: download the folder of its autoencoder, vae/, and name that."
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
    """The local folder of a codec, a shipped one or a shipped model's by its name, or fetched by a hub id."""
    if Path(folder_or_id).is_dir():
        return Path(folder_or_id)
    name = str(folder_or_id)
    if "/" not in name:
        for folder in (SHIPPED / name / "codec", SHIPPED / name):
            if (folder / CODEC_FILE).is_file():
                return folder
    could_be_id = isinstance(folder_or_id, str) and not Path(name.split("/")[0]).exists()
    if could_be_id and (fetched := fetch(name, "codec", ("*.json", "*.safetensors"))) is not None:
        return fetched
    from unimodal.commands.recipes import maker

    command = maker(Path(name)) or "unimodal train codec/shapes"
    raise UserError(
        f"there is no codec folder {name!r}. Train one with `{command}`, or "
        "give the folder or hub id of a diffusers autoencoder."
    )
