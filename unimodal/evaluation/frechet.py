"""A Frechet distance between sets of pictures, on features that need no trained network and no download.

FID (Heusel et al. 2017) compares mean and covariance of Inception features.  Here the features are those of
convolutions drawn once from a fixed seed, each map averaged over the picture: they see colours, edges and
texture at three sizes and know nothing of any codec or data set.  Values therefore compare codecs with each
other, never with published FIDs, and the name of the features goes with every one of them.
"""

from functools import cache

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import conv2d, relu

from unimodal.evaluation.scores import Score

FEATURES = "random-conv-64"
LAYERS = ((3, 16, 1), (16, 24, 2), (24, 24, 2))  # channels in and out, stride
ROUNDS = 200  # of the bootstrap


@cache
def _weights() -> list[Tensor]:
    """3x3 kernels that keep the variance (He et al. 2015), from NumPy's PCG64 at seed 0."""
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal((out, into, 3, 3)) * np.sqrt(2 / (9 * into)) for into, out, _ in LAYERS]
    return [torch.from_numpy(kernel).float() for kernel in drawn]


def features(pictures: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) -> float64 (B, 64)."""
    x = rearrange(torch.from_numpy(pictures).float() / 127.5 - 1, "b h w c -> b c h w")
    means = []
    for kernel, (_, _, stride) in zip(_weights(), LAYERS):
        x = relu(conv2d(x, kernel, stride=stride, padding=1))
        means.append(x.mean((2, 3)))
    return torch.cat(means, 1).double().numpy()


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Distance of the Gaussians with the moments of two sets of features (n, F) (Dowson and Landau 1982).

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)
    """
    means = one.mean(0) - other.mean(0)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    # Rounding may leave a little less than nothing.
    return max(0.0, float(means @ means + np.trace(first) + np.trace(second) - 2 * cross))


def frechet_score(before: np.ndarray, after: np.ndarray) -> Score:
    """Distance of the features (n, F) of pictures from those of their reconstructions, paired.

    In units of each feature's own deviation over the originals; the interval is by bootstrap over the pairs
    (fixed seed).  At least two pictures.
    """
    scale = before.std(0)
    scale[scale < 1e-8] = 1.0
    before, after = before / scale, after / scale
    n = len(before)
    drawn = np.random.default_rng(0).integers(0, n, (ROUNDS, n))
    low, high = np.percentile([frechet(before[some], after[some]) for some in drawn], (2.5, 97.5))
    value = frechet(before, after)
    return Score(value, min(float(low), value), max(float(high), value), n)
