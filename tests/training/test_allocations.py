"""What memory is bounded by: in a process of its own, since oneDNN reads its setting once."""

import os
import subprocess
import sys

import pytest
import torch

# Twice the 128 shapes that two caches of 64 hold; a line of the log says of each whether it was at hand.
SHAPES = """
import torch
from unimodal.training.allocations import bound_primitives
bound_primitives()
weight = torch.randn(64, 64, dtype=torch.bfloat16)
for _ in range(2):
    for rows in range(1, 129):
        torch.nn.functional.linear(torch.randn(rows, 64, dtype=torch.bfloat16), weight)
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize(("asked", "again"), [(None, True), ("1024", False)])
def test_few_prepared_products_are_kept_unless_the_environment_says_more(asked, again):
    environment = os.environ | {"ONEDNN_VERBOSE": "2", "OMP_NUM_THREADS": "1"}
    environment.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)
    environment |= {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": asked} if asked else {}
    told = subprocess.run(
        [sys.executable, "-c", SHAPES], env=environment, capture_output=True, text=True, check=True
    )
    if "cache_miss" not in told.stdout:
        pytest.skip("products of bfloat16 are not oneDNN's on this machine")
    # The second round prepares all anew, or none: what a product needs inside may be prepared too.
    assert (told.stdout.count("cache_miss") > 200) == again
