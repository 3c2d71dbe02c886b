"""Tiny random autoencoders, saved by diffusers itself: what the codecs are compared with."""

from pathlib import Path

import diffusers
import torch
from torch import Tensor, nn

KL = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "latent_channels": 3,
}
ASYMMETRIC = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "down_block_out_channels": (8, 16),
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "up_block_out_channels": (12, 24),
    "layers_per_up_block": 2,
    "norm_num_groups": 4,
    "latent_channels": 3,
}
TINY = {
    "encoder_block_out_channels": (8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8),
    "num_encoder_blocks": (1, 1, 1),
    "num_decoder_blocks": (1, 1, 1),
}
DC = {
    "latent_channels": 6,
    "encoder_block_out_channels": (12, 12, 24),
    "decoder_block_out_channels": (12, 12, 24),
    "encoder_layers_per_block": (0, 1, 2),
    "decoder_layers_per_block": (0, 2, 1),
    "encoder_qkv_multiscales": ((), (), ()),
    "decoder_qkv_multiscales": ((), (), ()),
}
DC_FULL = DC | {"encoder_layers_per_block": (1, 1, 1), "decoder_layers_per_block": (2, 1, 1)}
# Linear attention in the deepest stage: a form that is left to diffusers.
DC_ATTENTION = DC | {
    "encoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    "decoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    "encoder_qkv_multiscales": ((), (), (5,)),
    "decoder_qkv_multiscales": ((), (), (5,)),
    "attention_head_dim": 8,
}

VQ = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "vq_embed_dim": 5,
    "num_vq_embeddings": 12,
}
# Forms of VQModel, whose latents are codes: name -> arguments.
CODED = {
    "vq": VQ,
    "vq-spatial": VQ
    | {"norm_type": "spatial", "vq_embed_dim": None, "scaling_factor": 0.5, "block_out_channels": (32, 32)},
    "vq-lookup": VQ | {"lookup_from_codebook": True},
}

# name -> class, arguments, stride
NETWORKS = {
    "kl": ("AutoencoderKL", KL, 2),
    "kl-shifted": ("AutoencoderKL", KL | {"scaling_factor": 0.3611, "shift_factor": 0.1159}, 2),
    "kl-moments": (
        "AutoencoderKL",
        KL | {"scaling_factor": 0.5, "latents_mean": [0.1, -0.2, 0.3], "latents_std": [2.0, 0.5, 1.5]},
        2,
    ),
    "asymmetric": ("AsymmetricAutoencoderKL", ASYMMETRIC, 2),
    "tiny": ("AutoencoderTiny", TINY, 4),
    "dc": ("AutoencoderDC", DC, 4),
    "dc-full": ("AutoencoderDC", DC_FULL, 4),
    "dc-attention": ("AutoencoderDC", DC_ATTENTION, 4),
}


def saved(name: str, folder: Path) -> nn.Module:
    """A network of `NETWORKS` or `CODED` with random weights, norms included, as diffusers has saved it."""
    torch.manual_seed(0)
    class_name, arguments = ("VQModel", CODED[name]) if name in CODED else NETWORKS[name][:2]
    network = getattr(diffusers, class_name)(**arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    return network


def pictures(count: int = 2, height: int = 16, width: int = 24, seed: int = 0) -> Tensor:
    """Random pictures (B, 3, H, W) in [-1, 1]."""
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1
