"""Templates and tokenizers that attack: refused with one line, in bounded time and memory."""

from __future__ import annotations

import json
import shutil
import time

import pytest

from experiments.llm.text import guard
from experiments.llm.text.tokenizer import (
    CHAT_TEMPLATE,
    encode_texts,
    load_tokenizer,
    render,
    stop_tokens,
)

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{{ '' }}{% endfor %}{% endfor %}"
TEMPLATES = {
    "loops": LOOPS,
    "grows": "{{ 'a' * 10**10 }}",
    "grows_slowly": "{% set x = namespace(t='a') %}{% for i in range(40) %}"
    "{% set x.t = x.t + x.t %}{% endfor %}{{ x.t }}",
    "power": "{{ 10 ** 10 ** 10 }}",
    "pads": "{{ '%2000000000d' | format(1) }}",
    "writes_much": CHAT_TEMPLATE + "{% for i in range(99999) %}{{ 'abcdef' }}{% endfor %}",
    "recurses": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "divides": "{{ 1 // 0 }}",
    "looks_up": "{{ messages['x']['y'] }}",
    "reaches": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "reaches_on": "{{ cycler.__init__.__globals__.os.system('touch reached') }}",
    "is_broken": "{% for %}",
    "nests": "{{ " + "(" * 5_000 + ")" * 5_000 + " }}",
}


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPLATES)
def test_hostile_templates_are_refused(name, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "chat_template.jinja").write_text(TEMPLATES[name])
    began = time.monotonic()
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (each has words of its own)
        load_tokenizer(folder)
    print(name, round(time.monotonic() - began, 1), caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900
    assert time.monotonic() - began < 30
    assert not (tmp_path / "reached").exists()


@pytest.mark.slow
def test_a_template_that_waits_for_a_certain_chat_is_stopped_there(folder, monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 2.0)
    trap = "{% if 'trap' in messages[0]['content'] %}" + LOOPS + "{% endif %}" + CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(trap)
    tokenizer = load_tokenizer(folder)
    assert "fine" in render(tokenizer, [{"role": "user", "content": "fine"}], generation=True)
    with pytest.raises(ValueError, match=r"broken or hostile \(its render took too long"):
        render(tokenizer, [{"role": "user", "content": "trap"}], generation=True)


@pytest.mark.slow
def test_a_normaliser_that_multiplies_text_is_stopped(folder):
    path = folder / "tokenizer.json"
    written = json.loads(path.read_text())
    double = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
    written["normalizer"] = {"type": "Sequence", "normalizers": [double] * 40}
    path.write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"broken or hostile|become"):
        encode_texts(load_tokenizer(folder), ["e"])


@pytest.mark.parametrize("stop", [["2"], -1, [2**40], {"a": 1}, [None], 1.5])
def test_end_markers_that_are_no_token_ids_are_refused(stop, folder):
    tokenizer = load_tokenizer(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop}))
    with pytest.raises(ValueError, match=r"eos_token_id in generation_config.json must hold"):
        stop_tokens(tokenizer, folder)
