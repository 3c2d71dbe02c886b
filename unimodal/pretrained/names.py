"""Names of the text weights: ours and transformers'.

Our blocks hold one expert a modality, so a layer's weights go to the text expert, and in a mixture (`mot`)
to the image expert as well, which then starts as a copy (as BAGEL's, Deng et al. 2025).
"""

import re

import torch

from unimodal.model.config import ModelConfig
from unimodal.model.decoder import Decoder

TABLES = ("embed_tokens.weight", "lm_head.weight")  # one row a token
EXPERT = re.compile(r"^decoder\.layers\.(\d+)\.experts\.(\d+)\.")
# Computed, not learned; old checkpoints hold them all the same.
IGNORED = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$")


def text_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of ours that a language model brings along."""
    with torch.device("meta"):
        decoder = Decoder(config)
    table = (config.vocab_size, config.hidden_size)
    found = {TABLES[0]: table}
    found |= {f"decoder.{name}": tuple(value.shape) for name, value in decoder.state_dict().items()}
    return found if config.tie_word_embeddings else found | {TABLES[1]: table}


def their_name(name: str) -> str:
    """What transformers calls one of `text_weights`."""
    if name == TABLES[1]:
        return name
    return "model." + EXPERT.sub(r"layers.\1.", name).removeprefix("decoder.")


def is_copy(name: str) -> bool:
    """Whether it belongs to the image expert, which only starts as a copy of the text expert."""
    match = EXPERT.match(name)
    return bool(match) and match[2] != "0"
