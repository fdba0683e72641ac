"""torch.hub's entries run beside a program's own modules of the same names."""

import subprocess
import sys

from helpers.basics import REPO

PROGRAM = """
import sys, numpy as np, torch
from concurrent.futures import ThreadPoolExecutor
import config, data, utils
backbone = torch.hub.load(sys.argv[1], "dinov2_vits14", source="local", pretrained=False)
assert sum(p.numel() for p in backbone.parameters()) == 22_056_576
predictor = torch.hub.load(sys.argv[1], "segmenter", sys.argv[2], source="local", device="cpu")
picture = np.zeros((75, 97, 3), np.uint8)
print(predictor.predict([picture])[0].labels.shape)
def load(_):
    device = torch.device("cpu")
    return torch.hub.load(sys.argv[1], "segmenter", sys.argv[2], source="local", device=device)
with ThreadPoolExecutor(4) as pool:
    print({int(other.predict([picture])[0].labels.sum()) for other in pool.map(load, range(4))})
assert sys.modules["utils"] is utils
import networks.own
"""


def test_a_predictor_beside_packages_of_the_same_names(tmp_path):
    for name in ("config.py", "data.py", "utils.py", "networks/__init__.py", "networks/own.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    checkpoint = REPO / "tests" / "golden" / "checkpoint_v1.pth"
    command = [sys.executable, "-c", PROGRAM, str(REPO), str(checkpoint)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(75, 97)\n{0}\n"), done.stderr
