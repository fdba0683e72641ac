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
        if not self.told and (hint := self._hint(waited, time.monotonic() - started)):
            print(hint)
        self.told = True

    def _hint(self, waited: float, seconds: float) -> str:
        """What to try, where as many workers as keep up are more than there are now."""
        now = self.loader.num_workers
        keeping_up = ceil(max(now, 1) * seconds / max(seconds - waited, 1e-9))
        workers = min(keeping_up, os.cpu_count() or 1)
        if waited < LONG or waited < MOST * seconds or workers <= now:
            return ""
        share = waited / seconds
        return f"{share:.0%} of the time went into loading pictures: try --workers {workers}"
