"""Arms as they are typed; what cannot be is named, with what was probably meant."""

from __future__ import annotations

import pytest

from ttt_core.config import AdaptationConfig
from ttt_core.errors import ConfigError
from ttt_core.evaluation.arms import arm_description, arm_names, parse_arm


@pytest.mark.parametrize("name", arm_names())
def test_plain_names_are_arms(name: str) -> None:
    arm = parse_arm(name)
    assert arm.name == name
    assert arm.description == arm_description(name)
    assert "\n" not in arm.description


def test_options_are_read_and_all_of_them_are_settings() -> None:
    arm = parse_arm("qttt: supervision=recurrence, parametrization=full, gate=false, steps=7")
    expected = AdaptationConfig(
        supervision="recurrence", parametrization="full", gate=False, steps=7
    )
    assert arm.settings == expected.model_dump(mode="json")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("qttt:steps=48,gate=true", "qttt"),
        ("qttt:gate=false,steps=7", "qttt:steps=7,gate=false"),
        ("qttt:learning_rate=1e-3", "qttt:learning_rate=0.001"),
        ("qttt:learning_rate=auto", "qttt"),
        ("qttt:positions_per_step=none", "qttt"),
        ("qttt:layers_to_transform=0+2", "qttt:layers_to_transform=0+2"),
        ("qttt:layers_to_transform=1", "qttt:layers_to_transform=1"),
        ("bm25:top=8", "bm25:top=8"),
        ("thinking:budget=64,amortised=true", "thinking:budget=64,amortised=true"),
        ("self-consistency:n=8", "self-consistency:n=8"),
    ],
)
def test_a_name_leaves_defaults_out_and_can_be_typed_again(spec: str, name: str) -> None:
    arm = parse_arm(spec)
    assert arm.name == name
    again = parse_arm(arm.name)
    assert (again.name, again.settings) == (arm.name, arm.settings)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("qtt", "did you mean 'qttt'"),
        ("rag", "did you mean 'bm25'"),
        ("icl", "did you mean 'in-context'"),
        ("qttt:superversion=cloze", "did you mean 'supervision'.*arm 'qttt' takes"),
        ("in-context:steps=3", "arm 'in-context' takes none"),
        ("qttt:steps=-1", "arm 'qttt': steps: Input should be greater than or equal to 0"),
        ("qttt:supervision=clozes", "arm 'qttt': supervision: .*'cloze'"),
        ("qttt:objective=attention", "arm 'qttt': objective='attention' teaches"),
        ("qttt:steps", "written qttt:option=value, not 'steps'"),
        ("qttt:steps=", "written qttt:option=value"),
        ("qttt:steps=3,steps=4", "has option 'steps' twice"),
        ("bm25:top=0", "arm 'bm25': top"),
        ("", "unknown arm ''"),
    ],
)
def test_what_cannot_be_is_named(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_arm(spec)
