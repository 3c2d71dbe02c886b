"""Running sums between two lines of the log: losses over all their items, and losses by bin."""

from collections import defaultdict

import torch
from torch import Tensor

from unimodal.training.log import BINS


class Tally:
    """Sums of losses, their denominators, and sums by bin, of one rank's share of the bins."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)
        self.weights: dict[str, float] = {}
        self.rows: dict[str, int] = defaultdict(int)  # of the data, by what became of them
        self.bins: dict[str, Tensor] = {}  # (2, BINS): sums and counts

    def add(self, sums: dict[str, float], counts: dict[str, float], weights: dict[str, float]) -> None:
        """One optimizer step, summed over micro-steps and ranks."""
        self.weights = weights
        for name, value in sums.items():
            self.sums[name] += value
            self.counts[name] += counts[name]

    def add_rows(self, rows: dict[str, float]) -> None:
        """The rows that a step took, summed over micro-steps and ranks."""
        for name, count in rows.items():
            self.rows[name] += round(count)

    def add_bins(self, bins: dict[str, tuple[Tensor, Tensor]]) -> None:
        """One micro-step's losses by place; stays on the device."""
        for name, (values, places) in bins.items():
            values, places = values.detach().flatten().float(), places.detach().flatten()
            index = (places * BINS).long().clamp(0, BINS - 1)
            table = torch.zeros(2, BINS, device=values.device)
            table[0].index_add_(0, index, values)
            table[1].index_add_(0, index, torch.ones_like(values))
            self.bins[name] = self.bins[name] + table if name in self.bins else table

    def bin_lists(self) -> dict[str, list[list[float]]]:
        """The sums and counts by bin as plain numbers."""
        return {name: table.tolist() for name, table in self.bins.items()}

    def losses(self, bins: dict[str, list[list[float]]]) -> dict[str, float | list[float | None]]:
        """Mean losses by name, their weighted total, and the means of `bins` (merged over ranks)."""
        means = {n: self.sums[n] / self.counts[n] for n in sorted(self.sums) if self.counts[n]}
        entry: dict[str, float | list[float | None]] = {
            "loss": sum(self.weights[name] * mean for name, mean in means.items())
        }
        entry |= {f"loss_{name}": mean for name, mean in means.items()}
        for name, (sums, counts) in sorted(bins.items()):
            entry[f"loss_{name}_bins"] = [s / n if n else None for s, n in zip(sums, counts)]
        return entry


def merge_bins(ranks: list[dict[str, list[list[float]]]]) -> dict[str, list[list[float]]]:
    """Add up the bins of all ranks; a name may be missing in some."""
    merged: dict[str, Tensor] = {}
    for tables in ranks:
        for name, table in tables.items():
            merged[name] = merged.get(name, torch.zeros(2, BINS)) + torch.tensor(table)
    return {name: table.tolist() for name, table in merged.items()}
