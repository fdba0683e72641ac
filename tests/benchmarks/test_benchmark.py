"""The benchmark: its arithmetic by hand, and that both loops do the same work."""

import json

import pytest
import torch
from helpers.models import tiny_spec

import benchmarks.__main__ as benchmark
from benchmarks import jobs
from benchmarks.table import Bench, count_flops, matrix_rate
from benchmarks.usual_loop import PlainHead, plain_epoch
from data.augment import build_augment
from data.transforms import Resize
from datasets import SegmentationDataset
from engine import EpochTotals, train_one_epoch
from losses import Criterion
from model import build_model
from training.optimizers import ScheduledOptimizer

CPU = torch.device("cpu")
TINY = "--backbone dinov2_vitt14 --imgsz 56 --pictures 3 --batch 2 --rounds 1 --workers 0".split()


def test_the_usual_loop_and_ours_do_the_same_work(data):
    """Same weights after an epoch, same confusion matrix: what is timed is comparable."""
    resize = Resize((56, 70))
    augment = build_augment("none", resize, 0)
    dataset = SegmentationDataset(data.splits.train, data.encoding, resize, augment)
    items = [dataset[i] for i in range(4)]
    images, targets = (torch.stack(parts) for parts in zip(*items, strict=True))
    batches = [(images[:2], targets[:2]), (images[2:], targets[2:])]

    model = build_model(tiny_spec())
    usual = PlainHead(4 * 192, 2, resize.image_size)
    usual.load_state_dict(model.head.state_dict())
    matrix = plain_epoch(model, usual, torch.optim.SGD(usual.parameters(), 0.1), batches, CPU)
    totals = EpochTotals(2)
    optimizer = ScheduledOptimizer(torch.optim.SGD(model.head.parameters(), 0.1))
    train_one_epoch(model, batches, Criterion(model.upsample), optimizer, totals)
    for name, value in usual.state_dict().items():
        torch.testing.assert_close(model.head.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    # But for pixels on the border of two classes.
    assert abs(totals.matrix.matrix.numpy() - matrix).max() <= 2


@pytest.fixture
def timed():
    """A benchmark whose jobs took 1, 2, 3, ... seconds per picture."""
    bench = Bench(CPU)
    names = [
        "backbone forward", "train step, usual", "train step", "head step, usual", "head step",
        "features", "cached train step", "evaluation, usual", "evaluation", "cached evaluation",
        "picture folder", "video",
    ]  # fmt: skip
    for seconds, name in enumerate(names, 1):
        bench.add(name, 1, lambda: None)
        bench.jobs[name].seconds = [seconds, seconds, 1000.0]
    return bench


def test_the_ratios_by_hand(timed):
    ratios = benchmark.report(timed, num_train=10, num_valid=2)
    cached, usual = 10 * 7 + 2 * 10, 10 * 2 + 2 * 8
    assert ratios["train step / (forward + head step)"] == 3 / (1 + 5)
    assert ratios["head step / usual head step"] == 5 / 4
    assert ratios["hours of the usual recipe"] == 65 * usual / 3600
    ours = (4 * 10 + 2) * 6 + 65 * cached
    assert ratios["minutes of the recipe with 4 cached views"] == ours / 60
    assert ratios["usual recipe / recipe with 4 cached views"] == 65 * usual / ours


def test_the_table_divides_by_the_limit_and_by_the_usual(timed):
    lines = timed.table("backbone forward", {"train step": "train step, usual"}).splitlines()
    assert lines[4].startswith("| train step | 3.0000 | 3.000 | 0.67x |")


def test_operations_are_counted_with_attention():
    a = torch.randn(8, 16)
    assert count_flops(lambda: a @ a.T) == 2 * 8 * 16 * 8
    q = torch.randn(1, 1, 32, 16)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert count_flops(lambda: attention(q, q, q)) == 2 * 2 * 32 * 32 * 16
    assert matrix_rate(CPU, torch.float32) > 1e8


def test_one_run_prints_one_table_and_writes_it(in_tmp, capsys, monkeypatch):
    calls = []

    def script_seconds(script, source, *flags):
        assert source.exists()
        calls.append(script)
        return 3.0

    monkeypatch.setattr(benchmark, "script_seconds", script_seconds)
    runtimes = (("torch", torch.bfloat16), ("torch", torch.float16))
    monkeypatch.setattr(benchmark, "RUNTIMES", runtimes)
    monkeypatch.setattr(benchmark, "cpu_computes_in", lambda dtype: dtype != torch.float16)
    benchmark.main([*TINY, "--json", "--runtimes"])
    assert calls == ["infer_image.py", "infer_video.py", "infer_video.py"] * 2
    out = capsys.readouterr().out
    assert out.count("left out: ") == 1
    assert "left out: torch float16, for which this CPU has no arithmetic" in out
    assert out.index("17 jobs, 1 rounds and one to warm up: about ") < out.index("warm-up: ")
    assert "| picture folder | 0.1875 |" in out  # 3 s for 16
    assert "usual recipe / recipe with 4 cached views: " in out
    content = json.loads((in_tmp / "outputs" / "benchmark" / "benchmark.json").read_text())
    assert len(content["jobs"]) == 17
    assert "video / video, torch bfloat16: 1.000" in out
    assert "features / features, torch bfloat16: " in out
    for job in content["jobs"].values():
        (seconds,) = job["seconds per picture"]  # those of the warm-up do not count
        assert seconds > 0
        assert job["peak bytes"] > 1e6  # however short it was


def test_a_scripts_own_seconds_are_taken(in_tmp, monkeypatch):
    script = in_tmp / "script.py"
    script.write_text("print('3 pictures in 12.50 s, 0.24 pictures per second')")
    monkeypatch.setattr(jobs.config, "THIS_REPO", str(in_tmp))
    assert jobs.script_seconds("script.py", in_tmp) == 12.5
    script.write_text("import sys; sys.exit('error: broken')")
    with pytest.raises(jobs.InputError, match="broken"):
        jobs.script_seconds("script.py", in_tmp)
