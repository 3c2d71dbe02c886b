"""Rows on disk for tests of training."""

import json

import numpy as np
from PIL import Image


def question_rows(folder, count=8):
    """Questions about pictures, all of one length: two packs hold the same rows whoever reads them."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        said = [
            {"role": "user", "content": "<image>which?"},
            {"role": "assistant", "content": f"it is {number}"},
        ]
        lines.append(json.dumps({"messages": said, "images": [f"{number}.png"]}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return f"data.sources=[{{path: {folder / 'rows.jsonl'}}}]"
