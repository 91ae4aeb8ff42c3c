"""The options that commands share, each declared once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, get_args

import typer

from ttt_core.cli.failures import UsageProblem
from ttt_core.cli.place import KEEPING, Place
from ttt_core.cli.sizes import parse_size
from ttt_core.config import (
    AdaptationConfig,
    GenerationConfig,
    Overflow,
    Parametrization,
    RuntimeConfig,
    SupervisionName,
)

_MODEL = "Model"
_ADAPTING = "Adapting"
_ANSWERING = "Answering"
_RECIPE = AdaptationConfig()
_NAMES = get_args(SupervisionName)

Model = Annotated[
    str | None,
    typer.Option(
        metavar="ID_OR_PATH",
        envvar="TTT_MODEL",
        help="A Hub id or a local folder. Default: the bundled toy model.",
        rich_help_panel=_MODEL,
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:0, mps, ...", rich_help_panel=_MODEL)
]
Dtype = Annotated[
    str,
    typer.Option(help="auto (as saved), float32, bfloat16 or float16.", rich_help_panel=_MODEL),
]
System = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="System prompt, read with the document."),
]
OnOverflow = Annotated[
    Overflow,
    typer.Option(
        metavar="ACTION",
        help="For a document longer than the model's window: error, keep_start or keep_end.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        help=f"Most training steps (default: {_RECIPE.steps}).", rich_help_panel=_ADAPTING
    ),
]
LearningRate = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER",
        help="Default: auto, which tries several and keeps the best.",
        rich_help_panel=_ADAPTING,
    ),
]
Supervision = Annotated[
    SupervisionName | None,
    typer.Option(
        metavar="METHOD",
        help=f"On what to train: {', '.join(_NAMES)} (default: {_RECIPE.supervision}).",
        rich_help_panel=_ADAPTING,
    ),
]
Parametrize = Annotated[
    Parametrization | None,
    typer.Option(
        "--parametrization",
        metavar="lora|full",
        help="A low-rank change of the query weights, or all of them "
        f"(default: {_RECIPE.parametrization}).",
        rich_help_panel=_ADAPTING,
    ),
]
KeepKV = Annotated[
    str | None,
    typer.Option(
        "--keep-kv",
        metavar="SIZE",
        envvar="TTT_KEEP_KV",
        help="Keep documents' keys and values on disk, too, up to SIZE in all (20GiB): later "
        "commands read them instead of computing. They hold what the documents say.",
        show_default="nothing",
        rich_help_panel=KEEPING,
    ),
]
NoAdapt = Annotated[
    bool,
    typer.Option("--no-adapt", help="Answer in-context only.", rich_help_panel=_ADAPTING),
]
NoGate = Annotated[
    bool,
    typer.Option(
        "--no-gate",
        help="Adapt even where held-out text shows no gain.",
        rich_help_panel=_ADAPTING,
    ),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(help="Most tokens of an answer.", show_default="256", rich_help_panel=_ANSWERING),
]
Temperature = Annotated[float, typer.Option(help="0 is deterministic.", rich_help_panel=_ANSWERING)]
SamplingSeed = Annotated[
    int | None,
    typer.Option("--seed", help="Makes sampling repeatable.", rich_help_panel=_ANSWERING),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.")
]


@dataclass(frozen=True)
class Setup:
    """Which model, how it reads, how it is adapted, and where that is kept."""

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    system: str | None = None
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    adaptation: AdaptationConfig | None = field(default_factory=AdaptationConfig)
    """None: answer in-context."""
    place: Place = field(default_factory=Place)


def runtime_config(*, keep_kv: str | None = None, on_overflow: Overflow = "error") -> RuntimeConfig:
    """Say what to keep, and what to do with a document that is too long."""
    disk = parse_size(keep_kv, option="--keep-kv") if keep_kv else 0
    return RuntimeConfig(on_overflow=on_overflow, max_disk_kv_bytes=disk)


def adaptation_config(
    *,
    steps: int | None,
    learning_rate: str | None,
    supervision: SupervisionName | None,
    parametrization: Parametrization | None,
    no_gate: bool,
) -> AdaptationConfig:
    """Make a recipe of what was given; what was not keeps the core's defaults."""
    given: dict[str, Any] = {
        "steps": steps,
        "learning_rate": None if learning_rate is None else _rate(learning_rate),
        "supervision": supervision,
        "parametrization": parametrization,
        "gate": False if no_gate else None,
    }
    return AdaptationConfig(**{name: value for name, value in given.items() if value is not None})


def generation_config(
    *, max_new_tokens: int | None, temperature: float, seed: int | None
) -> GenerationConfig:
    """Say how to decode."""
    return GenerationConfig(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)


def _rate(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise UsageProblem(f"--learning-rate is 'auto' or a number, not {text!r}") from None
