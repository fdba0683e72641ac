"""What all tests share: no network, golden vectors, small drawn data."""

import signal
from pathlib import Path

import pytest
import torch
from helpers.basics import draw_data_set
from helpers.scripts import without_plots
from helpers.stubs import StubPredictor

import infer_image
import infer_video
from data.layouts import find_splits
from data.survey import load_data

torch.set_num_threads(1)  # the tensors are tiny; a thread pool only gets in the way
# A shell has SIGINT ignored in what it starts with "&", nohup SIGHUP; scripts would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def no_network(request, monkeypatch):
    """torch.hub is the one door to the network: only local folders go through it."""
    if "network" in request.keywords:
        return
    load = torch.hub.load

    def local_only(repo, *args, **kwargs):
        assert kwargs.get("source") == "local", f"a test tried to fetch {repo}"
        return load(repo, *args, **kwargs)

    def refuse(url, *args, **kwargs):
        raise AssertionError(f"a test tried to download {url}")

    monkeypatch.setattr(torch.hub, "load", local_only)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    if "plots" not in request.keywords:
        without_plots(monkeypatch.setattr)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch) -> Path:
    """Run in an empty folder, so that outputs/ lands there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def data_dir(tmp_path) -> Path:
    """Six training and three validation pairs of several sizes in the articles' layout."""
    return draw_data_set(tmp_path / "data")


@pytest.fixture
def data(data_dir, in_tmp):
    return load_data(find_splits(data_dir))


@pytest.fixture
def stub(monkeypatch) -> StubPredictor:
    """What the scripts load in place of any model."""
    predictor = StubPredictor()
    for script in (infer_image, infer_video):
        monkeypatch.setattr(script, "load_predictor", lambda *_, **__: predictor)
    return predictor
