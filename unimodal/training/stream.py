"""Batches from background processes, in an order that depends on nothing but the recipe.

Each worker process has its own shard of the data (worker w of n on rank r takes shard r n + w) and the
training process takes from them in turn.  A batch carries the state from which its shard goes on, so the
place in the data is the states of the batches last taken, whatever the workers have prepared meanwhile.
"""

import pickle
import sys
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from unimodal.errors import UserError
from unimodal.training.resumed import check_workers
from unimodal.training.signals import leave_signals_to_parent
from unimodal.training.trainee import Batch, Trainee


class _Shards(IterableDataset):
    """All shards of one rank; in a worker process only that worker's shard."""

    def __init__(self, trainee: Trainee, rank: int, world: int, states: list[Any], first: int) -> None:
        self.trainee, self.rank, self.world = trainee, rank, world
        self.states, self.first = states, first

    def __iter__(self) -> Iterator[tuple[int, Batch | bytes | UserError]]:
        worker = get_worker_info()
        n = len(self.states)
        # The loader asks worker 0 first, which therefore serves the shard whose turn it is.
        shard = (self.first + (worker.id if worker else 0)) % n
        try:
            for batch in self.trainee.batches(self.states[shard], self.rank * n + shard, self.world * n):
                # By value: tensors would travel as file handles, each of which the training process has to
                # fetch from a thread of the busy worker.
                yield shard, pickle.dumps(batch, pickle.HIGHEST_PROTOCOL) if worker else batch
        except UserError as error:
            yield shard, error  # raised by the loader it would reach the user as a page of tracebacks


def _start_worker(worker: int) -> None:
    leave_signals_to_parent()


class Stream:
    """Endless batches of one rank; `state` is the place right after the last one taken.

    workers  processes; 0 makes batches in the training process, in the same order as 1
    state    what `state` gave before, or None for the start
    """

    def __init__(
        self, trainee: Trainee, rank: int, world: int, workers: int, state: dict[str, Any] | None = None
    ) -> None:
        shards = max(1, workers)
        state = state or {"shards": [None] * shards, "next": 0}
        check_workers(state, workers)
        self.state = state
        self._loader = DataLoader(
            _Shards(trainee, rank, world, list(state["shards"]), state["next"]),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=_start_worker,
            # Forking shares the trainee without pickling it; elsewhere than on Linux it is unsafe.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        self._items = iter(self._loader)

    def __next__(self) -> Batch:
        shard, batch = next(self._items)
        if isinstance(batch, UserError):
            raise batch
        if isinstance(batch, bytes):
            batch = pickle.loads(batch)  # of our own worker process
        shards = list(self.state["shards"])
        shards[shard] = batch.state
        self.state = {"shards": shards, "next": (shard + 1) % len(shards)}
        return batch

    def close(self) -> None:
        """End the worker processes."""
        self._items = iter(())


def _as_it_is(item: Any) -> Any:
    return item
