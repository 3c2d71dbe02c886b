"""The text part of a unified model, given back as a checkpoint of transformers.

Its logits are those of the unified model on text.  The tokenizer comes along with its new tokens; template,
ends and habits of generation are those of the checkpoint that the model was made of, or ours where it had no
template.  Image weights, places and the codec stay behind.
"""

from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from unimodal.errors import UserError
from unimodal.model.config import ModelConfig
from unimodal.model.folder import find_model
from unimodal.model.weights import Shape, Weights, write
from unimodal.pretrained.checkpoint import check_free
from unimodal.pretrained.choices import KINDS
from unimodal.pretrained.names import TABLES, is_copy, text_weights, their_name
from unimodal.pretrained.origin import exported_ids, restore
from unimodal.pretrained.text_config import text_config
from unimodal.sequence.tokenizer import Tokenizer
from unimodal.training.checkpoint import whole_folder


def export_llm(model: str, out: Path) -> dict[str, str]:
    """Write the text part of a model to `out`, which AutoModelForCausalLM and AutoTokenizer read.

    model  a shipped name, a folder or a hub id
    Weights keep the type in which the folder has them; of two experts, the text's is taken.
    Returns what was written, for people to read.  Raises UserError if no family of transformers computes the
    same, or it cannot be written; nothing is left at `out` then.
    """
    check_free(out)
    folder = find_model(model)
    config, tokenizer, weights = ModelConfig.load(folder), Tokenizer.load(folder), Weights(folder)
    if config.text_objective != "next_token":
        raise UserError(
            f"{folder} learned its text by masked prediction, which no causal language model of transformers "
            f"does: its text_objective is {config.text_objective}; expected next_token."
        )
    sizes = {name: size for name, size in text_weights(config).items() if not is_copy(name)}
    for name, size in sizes.items():
        if name not in weights.names or weights.size(name) != size or weights.kind(name) not in KINDS:
            raise UserError(
                f"the weights in {folder} do not fit its config.json: expected {name} with shape {size}."
            )
    ours = {their_name(name): name for name in sizes}
    plan = {theirs: Shape(sizes[name], KINDS[weights.kind(name)]) for theirs, name in ours.items()}
    ids = exported_ids(tokenizer)
    theirs = text_config(config, **ids, dtype=plan[their_name(TABLES[0])].dtype)
    name = type(theirs).__name__.replace("Config", "ForCausalLM")
    theirs.architectures = [name]

    def make(their: str) -> Tensor:
        return weights.read(ours[their])

    try:
        with whole_folder(out) as partial:
            theirs.save_pretrained(partial)
            restore(partial, tokenizer, ids)
            write(partial, plan, make)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out} could not be written, and nothing was left there: {error}") from error
    numbers = sum(shape.bytes // shape.dtype.itemsize for shape in plan.values())
    return {"class": name, "parameters": f"{numbers / 1e6:,.1f} M", "vocabulary": f"{config.vocab_size} rows"}
