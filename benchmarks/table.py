"""Time jobs against each other in one run, and print a table."""

import platform
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from utils import cpu_computes_in

SAMPLE_EVERY = 0.02  # seconds between two samples of the memory


@dataclass
class Job:
    """`run()` processes `pictures` pictures; it may return its own seconds to count instead."""

    name: str
    pictures: int
    run: Callable[[], float | None]
    seconds: list[float] = field(default_factory=list)  # per picture, one of each round
    peak_bytes: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Bench:
    """Runs several rounds of all jobs in turn, so that noise affects all alike."""

    def __init__(self, device: torch.device):
        self.device = device
        self.jobs: dict[str, Job] = {}

    def add(self, name: str, pictures: int, run: Callable[[], float | None]) -> None:
        self.jobs[name] = Job(name, pictures, run)

    def run(self, rounds: int) -> None:
        """Run one round to warm up, then the rounds that are counted."""
        turns = [(number, job) for number in range(rounds + 1) for job in self.jobs.values()]
        for number, job in turns:
            with self._peak_memory(job):
                self._synchronize()
                started = time.perf_counter()
                own_seconds = job.run()
                self._synchronize()
                seconds = own_seconds or time.perf_counter() - started
            if number:
                job.seconds.append(seconds / job.pictures)
            turn = f"round {number} of {rounds}" if number else "warm-up"
            print(f"{turn}: {job.name} {seconds / job.pictures:.4f} s per picture", flush=True)

    def _synchronize(self) -> None:
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).synchronize()

    @contextmanager
    def _peak_memory(self, job: Job):
        """Record peak memory: of the GPU, else of this process and its children."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            yield
            job.peak_bytes = max(job.peak_bytes, torch.cuda.max_memory_allocated(self.device))
            return
        ended = threading.Event()
        watcher = threading.Thread(target=_watch_memory, args=(job, ended), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def table(self, limit: str, plain: dict[str, str]) -> str:
        """limit: the job that bounds the others; plain: the usual way of doing a job, by name."""
        lines = [
            "| job | s per picture | times the forward | faster than usual | peak memory |",
            "|---|---|---|---|---|",
        ]
        for job in self.jobs.values():
            usual = plain.get(job.name)
            gain = f"{self.jobs[usual].median / job.median:.2f}x" if usual else ""
            lines.append(
                f"| {job.name} | {job.median:.4f} | {job.median / self.jobs[limit].median:.3f} | "
                f"{gain} | {job.peak_bytes / 1e9:.2f} GB |"
            )
        return "\n".join(lines)


def _watch_memory(job: Job, ended: threading.Event) -> None:
    me = psutil.Process()
    has_ended = False
    while not has_ended:  # once at least, however short the job is
        has_ended = ended.wait(SAMPLE_EVERY)
        resident = 0
        for process in (me, *me.children(recursive=True)):
            try:
                resident += process.memory_info().rss
            except psutil.Error:  # it has ended
                continue
        job.peak_bytes = max(job.peak_bytes, resident)


def count_flops(function: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and attention; a multiply-add counts two.

    Attention is computed as two products meanwhile: the counter does not know all of its kernels,
    those of CPUs not at all.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large square matrix product on this device."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    c = torch.empty_like(a)
    timer = Timer(
        "torch.matmul(a, b, out=c)", globals=locals(), num_threads=torch.get_num_threads()
    )
    return 2 * side**3 / timer.timeit(5).mean


def machine(device: torch.device) -> str:
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    bfloat16 = "with" if cpu_computes_in(torch.bfloat16) else "without"
    instructions = f"{torch.backends.cpu.get_cpu_capability()} {bfloat16} bfloat16"
    return (
        f"{chip or platform.machine()} ({device}), CPU {instructions}, "
        f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}, "
        f"{time.strftime('%Y-%m-%d')}"
    )
