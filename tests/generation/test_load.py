"""Loading in half precision: the decoder's weights alone become narrow, and every verb still works."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import unimodal
from tests.adapters.make import adapter_folder, base_folder
from tests.documents import tokenizer
from tests.external.make import save_beside_reader
from tests.paths.cases import CASES
from unimodal.cli import app
from unimodal.errors import UserError
from unimodal.model.folder import save_model

LARGE = ("embed_tokens.", "decoder.", "text_mask")
SOME = [
    "flow, shown the picture before",
    "next_token on residuals, strayed",
    "next_scale, experts",
    "masked, text as well",
    "per_token, raster",
]


@pytest.mark.parametrize("name", SOME)
def test_every_path_draws_reads_and_writes_in_half_precision(tmp_path, name):
    save_model(tmp_path, CASES[name].model(), tokenizer())
    whole, half = unimodal.load(tmp_path, "cpu"), unimodal.load(tmp_path, "cpu", dtype="bf16")
    rounded = {key: value.bfloat16() for key, value in whole.model.state_dict().items()}
    for key, value in half.model.state_dict().items():
        large = key.startswith(LARGE)
        assert value.dtype == (torch.bfloat16 if large else whole.model.state_dict()[key].dtype), key
        assert not large or torch.equal(value, rounded[key]), key
    first = whole.generate("a red circle", seed=3)[0]
    for prompt, asked in (("a red circle", None), ("make it green", first)):
        pictures = [
            np.asarray(m.edit(asked, prompt)[0] if asked else m.generate(prompt, seed=3)[0]).astype(int)
            for m in (whole, half)
        ]
        # Of 255; other noise gives some 50, and a code that is chosen otherwise a part of that.
        assert np.abs(pictures[0] - pictures[1]).mean() < 25
    assert isinstance(half.answer(first, "how many?", max_tokens=3), str)


def test_dtypes_are_words_or_torchs_and_wrong_ones_are_told(tmp_path):
    base = base_folder(tmp_path / "base")
    for dtype in ("float16", torch.float16):
        assert unimodal.load(base, "cpu", dtype=dtype).model.embed_tokens.weight.dtype == torch.float16
    assert unimodal.load(base, "cpu").model.embed_tokens.weight.dtype == torch.float32
    with pytest.raises(UserError, match="dtype 'float8' is not known"):
        unimodal.load(base, dtype="float8")
    with pytest.raises(UserError, match="device 'gpu' is not here"):
        unimodal.load(base, "gpu")
    save_beside_reader(tmp_path)
    with pytest.raises(UserError, match="computes in float32; load it without dtype"):
        unimodal.load(tmp_path / "model", dtype="bf16")


def test_an_adapter_in_half_precision_is_that_of_its_numbers(tmp_path):
    base = base_folder(tmp_path / "base")
    folder = adapter_folder(tmp_path / "it", base, modules_to_save=["path.head"])
    whole, half = (unimodal.load(base, "cpu", folder, dtype) for dtype in (None, "bf16"))
    drawn = [np.asarray(m.generate("a red circle", seed=1)[0]).astype(int) for m in (whole, half)]
    without = np.asarray(unimodal.load(base, "cpu").generate("a red circle", seed=1)[0]).astype(int)
    assert np.abs(drawn[0] - drawn[1]).mean() < 0.2 * np.abs(drawn[0] - without).mean()


@pytest.mark.parametrize(
    "verb",
    [["generate", "a"], ["complete", "a"], ["chat", "-p", "a"], ["edit", "x.png", "a"], ["eval", "base"]],
)
def test_every_verb_takes_both(monkeypatch, tmp_path, verb):
    """The word goes to where models are loaded, which knows no such type."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("x.png")
    base_folder(tmp_path / "base")
    model = [] if verb[0] in ("chat", "eval") else ["--model", "base"]
    verb = [*verb, "base"] if verb[0] == "chat" else verb
    for option, told in (("--dtype", "dtype 'it' is not known"), ("--device", "device 'it' is not here")):
        with pytest.raises(UserError, match=told):
            CliRunner().invoke(app, [*verb, *model, option, "it"], catch_exceptions=False)


def test_a_codec_is_judged_on_a_device_and_in_its_own_type(tmp_path):
    from unimodal.evaluation.run import evaluate
    from unimodal.images.codec import PixelPatches

    PixelPatches(4).save(tmp_path)
    with pytest.raises(UserError, match="is a codec, which computes in float32"):
        evaluate(str(tmp_path), "codec", n=1, dtype="bf16")
    with pytest.raises(UserError, match="device 'gpu' is not here"):
        evaluate(str(tmp_path), "codec", n=1, device="gpu")
