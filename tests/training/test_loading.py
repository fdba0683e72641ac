"""The hint about --workers, from real waiting."""

import time

import pytest
from torch.utils.data import DataLoader, Dataset

from training import loading
from training.loading import Loading


class Slow(Dataset):
    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 6

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return index


@pytest.mark.parametrize(("load", "train", "said"), [(0.03, 0.01, "try --workers 3"),
                                                     (0.0, 0.03, "")])  # fmt: skip
def test_slow_loading_is_told_once_with_a_number(monkeypatch, capsys, load, train, said):
    monkeypatch.setattr(loading, "LONG", 0.05)
    monkeypatch.setattr(loading.os, "cpu_count", lambda: 3)
    batches = Loading(DataLoader(Slow(load), batch_size=1))
    for _ in range(2):
        seen = []
        for batch in batches:
            time.sleep(train)
            seen += batch.tolist()
        assert seen == list(range(6))
    told = capsys.readouterr().out
    assert said in told
    assert told.count("--workers") == bool(said)
