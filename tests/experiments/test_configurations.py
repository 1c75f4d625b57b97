"""Every number of every configuration: refused by its name, or accepted and kept as it is."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from experiments.certify.config import CheckpointConfig, MembersConfig
from experiments.igsm.config import ExportConfig
from experiments.igsm.fidelity import FidelityConfig
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.difficulty.buckets import Cut
from experiments.llm.problems.config import GraderConfig
from experiments.llm.scan.grid import BaseConfig, ScanConfig
from experiments.llm.selecting.config import SelectConfig
from experiments.llm.training.config import ScratchConfig, StepConfig, TrainingConfig, Watch
from experiments.storage.config import Devices
from experiments.sweep.grid import PretrainConfig, SweepConfig
from synth.config import DecoderConfig, FinetuneConfig, Llama3Rope, Lora, Optimiser
from theory.config import PosteriorConfig

DECODER = DecoderConfig(vocab_size=8, positions="sequential", head_dim=8)
CONFIGURATIONS: list[Any] = [
    BaseConfig(levels=(1, 2)),
    CheckpointConfig(),
    Cut("op", edges=(1.0, 2.0)),
    DECODER,
    DecodingConfig(),
    Devices(),
    ExportConfig(),
    FidelityConfig(),
    FinetuneConfig(steps=3),
    GraderConfig(modulus=5, processes=2),
    Llama3Rope(8.0, 1.0, 4.0, 64),
    Lora(),
    MembersConfig(difficulties=(1, 2), data_sizes=(4,), trained_difficulties=(1,), master_seed=1),
    Optimiser(),
    PosteriorConfig(),
    PretrainConfig(),
    ScanConfig(edges=(1.0, 2.0)),
    ScratchConfig(vocab_size=8, decoder=DECODER),
    SelectConfig(10.0, level=1, edges=(1.0, 2.0), max_length=8, epochs=1.0),
    StepConfig(),
    SweepConfig(),
    TrainingConfig(lora_rank=4),
    Watch(),
]
"""One of each configuration, with a value in every optional field."""

INFINITE = [math.nan, math.inf, -math.inf]
HUGE = [2**31, 2**32, 2**63, 2**64, 10**30, 10**400, -1, 0, -(2**63), -(10**400)]
TINY = [1e300, -1e300, 1e-320, -1e-320, -1.0, 0.0, 0.5, 1.5]


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number_fields() -> Iterator[tuple[Any, str, bool]]:
    """A configuration, a field of it with a number or numbers, and whether they are several."""
    for config in CONFIGURATIONS:
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if is_number(value):
                yield config, field.name, False
            elif isinstance(value, tuple) and value and is_number(value[0]):
                yield config, field.name, True


FIELDS = list(number_fields())
IDS = [f"{type(config).__name__}.{name}" for config, name, _ in FIELDS]


def changed(config: Any, name: str, is_several: bool, value: Any) -> Any:
    """The configuration with another value, in the place of one of several if they are."""
    if is_several:
        values = getattr(config, name)
        value = (*values[:-1], value)
    return dataclasses.replace(config, **{name: value})


def check(config: Any, name: str, is_several: bool, value: Any) -> bool:
    """Return whether a value is accepted; if not, the error must name the field in one line."""
    try:
        built = changed(config, name, is_several, value)
    except ValueError as error:
        message = str(error)
        assert name in message, f"{name} = {value!r}: {message}"
        assert "\n" not in message
        assert len(message) < 500
        return False
    kept = getattr(built, name)
    assert (kept[-1] if is_several else kept) == value
    return True


def test_every_number_is_looked_at():
    found = set(IDS)
    for wanted in (
        *("SweepConfig.compute", "SweepConfig.learning_rates", "SweepConfig.master_seed"),
        *("PretrainConfig.steps", "PretrainConfig.max_risk", "Optimiser.weight_decay"),
        *("DecoderConfig.rope_theta", "DecoderConfig.head_dim", "ExportConfig.train_sizes"),
        *("TrainingConfig.seed", "DecodingConfig.temperature", "GraderConfig.timeout"),
        *("CheckpointConfig.prior_scales", "MembersConfig.seeds", "ScanConfig.edges"),
    ):
        assert wanted in found
    for config in CONFIGURATIONS:
        for field in dataclasses.fields(config):
            # The annotation, as text: "int", "float | None", "tuple[int, ...]" ...
            words = {*re.findall(r"\w+", str(field.type))}
            if {"int", "float"} & words and "dict" not in words:
                value = getattr(config, field.name)
                assert value or value == 0, f"{type(config).__name__}.{field.name} needs a value"


@pytest.mark.parametrize(("config", "name", "is_several"), FIELDS, ids=IDS)
def test_what_is_not_finite_is_refused_by_name(config, name, is_several):
    for value in INFINITE:
        assert not check(config, name, is_several, value), f"{name} = {value} was accepted"


@pytest.mark.parametrize(("config", "name", "is_several"), FIELDS, ids=IDS)
def test_numbers_out_of_range_are_refused_by_name(config, name, is_several):
    for value in (*HUGE, *TINY):
        check(config, name, is_several, value)


@pytest.mark.parametrize(("config", "name", "is_several"), FIELDS, ids=IDS)
def test_counts_are_whole_numbers_that_32_bits_hold(config, name, is_several):
    value = getattr(config, name)
    if isinstance(value[-1] if is_several else value, float):
        assert not check(config, name, is_several, 10**400)
        return
    for wrong in (1.5, "3", 2**32, 10**400, -1):
        assert not check(config, name, is_several, wrong), f"{name} = {wrong!r} was accepted"


@hypothesis.given(
    place=st.integers(0, len(FIELDS) - 1),
    value=st.integers() | st.floats() | st.sampled_from([*INFINITE, *HUGE, *TINY]),
)
@hypothesis.settings(deadline=None, max_examples=400)
def test_any_number_is_kept_or_refused_by_name(place, value):
    config, name, is_several = FIELDS[place]
    check(config, name, is_several, value)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SweepConfig(), "master_seed"),
        *((each, "seed") for each in CONFIGURATIONS if hasattr(each, "seed")),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_seeds_are_those_that_keys_tell_apart(config, name):
    for seed in (0, 1, 2**31, 2**32 - 1):
        assert check(config, name, False, seed)
    for seed in (-1, 2**32, 2**32 + 7919, 2**63, 1.0):
        assert not check(config, name, False, seed)
    with pytest.raises(ValueError, match=f"{name} must be at most 4294967295, got 4294967296"):
        dataclasses.replace(config, **{name: 2**32})
