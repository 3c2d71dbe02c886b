"""Every backend agrees with the naive oracle, forward and backward, on random documents."""

import numpy as np
import pytest
import torch

from tests.documents import TARGETS, random_document, tokenizer
from unimodal.attention import flash, flex, naive, sdpa
from unimodal.attention.door import attend, choose_backend, make_plan, use_backend
from unimodal.errors import UserError
from unimodal.sequence.layout import layout
from unimodal.sequence.mask import PADDING, Marks, may_look
from unimodal.sequence.pack import pack_sequences

HEADS, HEAD = 2, 16


def random_pack(seed: int, target: str, documents: int, padding: int = 5, block: int | None = None):
    rng = np.random.default_rng(seed)
    sequences = [
        layout(random_document(rng), tokenizer(), TARGETS[target], 4, block=block) for _ in range(documents)
    ]
    return pack_sequences(sequences, sum(map(len, sequences)) + padding)


def qkv(rows: int, queries: int, keys: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, HEADS, queries, HEAD), (rows, HEADS, keys, HEAD), (rows, HEADS, keys, HEAD)]
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def run(backend, tensors, q_marks, k_marks):
    """Output at real positions, and gradients of a random projection of it."""
    q, k, v = (t.detach().clone().requires_grad_() for t in tensors)
    out = backend.attend(q, k, v, backend.prepare(q_marks, k_marks))
    out = out * (q_marks.document != PADDING)[:, None, :, None]
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(9))
    return out, lambda: torch.autograd.grad((out * weight).sum(), (q, k, v))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("documents", [1, 6])
@pytest.mark.parametrize("backend", [sdpa, flash])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [None, 4], ids=["token by token", "masked"])
def test_training_packs(backend, documents, target, seed, block):
    marks = random_pack(seed, target, documents, block=block).marks
    tensors = qkv(1, marks.shape[1], marks.shape[1], seed)
    expected, expected_grad = run(naive, tensors, marks, marks)
    got, got_grad = run(backend, tensors, marks, marks)
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)
    for ours, theirs in zip(got_grad(), expected_grad()):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("target", TARGETS)
def test_flex_forward_on_cpu(target):
    marks = random_pack(1, target, 5).marks
    tensors = [t.detach() for t in qkv(1, marks.shape[1], marks.shape[1])]
    expected = naive.attend(*tensors, naive.prepare(marks, marks))
    got = flex.attend(*tensors, flex.prepare(marks, marks))
    real = marks.document[0] != PADDING
    torch.testing.assert_close(got[:, :, real], expected[:, :, real], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", [sdpa, flash])
def test_cached_queries_over_ragged_keys(backend):
    """Two rows of different length, the last 4 positions of each asking over all of its keys."""
    packs = [random_pack(seed, "hidden", 1, padding=0) for seed in (2, 3)]
    longest = max(pack.budget for pack in packs)

    def row(name, pack, fill):
        mark = getattr(pack.marks, name)
        return torch.nn.functional.pad(mark, (0, longest - mark.shape[1]), value=fill)

    keys = Marks(
        *(
            torch.cat([row(name, pack, fill) for pack in packs])
            for name, fill in (("document", PADDING), ("step", 0), ("span", 0), ("hidden", False))
        )
    )
    last = torch.tensor([[pack.budget - 4 + i for i in range(4)] for pack in packs])
    queries = keys.map(lambda mark: mark.gather(1, last))
    tensors = qkv(2, 4, longest)
    expected, _ = run(naive, tensors, queries, keys)
    got, _ = run(backend, tensors, queries, keys)
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)


def test_naive_is_softmax_over_what_the_rule_allows():
    marks = random_pack(5, "hidden", 2).marks
    q, k, v = (t.detach() for t in qkv(1, marks.shape[1], marks.shape[1]))
    out = naive.attend(q, k, v, naive.prepare(marks, marks))
    allowed = may_look(marks, marks)[0]
    for place in (0, 7, int((marks.document[0] != PADDING).sum()) - 1):
        seen = allowed[place]
        weights = ((k[0, 1, seen] @ q[0, 1, place]) / HEAD**0.5).softmax(0)
        torch.testing.assert_close(out[0, 1, place], weights @ v[0, 1, seen])


