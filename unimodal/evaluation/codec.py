"""The codec suite: how well pictures survive the way to latents and back, on pictures of the shapes world."""

from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from data_tools.shapes.oracle import read_scene
from data_tools.shapes.render import CANVAS
from data_tools.shapes.rows import example
from unimodal.evaluation.report import Case
from unimodal.evaluation.scores import Score, average, share
from unimodal.evaluation.shapes import BATCH, psnr


@torch.inference_mode()
def judge_codec(model: Any, split: str, n: int, seed: int) -> tuple[dict[str, Score], list[Case]]:
    """codec/psnr in decibels, and codec/read: the share of pictures that the oracle still reads exactly."""
    codec = model.model.codec
    canvas = getattr(model.config, "image_size", None) or CANVAS
    device = model.model.device
    asked = [example("t2i", split, seed, i, canvas=canvas) for i in range(n)]
    decibels, cases = [], []
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        pixels = np.stack([one.row["images"][0] for one in some])
        signal = torch.from_numpy(rearrange(pixels, "b h w c -> b c h w")).to(device).float() / 127.5 - 1
        back = codec.decode(codec.encode(signal)).float().cpu().numpy()
        back = np.rint((rearrange(back, "b c h w -> b h w c") + 1) * 127.5).clip(0, 255).astype(np.uint8)
        for one, before, after in zip(some, pixels, back):
            decibels.append(psnr(np.square(before.astype(np.float64) - after).mean()))
            right = read_scene(after) == one.steps[0].scene
            tiles = ((Image.fromarray(before), "before"), (Image.fromarray(after), "after the codec"))
            cases.append(Case("codec/read", right, tiles))
    scores = {"codec/psnr": average(decibels), "codec/read": share(case.right for case in cases)}
    return scores, cases
