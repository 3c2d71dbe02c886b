"""Every quantizer against a brute-force or hand-made oracle, its gradients, and its codebook's life."""

import math

import pytest
import torch
from torch.nn import functional as F

from unimodal.errors import UserError
from unimodal.images.quantizers import QUANTIZERS, build_quantizer, complete

CHANNELS, CELLS = 6, (4, 6)
KINDS = {
    "vq": {"kind": "vq", "codes": 16},
    "vq-cosine": {"kind": "vq", "codes": 16, "cosine": True},
    "fsq": {"kind": "fsq", "levels": [5, 4, 3, 3, 3, 3]},
    "fsq-projected": {"kind": "fsq", "levels": [5, 5, 4]},
    "lfq": {"kind": "lfq", "bits": 6},
    "lfq-projected": {"kind": "lfq", "bits": 4},
    "residual": {"kind": "residual", "codes": 16, "depth": 3},
    "grouped": {"kind": "grouped", "codes": 16, "groups": 3},
    "multi_scale": {"kind": "multi_scale", "codes": 16, "scales": [1, 2, 4]},
    "multi_scale-again": {"kind": "multi_scale", "codes": 16, "scales": [1, 2, 2, 4, 4]},
}
WITH_BOOKS = [name for name in KINDS if name.split("-")[0] not in ("fsq", "lfq")]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def latents(count: int = 4, seed: int = 0, cells=CELLS) -> torch.Tensor:
    return torch.randn(count, CHANNELS, *cells, generator=torch.Generator().manual_seed(seed))


def fitted(name: str, **changes):
    """A quantizer that has seen a few batches, so that its codebooks lie among the latents."""
    torch.manual_seed(1)
    quantizer = build_quantizer(KINDS[name] | changes, CHANNELS)
    with torch.no_grad():
        for seed in range(5):
            quantizer(latents(16, 100 + seed))
    return quantizer


def books(quantizer) -> list:
    """The library's codebooks, each with `embed` (1, K, d)."""
    return [module for module in quantizer.books.modules() if hasattr(module, "cluster_size")]


def nearest(vector: torch.Tensor, entries: torch.Tensor) -> int:
    """By the definition, one distance at a time, in double precision."""
    distances = [float((vector - entry).detach().double().square().sum()) for entry in entries]
    return distances.index(min(distances))


# ---- oracles ------------------------------------------------------------------------------------


def test_vq_takes_the_nearest_entry():
    quantizer, x = fitted("vq"), latents(2)
    entries = books(quantizer)[0].embed[0]
    codes = quantizer.codes(x)
    expected = [[nearest(v, entries) for v in picture.flatten(1).T] for picture in x]
    assert codes.tolist() == expected
    back = quantizer.latents(codes, CELLS)
    assert torch.equal(back[1, :, 2, 3], entries[codes[1, 2 * CELLS[1] + 3]])


def test_cosine_takes_the_nearest_direction():
    quantizer, x = fitted("vq-cosine"), latents(2)
    entries = books(quantizer)[0].embed[0]
    torch.testing.assert_close(entries.norm(dim=1), torch.ones(16))
    expected = [
        [int(torch.stack([v @ e / v.norm() for e in entries]).argmax()) for v in picture.flatten(1).T]
        for picture in x
    ]
    assert quantizer.codes(x).tolist() == expected
    assert torch.equal(quantizer.codes(3 * x), quantizer.codes(x))


def test_fsq_grid_by_hand():
    quantizer = build_quantizer({"kind": "fsq", "levels": [3, 4]}, 2)
    assert quantizer.vocabulary == 12
    # Three levels lie at -1, 0, 1; four at -1, -1/2, 0, 1/2.  Saturated and zero inputs must land on them.
    x = torch.tensor([[-9.0, -9.0], [0.0, 0.0], [9.0, 9.0], [9.0, -9.0]]).T[None, :, None]  # (1, 2, 1, 4)
    codes = quantizer.codes(x)
    values = torch.tensor([[-1, -1], [0, 0], [1, 0.5], [1, -1]], dtype=torch.float32)
    places = [0 + 3 * 0, 1 + 3 * 2, 2 + 3 * 3, 2 + 3 * 0]  # the first channel counts in ones
    assert codes.tolist() == [places]
    torch.testing.assert_close(quantizer.latents(codes, (1, 4))[0, :, 0].T, values)
    everything = quantizer.latents(torch.arange(12)[None], (1, 12))[0, :, 0].T
    assert len(set(map(tuple, everything.tolist()))) == 12