def test_grouped_queries_share_keys():
    marks = random_pack(5, "hidden", 2).marks
    count = marks.shape[1]
    q, k, v = torch.randn(1, count, 4, HEAD), torch.randn(1, count, 2, HEAD), torch.randn(1, count, 2, HEAD)
    plan = make_plan(marks)
    together = attend(q, k, v, plan)
    for head in range(4):
        alone = attend(q[:, :, [head]], k[:, :, [head // 2]], v[:, :, [head // 2]], plan)
        torch.testing.assert_close(together[:, :, [head]], alone)


@pytest.mark.parametrize("backend", [sdpa, flex, flash])
def test_kernels_share_keys_as_if_they_were_repeated(backend):
    marks = random_pack(5, "hidden", 2).marks
    count = marks.shape[1]
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, count, HEAD) for heads in (4, 2, 2))
    prepared = backend.prepare(marks, marks)
    repeated = (x.repeat_interleave(2, dim=1) for x in (k, v))
    torch.testing.assert_close(
        backend.attend(q, k, v, prepared), backend.attend(q, *repeated, prepared), atol=2e-6, rtol=1e-5
    )


@pytest.mark.parametrize(
    "steps", [[0, 1, 5, 1], [0, 1, 1, 2], [3, 0, 1, 2], [0, 1, 2, 0], [2, 3, 0, 1, 4, 5]]
)
def test_steps_in_any_order(steps):
    count = len(steps)
    zeros = torch.zeros(1, count, dtype=torch.long)
    marks = Marks(zeros, torch.tensor([steps]), zeros, zeros.bool())
    q, k, v = (t.detach() for t in qkv(1, count, count))
    expected = naive.attend(q, k, v, naive.prepare(marks, marks))
    for backend in (sdpa, flash):
        got = backend.attend(q, k, v, backend.prepare(marks, marks))
        torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)


def test_sdpa_does_no_work_between_documents():
    """The gathered batches hold far fewer pairs than the dense mask of the pack."""
    marks = random_pack(0, "hidden", 60, 0).marks
    batches = sdpa.prepare(marks, marks)
    pairs = sum(n * length * length for n, length in batches.shapes)
    assert pairs < 0.1 * marks.shape[1] ** 2


def test_choice_is_logged_and_overridable(caplog):
    choose_backend.cache_clear()
    with caplog.at_level("INFO", logger="unimodal"):
        assert choose_backend("cpu", False, True) == "sdpa"
        assert choose_backend("cuda", False, True) == "flex"
        assert choose_backend("cuda", False, False) == "sdpa"  # a cache grows: no compilation for each length
    assert "attention of packs: sdpa (" in caplog.text
    assert "attention of any length: sdpa (FlexAttention would" in caplog.text
    marks = random_pack(0, "hidden", 1).marks
    use_backend("naive")
    assert make_plan(marks).backend is naive
    use_backend("flex")
    with pytest.raises(UserError, match="no backward on CPU"):
        make_plan(marks)
    use_backend(None)
    with pytest.raises(UserError, match="did you mean 'flash'"):
        use_backend("flsh")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("backend", [flash, flex])
def test_gpu_backends(backend, target):
    marks = random_pack(3, target, 5).marks.to("cuda")
    dtype = torch.bfloat16 if backend is flash else torch.float32
    tensors = [t.detach().to("cuda", dtype) for t in qkv(1, marks.shape[1], marks.shape[1])]
    results = []
    for module in (naive, backend):
        q, k, v = (t.clone().requires_grad_() for t in tensors)
        out = module.attend(q, k, v, module.prepare(marks, marks))
        out = out * (marks.document != PADDING)[:, None, :, None]
        results.append((out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))))
    for ours, theirs in zip(results[1], results[0]):
        torch.testing.assert_close(
            ours.float(), theirs.float(), atol=3e-2 if backend is flash else 1e-3, rtol=3e-2
        )
