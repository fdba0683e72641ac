"""The limits of the house: imports run one way, files and functions stay small."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers.basics import REPO

ORDER = (  # a file may import what stands before its own place
    "config metrics utils common video data networks losses model datasets engine inference "
    "predictor results training export demo benchmarks check_data train infer_image infer_video "
    "hubconf"
).split()
ROOMS = [room for room in ORDER if (REPO / room).is_dir()]
FILES = [*REPO.glob("*.py"), *(path for room in ROOMS for path in (REPO / room).rglob("*.py"))]
MAX_ROOT_FILES = 14
MAX_ROOMS = 9
MAX_CHAIN = 9  # root files and rooms on the longest way along imports
MAX_LINES = 300  # of a file
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8
AS_PUBLISHED = "networks/vit.py"  # takes the parameters of DINOv2's own constructor


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """The name by which a file is imported."""
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def place_of(path: Path) -> str:
    """The room or root file that a file belongs to."""
    return path.relative_to(REPO).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules that a file imports, and names from them; lazy and typing-only imports included."""
    nodes = list(ast.walk(tree(path)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            module = f"{path.parent.name}.{node.module}" if node.level else node.module
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_imports_run_one_way(path):
    rooms = {name.split(".")[0] for name in imported(path)} & set(ORDER)
    assert rooms <= set(ORDER[: ORDER.index(place_of(path)) + 1])


def test_no_files_import_each_other_in_a_circle():
    modules = {name_of(path) for path in FILES}
    graph = {name_of(path): imported(path) & modules for path in FILES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_house_has_few_rooms():
    folders = {path.parent.name for path in REPO.glob("*/__init__.py")}
    assert folders - {"tests"} == set(ROOMS)
    assert len(ROOMS) <= MAX_ROOMS
    assert len(list(REPO.glob("*.py"))) <= MAX_ROOT_FILES


def test_the_longest_chain_of_rooms_and_root_files():
    below = {place: set() for place in ORDER}
    for path in FILES:
        place = place_of(path)
        below[place] |= {name.split(".")[0] for name in imported(path)} & set(ORDER) - {place}
    floor = {}
    for place in TopologicalSorter(below).static_order():
        floor[place] = 1 + max((floor[other] for other in below[place]), default=0)
    assert max(floor.values()) <= MAX_CHAIN, floor


def test_lengths_and_parameters():
    too_large = []
    for path in FILES:
        name = str(path.relative_to(REPO).as_posix())
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES:
            too_large.append(f"{name}: {lines} lines")
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (lines := node.end_lineno - node.lineno + 1) > MAX_FUNCTION_LINES:
                too_large.append(f"{name}: {node.name} has {lines} lines")
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            if count > MAX_PARAMETERS and name != AS_PUBLISHED:
                too_large.append(f"{name}: {node.name} has {count} parameters")
    assert too_large == []
