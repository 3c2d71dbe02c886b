"""What this machine has: versions, device, threads, and how fast it multiplies matrices."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "unimodal", "torch", "transformers", "diffusers", "accelerate", "datasets", "tokenizers", "flash-attn",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Name -> value, to be put into a bug report.  Takes about a second: two matrix products are timed."""
    import psutil
    import torch

    from unimodal.chat.terminal import graphics_protocol
    from unimodal.training.throughput import gemm_rate

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {"python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["device"] = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {platform.machine()}"
    )
    found["threads"] = f"{torch.get_num_threads()} of {psutil.cpu_count()} processors"
    memory = psutil.virtual_memory()
    found["memory"] = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    for name, dtype in ("fp32", torch.float32), ("bf16", torch.bfloat16):
        found[f"GEMM {name}"] = f"{gemm_rate(device, dtype) / 1e9:,.1f} GFLOP/s"
    found["pictures in the terminal"] = graphics_protocol()
    return found


def env() -> None:
    """Say what this machine has, for a bug report: versions, device, speed, terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in environment().items():
        table.add_row(name, value)
    Console(highlight=False).print(table)
