"""Single processes and those of torchrun: rank, joining, and collective operations.

Every function also works in a single process, where nothing is communicated.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from utils import InputError, select_device

T = TypeVar("T")


def rank() -> int:
    """Number of this process among all machines' processes, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


@contextmanager
def session(device_name: str = "auto") -> Iterator[torch.device]:
    """The device of this process; under torchrun, join the process group within the with-block.

    Only the main process prints to stdout. When another process ends, this one ends too. If several
    fail, the first error is printed.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield select_device(device_name)
        return
    device = _device_of_rank(device_name, _number_from_environment("LOCAL_RANK"))
    store = _join(device)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8", errors="replace") as silence,
            redirect_stdout(sys.stdout if is_main() else silence),
        ):
            yield device
    except InputError as error:
        _leave_telling_it_to(store, error)
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        _leave_telling_it_to(store, _lost(error))
    dist.destroy_process_group()


def _join(device: torch.device) -> dist.Store:
    """Join the process group; returns a store for messages about errors."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        _number_from_environment(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, number, count = next(dist.rendezvous("env://"))
        # gloo beside NCCL: for CPU tensors, such as the stop flag.
        backends = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backends, store=store, rank=number, world_size=count)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"the processes could not connect ({reason})") from error
    return dist.PrefixStore("session", store)


def _number_from_environment(name: str) -> int:
    value = os.environ.get(name, "nothing")
    if not value.isdigit():
        raise InputError(
            f"WORLD_SIZE is set but {name} is {value}, expected a number as torchrun sets it; "
            "start with torchrun, or set RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT too"
        )
    return int(value)


def _leave_telling_it_to(store: dist.Store, error: InputError) -> None:
    """Raise the error in the process that failed first; end the others silently.

    Without torchrun, rank 0 keeps the store and may have ended, so each process raises its error.
    """
    me = str(rank())
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise error
    if store.compare_set("failed", "", me).decode() == me:
        raise error
    sys.exit(1)


def _lost(error: RuntimeError) -> InputError:
    words = re.search(r"connection \w+( by peer)?|broken pipe|timed out", str(error), re.IGNORECASE)
    reason = words[0] if words else str(error).splitlines()[0][:200]
    return InputError(
        f"process {rank()} of {world_size()} lost another one ({reason}), which was killed or says "
        "itself why it ended; run it again, train.py with --resume"
    )


def _device_of_rank(name: str, local_rank: int) -> torch.device:
    """The GPU of that number for auto or cuda on a machine with GPUs, else the named device."""
    gpus = torch.cuda.device_count()
    if name not in ("auto", "cuda") or gpus == 0:
        return select_device(name)
    if local_rank >= gpus:
        raise InputError(f"{gpus} GPUs here, too few for --nproc_per_node; start one for each GPU")
    return torch.device("cuda", local_rank)


def _is_lost_connection(error: RuntimeError) -> bool:
    words = ("connection closed", "connection reset", "broken pipe", "gloo", "nccl", "timed out")
    return isinstance(error, dist.DistError) or any(w in str(error).lower() for w in words)


class _AllReduce(torch.autograd.Function):
    """The sum over all processes; gradients reach every process."""

    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        value = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _AllReduce.apply(gradient)


def global_sum(value: Tensor) -> Tensor:
    """The sum over all processes; gradients flow through it."""
    return value if world_size() == 1 else _AllReduce.apply(value)


def largest(value: int) -> int:
    """The maximum over all processes."""
    if world_size() == 1:
        return value
    shared = torch.tensor(value)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return int(shared)


def from_main(make: Callable[[], T]) -> T:
    """Call `make` in the main process and send its result, plain data or CPU tensors, to all."""
    if world_size() == 1:
        return make()
    shared = [make() if is_main() else None]
    dist.broadcast_object_list(shared)
    return shared[0]


def gathered(value: T) -> list[T]:
    """The values of all processes in order of rank: plain data or CPU tensors."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def main_first() -> Iterator[None]:
    """The main process runs the with-block before the others do."""
    if world_size() > 1 and not is_main():
        dist.barrier()
    yield
    if world_size() > 1 and is_main():
        dist.barrier()
