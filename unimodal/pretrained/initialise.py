"""A unified model made of a language model and a codec, weight by weight.

Text weights are the checkpoint's own; what images need is new.  Rows of new tokens in the embedding and the
head are the mean of the old ones, so that the model neither expects nor avoids them at first.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from unimodal.errors import UserError
from unimodal.images.codec import Codec
from unimodal.images.folder import load_codec
from unimodal.images.vision import FILES, FOLDER, load_tower
from unimodal.model.config import ModelConfig
from unimodal.model.unified import UnifiedModel
from unimodal.model.weights import Shape, Weights, narrowed, some, write
from unimodal.pretrained.checkpoint import check_free, find_checkpoint
from unimodal.pretrained.choices import config_of, device_of, dtype_of, own_dtype, rows_for
from unimodal.pretrained.families import decoder_fields, read_config
from unimodal.pretrained.names import IGNORED, TABLES, text_weights, their_name
from unimodal.pretrained.vocabulary import Vocabulary, extend
from unimodal.training.checkpoint import whole_folder

PIECE = 1024  # rows of a table that are read at once
SEED = 0  # of the new weights

log = logging.getLogger(__name__)


def init_model(
    llm: str | Path,
    codec: str | Path,
    out: Path,
    path: str = "flow",
    settings: Sequence[str] = (),
    dtype: str | None = None,
    device: str = "cpu",
    max_length: int | None = None,
    vision: str | Path | None = None,
) -> dict[str, str]:
    """Write a model folder to `out` and return what it is, by name, for people to read.

    llm, codec  folders or hub ids
    settings    `key=value` of ModelConfig that the language model leaves open, as `image_size=512`
    dtype       of the saved weights: float32, bfloat16, float16; None: the checkpoint's own
    device      where weights are converted
    max_length  rotary positions of the longest document: a longer one is refused; None: any length, as far as
                there is no sliding window
    vision      folder or hub id of SigLIP, CLIP or DINOv2, as a second reading of input pictures

    Host memory holds an eighth of the weights, or the largest one if that is more.
    Raises UserError if anything does not fit; nothing is left at `out` then.
    """
    check_free(out)
    folder = find_checkpoint(llm)
    llm_config = read_config(folder)
    fields = decoder_fields(llm_config, max_length, folder)
    weights = Weights(folder)
    kind = dtype_of(dtype) or own_dtype(weights)
    place = device_of(device)
    vocabulary = extend(folder)
    old_rows = fields["vocab_size"]
    if vocabulary.known > old_rows:
        raise UserError(
            f"{folder}: the tokenizer has {vocabulary.known} tokens, but the embedding only {old_rows} rows "
            "(vocab_size); the two are not of one model. Use the tokenizer that was saved with these weights."
        )
    the_codec = load_codec(codec)
    tower = load_tower(find_checkpoint(vision, "vision tower", FILES)) if vision else None
    fields["vocab_size"] = rows_for(old_rows, len(vocabulary.tokenizer))
    config = config_of(fields, path, settings, the_codec, tower)
    sources = text_weights(config)
    _check(weights, sources, old_rows)
    new = _new_weights(config, the_codec)
    for note in vocabulary.notes:
        log.warning(note)

    def make(name: str) -> Tensor:
        if name in new:
            return new[name].to(kind)
        theirs, known = their_name(name), vocabulary.known
        if name in TABLES:
            return extended(weights, theirs, known, vocabulary.new_ids, config.vocab_size, kind, place)
        return narrowed(weights.read(theirs).to(place), kind, theirs, folder)

    sizes = sources | {name: tuple(value.shape) for name, value in new.items()}
    try:
        with whole_folder(out) as partial:
            config.save(partial)
            vocabulary.tokenizer.save(partial)
            the_codec.save(partial / "codec")
            if tower is not None:
                tower.save(partial / FOLDER)
            write(partial, {name: Shape(size, kind) for name, size in sizes.items()}, make)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out} could not be written, and nothing was left there: {error}") from error
    summary = _summary(llm_config.model_type, config, kind, the_codec, vocabulary, old_rows, sizes)
    if tower is not None:
        summary["vision tower"] = f"{tower.side} pixels to {tower.grid[0]} x {tower.grid[1]} positions"
    return summary


def extended(
    weights: Weights,
    name: str,
    known: int,
    new: list[int],
    rows: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """A table of the checkpoint (V, D) with `rows` rows, read piece by piece.

    Those of `new` ids, and those beyond V, are the mean of the first `known`.
    """
    old, width = weights.size(name)
    table = torch.empty(rows, width, dtype=dtype)
    total = torch.zeros(width, dtype=torch.float64, device=device)
    for number, piece in enumerate(weights.rows(name, PIECE)):
        start, piece = number * PIECE, piece.to(device)
        total += piece[: max(known - start, 0)].double().sum(0)
        table[start : start + len(piece)] = narrowed(piece, dtype, name, weights.folder)
    table[old:] = table[new] = (total / known).to("cpu", dtype)
    return table


def _check(weights: Weights, sources: dict[str, tuple[int, ...]], old_rows: int) -> None:
    """Every weight must be there in its shape, and there must be no other, before anything is written."""
    expected = {
        their_name(name): (old_rows, size[1]) if name in TABLES else size for name, size in sources.items()
    }
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - weights.names)]
    # A tied head is the embedding, whatever a file says.
    extra = sorted(n for n in weights.names - expected.keys() - {TABLES[1]} if not IGNORED.search(n))
    wrong += [f"{name} is unknown" for name in extra]
    wrong += [
        f"{name} has shape {weights.size(name)} instead of {size}"
        for name, size in sorted(expected.items())
        if name in weights.names and weights.size(name) != size
    ]
    if wrong:
        raise UserError(
            f"the weights in {weights.folder} do not fit its config.json: {some(wrong)}. Expected a causal "
            "language model as transformers saves it (such as LlamaForCausalLM, not its base model alone)."
        )


def _new_weights(config: ModelConfig, codec: Codec) -> dict[str, Tensor]:
    """Fresh weights of all that no language model has: a model with next to no text part is made for them."""
    few = {"vocab_size": 1, "num_hidden_layers": 1, "no_rope_layers": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        small = UnifiedModel(config.model_copy(update=few), codec)
    text = ("decoder.", "codec.", *TABLES)
    return {name: value for name, value in small.state_dict().items() if not name.startswith(text)}


def _summary(
    family: str,
    config: ModelConfig,
    dtype: torch.dtype,
    codec: Codec,
    vocabulary: Vocabulary,
    old_rows: int,
    sizes: dict[str, tuple[int, ...]],
) -> dict[str, str]:
    numbers = sum(torch.Size(size).numel() for size in sizes.values())
    side = config.image_size // (codec.stride * config.patch_size)
    return {
        "family": family,
        "parameters": f"{numbers / 1e6:,.1f} M without codec, in {str(dtype).removeprefix('torch.')}",
        "vocabulary": f"{vocabulary.known} tokens and {len(vocabulary.added)} new, {old_rows} rows before, "
        f"{config.vocab_size} now",
        "kept tokens": " ".join(vocabulary.kept) or "none",
        "new tokens": " ".join(vocabulary.added) or "none",
        "codec": f"stride {codec.stride}, {codec.channels} channels, patches of {config.patch_size}",
        "pictures": f"{config.image_size} pixels are {side} x {side} positions",
        "path": config.path,
    }
