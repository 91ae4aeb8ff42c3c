"""The shape of the code: who may import whom, what importing costs, and what is public."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ttt_core

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core" / "ttt_core"
INTEGRATIONS = ("langchain_ttt", "llamaindex_ttt")

LAYERS = [
    {
        "errors",
        "config",
        "clock",
        "progress",
        "flights",
        "files",
        "locks",
        "lru",
        "lazy",
        "examples",
        "extras",
        "pages",
    },
    {
        "document",
        "literal",
        "chat",
        "queries",
        "report",
        "flops",
        "namespace",
        "identity",
        "fingerprint",
        "stopping",
        "limits",
        "packed",
        "prefix",
        "tools",
        "toolchat",
        "constrained",
        "reasoning",
        "output",
    },
    {
        "prefill",
        "adapter",
        "supervision",
        "attention",
        "runtime",
        "sandbox",
        "sampling",
        "loading",
    },
    {"objectives", "adapted", "loaded", "origin", "prefix_store", "memory"},
    {"step", "drift"},
    {
        "reading",
        "learning",
        "lesson",
        "frozen_base",
        "gate",
        "probe",
        "train",
        "store",
        "generate",
        "asking",
        "scheduler",
    },
    {"host"},
    {"engine"},
    {"sharing"},
    {""},  # The package itself: the face that users see.
    {"integration", "evaluation", "diagnostics"},
    {"cli", "__main__", *INTEGRATIONS},
]
"""Imports point downwards. A new module gets its place here first."""

FRAMEWORKS = {"langchain", "langchain_core", "llama_index"}
HEAVY = {"torch", "transformers", "peft", "langchain_core", "llama_index"}

PUBLIC = {
    "AdaptationConfig",
    "AdaptationError",
    "AdaptationReport",
    "AdaptedDocument",
    "AdapterStore",
    "Answer",
    "AnswerStream",
    "ConfigError",
    "Document",
    "DocumentError",
    "DocumentTooLongError",
    "GenerationConfig",
    "ModelLoadError",
    "Namespace",
    "OutOfMemoryError",
    "Progress",
    "PromptTooLongError",
    "ReleasedError",
    "RuntimeConfig",
    "StoreError",
    "TTTEngine",
    "TTTError",
    "UnsupportedModelError",
    "__version__",
    "shared_engine",
}


def sources() -> dict[str, Path]:
    """Every module of the product by its dotted name."""
    files = [*CORE.rglob("*.py"), *(f for i in INTEGRATIONS for f in (ROOT / i).rglob("*.py"))]
    names = {}
    for file in files:
        base = ROOT / "core" if CORE in file.parents else ROOT
        parts = file.relative_to(base).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def imports(module: str, file: Path, known: set[str]) -> Iterator[str]:
    """What a module imports anywhere in it, for type checkers too; submodules by their own name."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            source = ".".join([*above, node.module] if node.module else above)
            source = source if node.level else str(node.module)
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield submodule if submodule in known else source


SOURCES = sources()
GRAPH = {m: set(imports(m, file, set(SOURCES))) for m, file in SOURCES.items()}


def room(module: str) -> str:
    """The file or folder directly below `ttt_core`; an integration as a whole."""
    package, _, rest = module.partition(".")
    return package if package in INTEGRATIONS else rest.partition(".")[0]


def layer(module: str) -> int:
    found = [i for i, rooms in enumerate(LAYERS) if room(module) in rooms]
    assert found, f"{module} has no place in LAYERS of {Path(__file__).name}"
    return found[0]


def own(module: str) -> set[str]:
    return {target for target in GRAPH[module] if target in SOURCES and target != module}


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_one_way(module: str) -> None:
    assert not {target for target in own(module) if layer(target) > layer(module)}


def test_no_import_cycles() -> None:
    packages = {m for m, file in SOURCES.items() if file.name == "__init__.py"}
    order = list(TopologicalSorter({m: own(m) - packages for m in SOURCES}).static_order())
    assert order.index("ttt_core.errors") < order.index("ttt_core.engine")


def test_graph_is_the_real_one() -> None:
    """The tests above would pass on an empty graph, too."""
    assert {"ttt_core.learning", "ttt_core.store", "ttt_core.generate"} <= GRAPH["ttt_core.engine"]
    assert "ttt_core.flops" in GRAPH["ttt_core.train"]  # `from ttt_core import flops`
    assert "ttt_core.runtime" in GRAPH["ttt_core.prefill"]  # Under TYPE_CHECKING.
    assert "peft" in GRAPH["ttt_core.adapter"]  # Inside a function.


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_core_knows_no_framework(module: str) -> None:
    tops = {target.partition(".")[0] for target in GRAPH[module]}
    if module.startswith("ttt_core"):
        assert not tops & {*FRAMEWORKS, *INTEGRATIONS}
    else:
        assert not tops & set(INTEGRATIONS) - {module.partition(".")[0]}
        assert not tops & {"torch", "transformers", "peft"}  # They translate, nothing else.


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_nothing_runs_what_it_reads(module: str) -> None:
    """No pickle, no torch.load, no eval: a file is data."""
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    assert not GRAPH[module] & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    names = {node.func.id for node in ast.walk(tree)
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    assert not names & {"eval", "exec", "compile", "__import__"}
    dotted = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert not dotted & {"torch.load", "torch.save", "torch.jit.load", "numpy.load"}
    assert "trust_remote_code=True" not in SOURCES[module].read_text(encoding="utf-8")


def loaded_by(statement: str) -> set[str]:
    """The top-level modules in memory behind `statement`, in a fresh interpreter."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    path = [str(ROOT / "core"), str(ROOT)]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


def test_importing_the_package_is_cheap() -> None:
    loaded = loaded_by("import ttt_core; ttt_core.AdapterStore(), ttt_core.AdaptationConfig()")
    assert "ttt_core" in loaded
    assert not loaded & HEAVY


def test_importing_the_engine_does_not_import_peft() -> None:
    loaded = loaded_by("import ttt_core.engine")
    assert "torch" in loaded
    assert not loaded & (HEAVY - {"torch", "transformers"})


def test_public_names_are_these() -> None:
    assert set(ttt_core.__all__) == PUBLIC
    assert ttt_core.__all__ == sorted(ttt_core.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_can_be_had(name: str) -> None:
    found = getattr(ttt_core, name)
    assert found is getattr(ttt_core, name)
    if isinstance(found, type):
        assert found.__name__ == name
        assert found.__doc__


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="'TTTEngin'"):
        _ = ttt_core.TTTEngin


def test_core_is_a_folder_and_no_package() -> None:
    assert not (ROOT / "core" / "__init__.py").exists()
    assert all((ROOT / package / "py.typed").exists() for package in INTEGRATIONS)
    assert (CORE / "py.typed").exists()
    assert not any(target.partition(".")[0] == "core" for all_ in GRAPH.values() for target in all_)


def test_version_is_said_once() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert declared is not None
    assert ttt_core.__version__ == declared[1]


def test_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+\S*?)\]?(?:\s|$)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == ttt_core.__version__
