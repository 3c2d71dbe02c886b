"""Tiny image-text-to-text checkpoints in transformers' own format, with random weights that all matter."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer
from transformers.video_processing_utils import BaseVideoProcessor

from tests.pretrained.checkpoints import save_tokenizer

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}MARK{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NEEDS = {"smolvlm": ("torchvision", "num2words")}  # packages, by family
FAMILIES = ("llava", "idefics3", "gemma3", "qwen2_5_vl", "qwen3_vl", "smolvlm", "llava_onevision")


def make(family: str, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Save a random checkpoint of a family, processor and all."""
    save_tokenizer("chatml", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, processor = globals()[f"_{family}"](tokenizer)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for name, weight in model.named_parameters():
            centre = 1.0 if weight.dim() == 1 and "norm" in name and "bias" not in name else 0.0
            weight.normal_(centre, 0.2, generator=generator)
    model.to(dtype).eval().save_pretrained(folder)
    processor.save_pretrained(folder)


def _with_videos(kind: type, pictures: Any, tokenizer: Any, videos: str, settings: dict, **more: Any) -> Any:
    """A processor with its part for videos, which without torchvision is only written down."""
    if find_spec("torchvision"):
        return kind(pictures, tokenizer, getattr(transformers, videos)(**settings), **more)
    written = {"video_processor": type(videos, (BaseVideoProcessor,), {})(**settings).to_dict()}
    parts = {
        "get_attributes": classmethod(lambda cls: ["image_processor", "tokenizer"]),
        "to_dict": lambda self: kind.to_dict(self) | written,
    }
    return type(kind.__name__, (kind,), parts)(pictures, tokenizer, **more)


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    return TEXT | {"vocab_size": len(tokenizer)} | ids | more


def _llava(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    config = transformers.LlavaConfig(
        vision_config=VISION | {"model_type": "clip_vision_model"},
        text_config=_text(tokenizer, model_type="llama"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    pictures = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor = transformers.LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("MARK", "<image>"),
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def _idefics3(tokenizer):
    marks = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    config = transformers.Idefics3Config(
        vision_config=dict(VISION),
        text_config=_text(tokenizer, model_type="llama"),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    pictures = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    processor = transformers.Idefics3Processor(
        pictures, tokenizer, image_seq_len=4, chat_template=TEMPLATE.replace("MARK", "<image>")
    )
    return transformers.Idefics3ForConditionalGeneration(config), processor


def _gemma3(tokenizer):
    marks = {
        "boi_token": "<start_of_image>",
        "image_token": "<image_soft_token>",
        "eoi_token": "<end_of_image>",
    }
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks.values())})
    for name, mark in marks.items():
        tokenizer._set_model_specific_special_tokens({name: mark})
    config = transformers.Gemma3Config(
        vision_config=VISION | {"model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=_text(tokenizer, sliding_window=64),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids(marks["boi_token"]),
        eoi_token_index=tokenizer.convert_tokens_to_ids(marks["eoi_token"]),
        image_token_index=tokenizer.convert_tokens_to_ids(marks["image_token"]),
    )
    pictures = transformers.Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    processor = transformers.Gemma3Processor(
        pictures,
        tokenizer,
        image_seq_length=4,
        chat_template=TEMPLATE.replace("MARK", marks["boi_token"]),
    )
    return transformers.Gemma3ForConditionalGeneration(config), processor


def _qwen2_5_vl(tokenizer):
    return _qwen(
        tokenizer,
        {"mrope_section": [1, 1, 2]},
        {"window_size": 32, "fullatt_block_indexes": [1]},
        transformers.Qwen2_5_VLConfig,
        (transformers.Qwen2_5_VLProcessor, "Qwen2VLVideoProcessor"),
        transformers.Qwen2_5_VLForConditionalGeneration,
    )


def _qwen3_vl(tokenizer):
    """Features of the tower's first layer are added behind the first layer of the text (DeepStack)."""
    return _qwen(
        tokenizer,
        {"mrope_section": [2, 1, 1], "mrope_interleaved": True},
        {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        transformers.Qwen3VLConfig,
        (transformers.Qwen3VLProcessor, "Qwen3VLVideoProcessor"),
        transformers.Qwen3VLForConditionalGeneration,
    )


def _qwen(tokenizer, rope, tower, config_class, processors, model_class):
    """What the two share: marks of pictures, positions in three parts, patches merged two by two."""
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    start, end, image, video = (tokenizer.convert_tokens_to_ids(mark) for mark in marks)
    config = config_class(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 32,
            **tower,
        },
        text_config=_text(tokenizer, rope_parameters={"rope_type": "default", "rope_theta": 100.0, **rope}),
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    sizes = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    edges = {"size": {"shortest_edge": 256, "longest_edge": 4096}}
    both, videos = processors
    pictures = transformers.Qwen2VLImageProcessorPil(**sizes, **edges)
    template = TEMPLATE.replace("MARK", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = _with_videos(both, pictures, tokenizer, videos, sizes | edges, chat_template=template)
    return model_class(config), processor


def _smolvlm(tokenizer):
    marks = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", "<video>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    config = transformers.SmolVLMConfig(
        vision_config=dict(VISION),
        text_config=_text(tokenizer, model_type="llama"),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    sizes = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(**sizes, do_image_splitting=False),
        tokenizer,
        transformers.SmolVLMVideoProcessor(**sizes),
        image_seq_len=4,
        chat_template=TEMPLATE.replace("MARK", "<image>"),
    )
    return transformers.SmolVLMForConditionalGeneration(config), processor


def _llava_onevision(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<video>"]})
    config = transformers.LlavaOnevisionConfig(
        vision_config=VISION | {"model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=_text(tokenizer, model_type="qwen2"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[32, 32]],
    )
    size = {"size": {"height": 32, "width": 32}}
    pictures = transformers.LlavaOnevisionImageProcessorPil(**size, image_grid_pinpoints=[[32, 32]])
    template = TEMPLATE.replace("MARK", "<image>")
    processor = _with_videos(
        transformers.LlavaOnevisionProcessor,
        pictures,
        tokenizer,
        "LlavaOnevisionVideoProcessor",
        size,
        chat_template=template,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor
