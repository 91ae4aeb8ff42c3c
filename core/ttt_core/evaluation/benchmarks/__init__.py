"""The published benchmarks by name. Importing this loads none of them."""

from __future__ import annotations

from importlib import import_module

from ttt_core.config import unknown_name
from ttt_core.errors import ConfigError
from ttt_core.evaluation.data import Source
from ttt_core.examples import Task

_BENCHMARKS = {
    "babi": "babi:Babi",
    "key-value": "key_value:KeyValueRetrieval",
    "line-retrieval": "line_retrieval:LineRetrieval",
    "longbench-v1": "longbench_v1:LongBenchV1",
    "longbench-v2": "longbench_v2:LongBenchV2",
    "longicl": "longicl:LongICL",
    "niah": "niah:NeedleInAHaystack",
    "ruler": "ruler:Ruler",
    "zero-scrolls": "zero_scrolls:ZeroScrolls",
}


def benchmark_names() -> tuple[str, ...]:
    """Return the names that `get_benchmark` takes, in alphabetical order."""
    return tuple(sorted(_BENCHMARKS))


def get_benchmark(name: str, source: Source) -> Task:
    """Make a benchmark that reads its data from `source`: a path, or `hub:owner/name`.

    Raises:
        ConfigError: There is no benchmark of that name.
    """
    if name not in _BENCHMARKS:
        raise ConfigError(unknown_name("benchmark", name, _BENCHMARKS, "benchmarks are"))
    module, _, attribute = _BENCHMARKS[name].partition(":")
    benchmark: Task = getattr(import_module(f"{__name__}.{module}"), attribute)(source)
    return benchmark
