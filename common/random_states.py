"""The states of all random generators as plain data, for a run to continue as if never stopped."""

import random

import numpy as np
import torch


def random_states() -> dict:
    """The states of all random generators, as plain data."""
    kind, keys, *position = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *position),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def set_random_states(states: dict) -> None:
    """Restore what random_states gave; raises errors of many kinds on anything else."""
    random.setstate(states["python"])
    if not 0 <= states["numpy"][2] <= len(states["numpy"][1]):  # numpy would read beyond its keys
        raise ValueError("the position in numpy's state is out of range")
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