def test_fsq_holds_the_scale_of_its_latents():
    quantizer, x = build_quantizer(KINDS["fsq"], CHANNELS), latents(64)
    unit = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), unbiased=False, keepdim=True)
    assert quantizer(unit).terms["latents"] < 1e-5
    grown = quantizer(3 * unit + 2).terms["latents"]  # KL of N(2, 9) from N(0, 1)
    assert float(grown) == pytest.approx(0.5 * (4 + 9 - 1 - math.log(9)), rel=1e-4)


def test_fsq_holds_the_scale_of_what_is_rounded():
    """A layer before the rounding may not grow what the latents may not."""
    quantizer, x = build_quantizer(KINDS["fsq-projected"], CHANNELS), latents(64)
    before = quantizer(x).terms["latents"]
    with torch.no_grad():
        quantizer.books.project_in.weight.mul_(50)
    grown = quantizer(x).terms["latents"]
    assert grown > 100 + before
    grown.backward()
    assert quantizer.books.project_in.weight.grad.abs().sum() > 0


def test_lfq_is_the_signs_in_binary():
    quantizer, x = build_quantizer(KINDS["lfq"], CHANNELS), latents(2)
    codes = quantizer.codes(x)
    bits = (x > 0).flatten(2).int()  # (B, 6, n)
    expected = sum(bits[:, k] * 2 ** (5 - k) for k in range(6))
    assert torch.equal(codes, expected.long())
    torch.testing.assert_close(quantizer.latents(codes, CELLS), torch.where(x > 0, 1.0, -1.0))


def test_lfq_entropies_by_hand():
    quantizer = build_quantizer({"kind": "lfq", "bits": 2}, 2)
    sure = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).T[None, :, None]
    found = quantizer(sure).terms
    assert found["sample_entropy"] < 1e-3  # every latent sits on its code
    assert found["evenness"].abs() < 1e-3  # and all four codes are used alike
    assert found["commitment"] == 0
    one_sided = quantizer(torch.ones(1, 2, 2, 2)).terms
    assert one_sided["evenness"] == pytest.approx(math.log(4), abs=1e-3)
    undecided = quantizer(torch.zeros(1, 2, 2, 2)).terms
    assert undecided["sample_entropy"] == pytest.approx(math.log(4), abs=1e-3)


def test_residuals_are_what_was_left_over_and_their_sum_is_decoded():
    quantizer, x = fitted("residual"), latents(2)
    codes = quantizer.codes(x)
    assert codes.shape == (2, 3 * 24)
    entries = [book.embed[0] for book in books(quantizer)]
    assert len(entries) == 3
    total = quantizer.latents(codes, CELLS)
    for b in range(2):
        for n in range(24):
            left, added = x[b].flatten(1)[:, n], 0
            for depth in range(3):
                choice = nearest(left, entries[depth])
                assert codes[b, depth * 24 + n] == choice
                left, added = left - entries[depth][choice], added + entries[depth][choice]
            torch.testing.assert_close(total[b].flatten(1)[:, n], added)
    one = quantizer.latents(codes[:, :24], CELLS)
    assert (x - total).square().mean() < (x - one).square().mean()  # depth pays


def test_groups_have_channels_of_their_own():
    quantizer, x = fitted("grouped"), latents(2)
    codes = quantizer.codes(x)
    back = quantizer.latents(codes, CELLS)
    for group, book in enumerate(books(quantizer)):
        part = x[:, 2 * group : 2 * group + 2]
        expected = [[nearest(v, book.embed[0]) for v in picture.flatten(1).T] for picture in part]
        mine = codes[:, 24 * group : 24 * (group + 1)]
        assert mine.tolist() == expected
        vectors = book.embed[0][mine].transpose(1, 2).reshape(2, 2, *CELLS)
        assert torch.equal(back[:, 2 * group : 2 * group + 2], vectors)


def test_multi_scale_by_the_algorithm():
    """Tian et al. 2024, algorithms 1 and 2, on a picture that is not square."""
    quantizer, x = fitted("multi_scale"), latents(2)
    entries, cells = books(quantizer)[0].embed[0], CELLS
    assert quantizer.maps(cells) == [(1, 2), (2, 3), (4, 6)]
    codes = quantizer.codes(x)
    left, total, expected = x, torch.zeros_like(x), []
    for scale, size in enumerate([(1, 2), (2, 3), (4, 6)]):
        small = F.interpolate(left, size, mode="area")
        chosen = torch.tensor([[nearest(v, entries) for v in picture.flatten(1).T] for picture in small])
        up = F.interpolate(
            entries[chosen].transpose(1, 2).reshape(2, CHANNELS, *size), cells, mode="bilinear"
        )
        conv = quantizer.smooth[scale]
        part = 0.5 * up + 0.5 * F.conv2d(up, conv.weight, conv.bias, padding=1)
        left, total = left - part, total + part
        expected.append(chosen)
    assert torch.equal(codes, torch.cat(expected, 1))
    torch.testing.assert_close(quantizer.latents(codes, cells), total)


