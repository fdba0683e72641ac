"""Write constraints.txt: the versions of all packages that the running Python has, for any system.

Run by `make constraints`, in a new environment whose tests have passed.
"""

import re
from importlib.metadata import distributions
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "constraints.txt"
FROM_TORCH = ("nvidia-", "cuda-", "triton")  # of its CUDA builds, which name their versions
TOOLS = ("pip", "setuptools", "wheel")
ELSEWHERE = ('colorama==0.4.6; sys_platform == "win32"',)  # what other systems need beside
OLDEST = 10  # minor version of the oldest Python 3 that the project takes


def line(name: str, version: str, requires_python: str) -> str:
    """One package; for the Python versions that it takes."""
    found = re.search(r">=\s*3\.(\d+)", requires_python)
    minor = int(found[1]) if found else 0
    marker = f'; python_version >= "3.{minor}"' if minor > OLDEST else ""
    return f"{name}=={version.split('+')[0]}{marker}"


def main() -> None:
    comments = [text for text in FILE.read_text().splitlines() if text.startswith("#")]
    packages = set(ELSEWHERE) | {
        line(found.name, found.version, found.metadata.get("Requires-Python") or "")
        for found in distributions()
        if found.name not in TOOLS and not found.name.startswith(FROM_TORCH)
    }
    FILE.write_text("\n".join([*comments, *sorted(packages, key=str.lower)]) + "\n")


if __name__ == "__main__":
    main()
