"""The codec suite: distances and counts against closed forms, on shapes and on a folder of emoji."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.images.networks import DC
from unimodal.errors import UserError
from unimodal.evaluation import codec as suite
from unimodal.evaluation.codec import JudgedCodec, code_scores, judge_codec, open_codec
from unimodal.evaluation.frechet import FEATURES, features, frechet, frechet_score
from unimodal.evaluation.markdown import table
from unimodal.evaluation.run import evaluate
from unimodal.images.codec import PixelPatches
from unimodal.images.discrete import DiscreteCodec


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def test_frechet_of_known_gaussians():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((500, 3))
    shifted = one + np.array([1.0, -2.0, 0.0])
    assert frechet(one, shifted) == pytest.approx(5.0)
    assert frechet(one, one) == pytest.approx(0.0, abs=1e-9)
    scaled = (one - one.mean(0)) * 3
    centred = one - one.mean(0)
    assert frechet(centred, scaled) == pytest.approx(4 * np.trace(np.cov(one, rowvar=False)))


def test_frechet_is_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Flat(torch.nn.Module):
        num_features = 4

        def forward(self, x):
            return x.flatten(1)[:, :4]

    rng = np.random.default_rng(1)
    mixed = rng.standard_normal((4, 4))
    one, other = rng.standard_normal((60, 4)), rng.standard_normal((50, 4)) @ mixed + 0.5
    theirs = FrechetInceptionDistance(feature=Flat())
    for some, real in ((one, True), (other, False)):
        theirs.update(torch.from_numpy(some).reshape(-1, 1, 2, 2), real=real)
    assert frechet(one, other) == pytest.approx(float(theirs.compute()), rel=1e-4)


def test_features_see_blur_and_are_always_the_same():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    found = features(pictures)
    assert found.shape == (12, 64)
    assert np.array_equal(found, features(pictures))
    np.testing.assert_allclose(found[3:4], features(pictures[3:4]), rtol=1e-5, atol=1e-6)  # others beside it
    blurred = (pictures // 2 + np.roll(pictures, 1, 2) // 2).astype(np.uint8)
    score = frechet_score(found, features(blurred))
    assert score.value > 1 > frechet_score(found, features(pictures // 2 * 2)).value
    assert score.low <= score.value <= score.high and score.n == 12
    assert frechet_score(found, found).value == pytest.approx(0, abs=1e-4)


class Coded:
    """As much of a codec as counting its codes needs."""

    vocabulary, shared, stride = 8, False, 2

    def encode(self, signal):
        """Two maps of a picture: four codes, of its brightness alone; and one of them four times."""
        first = ((signal[:, 0, ::2, ::2] + 1) * 127.5).round().long().flatten(1)
        return torch.cat([first, torch.full_like(first, 5)], 1)

    class quantizer:
        @staticmethod
        def split(codes, cells):
            return list(codes.split(4, 1))


def test_use_and_perplexity_by_hand():
    bright = np.array([[0, 1, 2, 3]] * 40 + [[0, 0, 0, 0]] * 80, dtype=np.uint8).reshape(-1, 2, 2, 1)
    pictures = bright.repeat(2, 1).repeat(2, 2).repeat(3, 3)  # more than are encoded at once
    p = np.array([360, 40, 40, 40]) / 480
    scores = code_scores(Coded(), torch.device("cpu"), pictures)
    assert scores["use"].value == pytest.approx((4 / 8 + 1 / 8) / 2)
    assert scores["perplexity"].value == pytest.approx((np.exp(-(p * np.log(p)).sum()) + 1) / 2)
    assert scores["use"].n == 120
    together = code_scores(type("Shared", (Coded,), {"shared": True})(), torch.device("cpu"), pictures)
    assert together["use"].value == 5 / 8
    p = np.array([360, 40, 40, 40, 480]) / 960
    assert together["perplexity"].value == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def tiny() -> DiscreteCodec:
    torch.manual_seed(0)
    return DiscreteCodec({"_class_name": "AutoencoderDC"} | DC, {"kind": "fsq", "levels": [5, 5, 4]}).eval()


def test_scores_of_a_codec_folder_with_codes(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "COUNTED", 20)
    tiny().save(tmp_path / "codec")
    report = evaluate(tmp_path / "codec", "codec", n=6, json=tmp_path / "scores.json")
    scores, cases = report.scores, report.cases
    assert set(scores) == {
        f"codec/{name}" for name in ("psnr", "ssim", f"frechet_{FEATURES}", "use", "perplexity", "read")
    }
    assert len(cases) == 6 and not any(case.right for case in cases)  # its weights are random
    with pytest.raises(UserError, match="is a codec, which draws nothing"):
        evaluate(tmp_path / "codec", "codec", n=6, cost=True)
    assert 0 < scores["codec/use"].value <= 1 and scores["codec/use"].n == 20
    assert 1 <= scores["codec/perplexity"].value <= 100
    kept = json.loads((tmp_path / "scores.json").read_text())
    assert kept["suite"] == "codec" and kept["scores"]["codec/psnr"]["n"] == 6
    lines = table({"codec": kept}).splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == [
        f"codec/{name}" for name in ("psnr", "ssim", f"frechet_{FEATURES}", "read", "use", "perplexity")
    ]


def test_an_exact_codec_is_judged_exact_on_shapes_and_emoji(tmp_path):
    (tmp_path / "pictures").mkdir()
    rng, rows, truths = np.random.default_rng(0), [], []
    for k in range(5):
        name = f"pictures/{k}.png"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / name)
        rows.append({"messages": [{"role": "user", "content": "<image>"}], "images": [name]})
        truths.append({"kind": "vqa/name", "answer": "a"})
    for name, lines in (("val.jsonl", rows), ("val.truth.jsonl", truths)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores, _ = judge_codec(JudgedCodec("pixels", PixelPatches(8)), "val", 4, 0, tmp_path)
    assert scores["codec/read"].value == 1
    for name in ("codec", "codec_emoji"):
        assert scores[f"{name}/psnr"].value == 60
        assert scores[f"{name}/ssim"].value == pytest.approx(1)
        assert scores[f"{name}/frechet_{FEATURES}"].value == pytest.approx(0, abs=1e-4)
        assert scores[f"{name}/psnr"].n == 4
    with pytest.raises(UserError, match="val or train"):
        judge_codec(JudgedCodec("pixels", PixelPatches(8)), "unseen", 2, 0, tmp_path)


def test_shipped_codecs_are_judged_by_their_names():
    for name, kind in (("shapes-residual", "residual"), ("shapes-multi-scale", "multi_scale")):
        assert open_codec(name).codec.settings["kind"] == kind


def test_what_is_no_codec(tmp_path):
    assert open_codec("shapes-base") is None
    assert open_codec(str(tmp_path)) is None
    (tmp_path / "config.json").write_text('{"model_type": "unimodal"}')
    assert open_codec(str(tmp_path)) is None
    with pytest.raises(UserError, match="no codec to judge"):
        judge_codec(object(), "val", 2, 0)