@pytest.mark.parametrize("name", KINDS)
def test_entries_are_what_codes_stand_for(name):
    """Each is what a map filled with its code adds; where maps are smoothed, what is nearest is chosen."""
    quantizer, x = fitted(name), latents(2)
    entries = quantizer.entries()
    assert entries.shape == (1 if quantizer.shared else len(quantizer.shares), quantizer.vocabulary, CHANNELS)
    if name.startswith("multi_scale"):
        coarse = F.interpolate(x, quantizer.maps(CELLS)[0], mode="area")
        expected = [[nearest(v, entries[0]) for v in picture.flatten(1).T] for picture in coarse]
        assert quantizer.split(quantizer.codes(x), CELLS)[0].tolist() == expected
        return
    for number, book in enumerate(entries):
        for code in (0, quantizer.vocabulary - 1):
            filled = quantizer.term(number, torch.full((1, CELLS[0] * CELLS[1]), code), CELLS)
            torch.testing.assert_close(filled[0], book[code][:, None, None].expand_as(filled[0]))


def test_multi_scale_on_a_square_is_that_of_the_library():
    from vector_quantize_pytorch import HierarchicalVQ

    ours = fitted("multi_scale")
    theirs = HierarchicalVQ(
        dim=CHANNELS,
        codebook_size=16,
        scales=(1, 2, 4),
        share_quant_resi=0,
        quant_resi=0.5,
        kmeans_init=False,
        accept_image_fmap=True,
    ).eval()
    theirs.vq._codebook.embed.copy_(books(ours)[0].embed)
    for a, b in zip(theirs.phi_levels, ours.smooth, strict=True):
        a.conv.load_state_dict(b.state_dict())
    x = latents(3, cells=(4, 4))
    with torch.no_grad():
        total, indices, _ = theirs(x)
        codes = ours.codes(x)
        assert torch.equal(codes, torch.cat([i.flatten(1) for i in indices], 1))
        torch.testing.assert_close(ours.latents(codes, (4, 4)), total)


# ---- one gauntlet -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_learning_gives_the_codes_and_latents_of_use(name):
    quantizer, x = fitted(name), latents()
    codes = quantizer.codes(x)
    used = quantizer.latents(codes, CELLS)
    assert codes.dtype == torch.int64 and codes.min() >= 0 and codes.max() < quantizer.vocabulary
    assert codes.shape == (4, sum(h * w for h, w in quantizer.maps(CELLS)))
    learned = quantizer(x)
    assert torch.equal(learned.codes, codes)
    torch.testing.assert_close(learned.latents, used, atol=1e-5, rtol=1e-5)
    assert learned.terms.keys() == set(quantizer.terms)


@pytest.mark.parametrize("name", KINDS)
def test_gradient_reaches_the_latents(name):
    quantizer, x, pull = fitted(name), latents().requires_grad_(), latents(seed=7)
    (quantizer(x).latents * pull).sum().backward()
    if name in ("vq", "lfq", "residual", "grouped", "multi_scale"):
        torch.testing.assert_close(x.grad, pull)  # as if nothing had been done, once
    assert x.grad.isfinite().all() and (x.grad != 0).float().mean() > 0.9
    for parameter in quantizer.parameters():
        assert parameter.grad is not None


@pytest.mark.parametrize("name", WITH_BOOKS)
def test_commitment_pulls_latents_to_their_codes(name):
    quantizer, x = fitted(name), latents().requires_grad_()
    before = quantizer(x).terms["commitment"]
    (grad,) = torch.autograd.grad(before, x)
    with torch.no_grad():
        assert quantizer(x - 20 * grad).terms["commitment"] < before


