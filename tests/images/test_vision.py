"""Vision towers: their features are transformers', whatever checkpoint they come from."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.documents import tokenizer
from tests.images.towers import MEAN, STD, TOWERS, make_tower
from unimodal.errors import UserError
from unimodal.images.vision import FILES, load_tower
from unimodal.pretrained.checkpoint import find_checkpoint

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(3)]


def by_hand(network, pictures):
    """All that the network says of pictures of its own size."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return network(pixel_values=(pixels - mean) / std).last_hidden_state


@pytest.mark.parametrize("name", TOWERS)
def test_features_are_those_of_transformers(name, tmp_path):
    network = make_tower(name, tmp_path)
    tower = load_tower(tmp_path)
    assert (tower.grid, tower.width) == ((4, 4), 16)
    expected = by_hand(network, PICTURES)
    before = {"siglip": 0, "clip": 1, "dinov2": 1, "registers": 4}[name]
    assert expected.shape[1] == before + 16
    found = tower(PICTURES)
    assert [features.shape for features in found] == [(16, 16)] * 3
    torch.testing.assert_close(torch.stack(found), expected[:, before:], rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize("name", ["siglip", "clip"])
def test_of_a_whole_checkpoint_the_half_that_sees_is_taken(name, tmp_path):
    network = make_tower(name, tmp_path, whole=True)
    expected = by_hand(network, PICTURES)[:, -16:]
    torch.testing.assert_close(torch.stack(load_tower(tmp_path)(PICTURES)), expected, rtol=1e-4, atol=1e-4)


def test_pictures_of_any_size_are_scaled_to_its_square(tmp_path):
    """Close to Pillow's scaling, with which the processors of transformers go."""
    make_tower("siglip", tmp_path)
    tower = load_tower(tmp_path)
    smooth = np.kron(RNG.integers(0, 256, (3, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    scaled = np.asarray(Image.fromarray(smooth).resize((16, 16), Image.Resampling.BICUBIC))
    (found,), (expected,) = tower([smooth]), tower([scaled])
    assert (found - expected).abs().mean() < 0.05 * expected.std()


@pytest.mark.parametrize(("name", "kind"), [("siglip", "Siglip"), ("clip", "CLIP")])
def test_a_processor_that_was_saved_with_its_tokenizer(name, kind, tmp_path):
    """By transformers itself: then there is a processor_config.json, and no preprocessor_config.json."""
    make_tower(name, tmp_path, whole=True)
    expected = load_tower(tmp_path)(PICTURES)
    (tmp_path / "preprocessor_config.json").unlink()
    size = {"height": 16, "width": 16}
    images = getattr(transformers, f"{kind}ImageProcessor")(
        size=size, crop_size=size, image_mean=MEAN, image_std=STD
    )
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend)
    getattr(transformers, f"{kind}Processor")(images, words).save_pretrained(tmp_path)
    assert (tmp_path / "processor_config.json").is_file()
    assert not (tmp_path / "preprocessor_config.json").exists()
    assert all(torch.equal(a, b) for a, b in zip(load_tower(tmp_path)(PICTURES), expected))
    file = tmp_path / "processor_config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"image_processor": said["image_processor"] | {"image_std": None}}))
    with pytest.raises(UserError, match=r"processor_config\.json: .*expected three numbers"):
        load_tower(tmp_path)
    file.write_text(json.dumps({"processor_class": "SiglipProcessor"}))
    with pytest.raises(UserError, match=r"no preprocessor_config\.json: it, or image_processor in proc"):
        load_tower(tmp_path)


def test_either_file_is_fetched(tmp_path, monkeypatch):
    asked = []

    def fetch(name, *, allow_patterns, **options):
        asked.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert find_checkpoint("owner/name", "vision tower", FILES) == tmp_path
    assert {"preprocessor_config.json", "processor_config.json"} <= set(asked)


def test_saved_and_loaded_again_it_is_the_same_and_stays_frozen(tmp_path):
    make_tower("dinov2", tmp_path / "theirs")
    tower = load_tower(tmp_path / "theirs")
    tower.save(tmp_path / "ours")
    again = load_tower(tmp_path / "ours")
    assert all(torch.equal(a, b) for a, b in zip(tower(PICTURES), again(PICTURES)))
    assert not any(p.requires_grad for p in again.parameters())
    assert not again.train().training
    assert not any(module.training for module in again.modules())


def test_what_is_no_tower_or_not_whole_is_told(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_tower(tmp_path)
    make_tower("siglip", tmp_path)
    processor, config = tmp_path / "preprocessor_config.json", tmp_path / "config.json"
    good = {file: file.read_text() for file in (processor, config)}

    def told(file, words, **changes):
        file.write_text(json.dumps(json.loads(good[file]) | changes))
        with pytest.raises(UserError, match=words):
            load_tower(tmp_path)
        file.write_text(good[file])

    told(config, r"'siglp' is no vision tower.*did you mean 'siglip'", model_type="siglp")
    told(processor, "expected three numbers", image_mean=[0.5])
    told(processor, "32 pixels do not fit a tower for 16", crop_size=32)
    processor.unlink()
    with pytest.raises(UserError, match="how the tower's pictures are scaled"):
        load_tower(tmp_path)
    processor.write_text(good[processor])
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if name.endswith("q_proj.weight"))
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"not whole: .*q_proj\.weight"):
        load_tower(tmp_path)
