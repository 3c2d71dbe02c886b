"""The decoder: a pre-norm transformer of the Llama/Qwen family.

RMSNorm, rotary positions with three axes, grouped-query attention with optional QK-norm and biases, and
SwiGLU.  Parameter names are Hugging Face's, so pretrained text weights drop in.  With `experts: mot`
(Mixture of Transformers, Liang et al. 2024; BAGEL) every weight exists twice, once for text and once for
image positions, and only attention is shared.

Legend: B rows, T positions, D width, N heads, M key/value heads, H head width.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint

from unimodal.attention.door import Plan, attend
from unimodal.errors import UserError
from unimodal.model.cache import KVCache
from unimodal.model.config import ModelConfig
from unimodal.model.norm import RMSNorm
from unimodal.model.rope import inverse_frequencies, rotate, rotation
from unimodal.sequence.room import too_far

Store = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Attention(nn.Module):
    """Projections of one expert; the attention itself is shared by all experts of a block."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width, head = config.hidden_size, config.head_dim
        heads, kv_heads, bias = config.num_attention_heads, config.num_key_value_heads, config.attention_bias
        self.head_dim = head
        self.q_proj = nn.Linear(width, heads * head, bias=bias)
        self.k_proj = nn.Linear(width, kv_heads * head, bias=bias)
        self.v_proj = nn.Linear(width, kv_heads * head, bias=bias)
        self.o_proj = nn.Linear(heads * head, width, bias=config.attention_output_bias)
        eps = config.rms_norm_eps
        self.q_norm = RMSNorm(head, eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head, eps) if config.qk_norm else nn.Identity()

    def project(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (..., N, H), keys and values (..., M, H), before rotation."""
        q, k, v = (
            rearrange(proj(x_TD), "... (n h) -> ... n h", h=self.head_dim)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.q_norm(q), self.k_norm(k), v


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class Expert(nn.Module):
    """The weights of one block for one modality."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def before(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What comes before attention: normalised projections."""
        return self.self_attn.project(self.input_layernorm(x))

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """What comes after it: both residual branches."""
        x = x + self.self_attn.o_proj(rearrange(attended, "... n h -> ... (n h)"))
        return x + self.mlp(self.post_attention_layernorm(x))


class Block(nn.Module):
    """One layer: an expert for every modality around one attention, with rotary positions or without."""

    def __init__(self, config: ModelConfig, rotary: bool = True):
        super().__init__()
        self.rotary = rotary
        self.experts = nn.ModuleList(Expert(config) for _ in range(2 if config.experts == "mot" else 1))

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, plan: Plan, is_image: Tensor, store: Store | None
    ) -> Tensor:
        """(B, T, D) to (B, T, D).

        is_image  (B, T) bool, which expert a position belongs to
        store     puts the new keys and values into a cache and returns all of them
        """
        q, k, v = self._route(is_image, lambda expert, x: expert.before(x), x)
        if self.rotary:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if store is not None:
            k, v = store(k, v)
        attended = attend(q, k.to(q.dtype), v.to(q.dtype), plan)
        return self._route(is_image, lambda expert, x, a: (expert.after(x, a),), x, attended)[0]

    def _route(self, is_image: Tensor, call, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Send each position through its own expert and put the results back in place."""
        if len(self.experts) == 1:
            return call(self.experts[0], *inputs)
        chosen = (~is_image, is_image)
        parts = [call(e, *(x[mask] for x in inputs)) for e, mask in zip(self.experts, chosen)]
        merged = []
        for text, image in zip(*parts):
            out = text.new_empty(*is_image.shape, *text.shape[1:])
            merged.append(
                out.masked_scatter(_like(~is_image, out), text).masked_scatter(_like(is_image, out), image)
            )
        return tuple(merged)


def _like(mask: Tensor, x: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim())).expand_as(x)


class Decoder(nn.Module):
    """All layers and the final norm.  Embeddings come in, hidden states go out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        rotary = config.no_rope_layers or [1] * config.num_hidden_layers
        self.layers = nn.ModuleList(Block(config, bool(r)) for r in rotary)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        frequencies = inverse_frequencies(config.head_dim, config.rope_theta, config.rope_scale)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.rope_factor = config.rope_scale.attention_factor if config.rope_scale else 1.0
        self.limit = config.limit
        self.gradient_checkpointing = False

    def forward(
        self,
        embeds: Tensor,
        position: Tensor,
        plan: Plan,
        is_image: Tensor,
        place=None,
        cache: KVCache | None = None,
        taps: list[Tensor] | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D) of embeddings (B, T, D) at positions (B, T, 3).

        place  (row, slot) from `cache.place` when a cache is given
        taps   gets the embeddings, then what every layer gives; what the last one gives is normalised
        Raises UserError for a document that is too long for the model (see `unimodal.sequence.room.too_far`).
        """
        if self.limit is not None and int(position.max()) >= self.limit:
            raise UserError(too_far("a document", int(position.max()) + 1, self.limit))
        cos, sin = rotation(position, self.frequencies, self.rope_factor)
        x = embeds
        for number, layer in enumerate(self.layers):
            if taps is not None:
                taps.append(x)
            store = None
            if cache is not None:
                row, slot = place

                def store(k, v, number=number, row=row, slot=slot):
                    return cache.write(number, row, slot, k, v)

            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, cos, sin, plan, is_image, store, use_reentrant=False)
            else:
                x = layer(x, cos, sin, plan, is_image, store)
        x = self.norm(x)
        if taps is not None:
            taps.append(x)
        return x