@pytest.mark.parametrize("name", KINDS)
def test_nothing_but_learning_moves_a_codebook(name):
    quantizer = fitted(name).train()
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    for seed in range(3):
        quantizer.latents(quantizer.codes(latents(seed=seed)), CELLS)
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())
    if name in WITH_BOOKS:
        quantizer.eval()(latents())  # learning is asked for by the call, not by the mode
        assert any(not torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


@pytest.mark.parametrize("name", WITH_BOOKS)
def test_dead_entries_come_back(name):
    used = {}
    for reset in (0.1, 0):
        quantizer = fitted(name, reset=reset, decay=0.8)
        for book in books(quantizer):
            far = 1e3 * torch.ones(15, book.embed.shape[2])
            book.embed[0, 1:] = F.normalize(-far, dim=1) if name == "vq-cosine" else far
            book.embed_avg[0] = book.embed[0] * book.cluster_size[0, :, None]
        with torch.no_grad():
            for seed in range(40):
                quantizer(latents(4, seed))
            codes = quantizer.codes(latents(64, 999))
            parts = [codes] if quantizer.shared else quantizer.split(codes, CELLS)
        used[reset] = min(len(part.unique()) for part in parts)
    assert used[0.1] >= 12
    assert used[0] <= 2 or name == "vq-cosine"  # among directions nothing is far away


@pytest.mark.parametrize("name", WITH_BOOKS)
@torch.no_grad()
def test_the_first_batch_places_the_codebooks(name):
    quantizer, x = build_quantizer(KINDS[name], CHANNELS), latents(16)
    quantizer.codes(x)
    assert not quantizer.fitted  # looking is not learning
    before = (quantizer.latents(quantizer.codes(x), CELLS) - x).square().mean()
    quantizer(x)
    assert quantizer.fitted
    if name != "vq-cosine":  # whose latents have length 1
        assert (quantizer.latents(quantizer.codes(x), CELLS) - x).square().mean() < 0.8 * before


@torch.no_grad()
def test_scales_move_the_codebook_once_a_batch_and_together():
    quantizer = fitted("multi_scale", reset=0, decay=0.9)
    book, x = books(quantizer)[0], latents(4)
    sizes, sums, codes = book.cluster_size.clone(), book.embed_avg.clone(), quantizer.codes(x)
    left, added = x, torch.zeros_like(sums[0])
    for number, said in enumerate(quantizer.split(codes, CELLS)):  # the latents that choose, scale by scale
        rows = F.adaptive_avg_pool2d(left, quantizer.maps(CELLS)[number]).permute(0, 2, 3, 1).flatten(0, 2)
        added.index_add_(0, said.flatten(), rows)
        left = left - quantizer.term(number, said, CELLS)
    quantizer(x)
    counts = torch.bincount(codes.flatten(), minlength=16)
    assert counts.sum() == 4 * (2 + 6 + 24)
    torch.testing.assert_close(book.cluster_size[0], 0.9 * sizes[0] + 0.1 * counts)
    torch.testing.assert_close(book.embed_avg[0], 0.9 * sums[0] + 0.1 * added)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_distances_are_in_float32_under_autocast(name):
    quantizer, x = fitted(name), latents()
    codes = quantizer.codes(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.codes(x), codes)
        assert quantizer(x).latents.dtype == torch.float32


def test_codes_end_where_a_map_ends():
    quantizer = fitted("multi_scale")
    codes = quantizer.codes(latents())
    assert [part.shape[1] for part in quantizer.split(codes, CELLS)] == [2, 6, 24]
    assert [part.shape[1] for part in quantizer.split(codes[:, :8], CELLS)] == [2, 6]
    with pytest.raises(ValueError, match=r"9 codes do not fill maps of \[2, 6, 24\]"):
        quantizer.latents(codes[:, :9], CELLS)


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "vqq"}, r"'vqq' \(did you mean 'vq'\?\); known are vq, fsq"),
        ({}, "kind is None"),
        ({"kind": "vq"}, "vq needs codes"),
        ({"kind": "vq", "codez": 8}, r"no argument 'codez' \(did you mean 'codes'"),
        ({"kind": "vq", "codes": 1}, "codes = 1; expected a whole number from 2"),
        ({"kind": "vq", "codes": "many"}, "codes = 'many'"),
        ({"kind": "vq", "codes": 8, "decay": 1.0}, "decay = 1.0"),
        ({"kind": "vq", "codes": 8, "reset": -1}, "reset = -1"),
        ({"kind": "fsq", "levels": [8, 2]}, "3 or more"),
        ({"kind": "fsq", "levels": 8}, "levels = 8"),
        ({"kind": "fsq", "levels": [64, 64, 64]}, "at most 65536"),
        ({"kind": "lfq", "bits": 20}, "from 1 to 16"),
        ({"kind": "residual", "codes": 8, "depth": 0}, "depth = 0"),
        ({"kind": "grouped", "codes": 8, "groups": 4}, "groups = 4 do not share out 6"),
        ({"kind": "multi_scale", "codes": 8, "scales": [2, 1]}, "numbers that never fall"),
    ],
)
def test_nonsense_is_a_sentence(config, message):
    with pytest.raises(UserError, match=message):
        build_quantizer(config, CHANNELS)


def test_every_kind_is_tried_and_completed():
    assert {config["kind"] for config in KINDS.values()} == set(QUANTIZERS)
    assert complete({"kind": "vq", "codes": 8}) == {
        "kind": "vq",
        "codes": 8,
        "decay": 0.95,
        "reset": 0.02,
        "cosine": False,
    }
