"""The hint about --workers."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from training import loading
from training.loading import Loading


class Slow(Dataset):
    """Loading a picture takes so many seconds of a clock."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.clock[0] += self.seconds
        return index


@pytest.mark.parametrize(
    ("load", "train", "said"), [(15.0, 5.0, "try --workers 3"), (0.0, 15.0, "")]
)
def test_slow_loading_is_told_once_with_a_number(monkeypatch, capsys, load, train, said):
    clock = [0.0]
    monkeypatch.setattr(loading, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(loading.os, "cpu_count", lambda: 3)
    batches = Loading(DataLoader(Slow(clock, load), batch_size=1))
    for _ in range(2):
        seen = []
        for batch in batches:
            clock[0] += train
            seen.append(batch)
        assert torch.cat(seen).tolist() == list(range(6))
    told = capsys.readouterr().out
    assert said in told
    assert told.count("--workers") == bool(said)
