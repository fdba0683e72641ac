"""Whether loading pictures holds a training run up, from how long it waits for them."""

import os
import time
from collections.abc import Iterator
from itertools import islice
from math import ceil

from torch.utils.data import DataLoader

LONG = 10.0  # seconds of waiting that are worth a word
MOST = 0.3  # of an epoch's time


class Loading:
    """The batches of a loader; its first whole pass tells if most of the time went into waiting."""

    def __init__(self, loader: DataLoader):
        self.loader, self.told = loader, False

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        batches, waited = iter(self.loader), 0.0
        yield from islice(batches, 1)  # for which the workers start
        started = asked = time.monotonic()
        for batch in batches:
            waited += time.monotonic() - asked
            yield batch
            asked = time.monotonic()
        seconds, now = time.monotonic() - started, self.loader.num_workers
        workers = min(
            ceil(max(now, 1) * seconds / max(seconds - waited, 1e-9)), os.cpu_count() or 1
        )
        if waited > max(LONG, MOST * seconds) and workers > now and not self.told:
            share = waited / seconds
            print(f"{share:.0%} of the time went into loading pictures: try --workers {workers}")
        self.told = True
