"""Every path on every codec: it learns and draws what suits it, and says why it takes nothing else."""

import pytest
import torch

from tests.documents import tokenizer
from tests.models import tiny_model
from tests.paths.cases import CODECS, MLP_HEAD, codec_of, suits
from tests.paths.test_gauntlet import documents, lay
from unimodal.errors import UserError
from unimodal.generation.verbs import Unimodal
from unimodal.paths import PATHS
from unimodal.sequence.pack import pack_sequences

OPTIONS = {"per_token": {"path_options": MLP_HEAD}}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("path", PATHS)
def test_a_path_takes_what_suits_it(path, name):
    settings = {"path": path, **OPTIONS.get(path, {})}
    if not suits(path, name):
        with pytest.raises(UserError, match=r"codes|coarse to fine"):
            tiny_model(0, codec_of(name), **settings)
        return
    model = tiny_model(0, codec_of(name), **settings)
    losses = model(
        pack_sequences([lay(model, document) for document in documents(2, drawn=1)]),
        torch.Generator().manual_seed(0),
    )
    (losses.text + losses.image).backward()
    assert losses.image > 0 and losses.image.isfinite()
    assert all(weight.grad is not None for weight in model.path.parameters())
    drawn = Unimodal(model.eval(), tokenizer()).generate("a red circle", n=2, seed=1, steps=2, guidance=1)
    again = Unimodal(model, tokenizer()).generate("a red circle", seed=1, steps=2, guidance=1)
    side = model.config.image_size
    assert [picture.size for picture in drawn] == [(side, side)] * 2
    assert drawn[0].tobytes() == again[0].tobytes()
