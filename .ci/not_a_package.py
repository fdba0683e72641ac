"""What pip calls for `pip install .`: says that this repository is run, not installed.

Its modules are named as those of many programs (`data`, `utils`, `config`): in site-packages they
would take the place of others.
"""

import sys
from typing import NoReturn

MESSAGE = (
    "dinov2-segmentation is a folder of scripts, not a package: clone it, run `python -m pip "
    "install -r requirements.txt -c constraints.txt` and start the scripts by their path; from "
    "other programs use torch.hub.load with source='local'"
)


def refuse(*args, **kwargs) -> NoReturn:
    sys.exit(MESSAGE)


build_wheel = build_sdist = build_editable = refuse
get_requires_for_build_wheel = get_requires_for_build_sdist = refuse
get_requires_for_build_editable = refuse
