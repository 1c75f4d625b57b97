"""Hostile files of every kind that enters: checkpoints, texts, and tables and manifests of runs.

Each is drawn from a seed. It is a valid file, mutated (bytes flipped, cut off, repeated; values of
JSON or columns of a table replaced by hostile ones), or an attack written by hand.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from tests.experiments.certificate_tables import certificate_table
from tests.experiments.worlds import CONFIG, world, write_run

SHARES = {
    "config": 0.16,
    "tensors": 0.16,
    "index": 0.1,
    "kept": 0.09,
    "igsm": 0.14,
    "answers": 0.1,
    "source": 0.06,
    "tokenizer": 0.04,
    "manifest": 0.05,
    "table": 0.1,
}
"""Share of each kind; the last four take a second or more each."""

READERS = ("report", "figures", "compare", "recommend", "gallery")
"""Commands that show a recorded run, one of which reads a manifest or a table."""

FIGURES = {
    "table": ("accuracy_over_difficulty", "accuracy_over_size", "gaps", "map", "optimum_over_size"),
    "certificates": ("certificates", "certified_gaps", "tightness"),
}
"""Figures that are drawn of each table, one for each attack."""

TEXTS = (
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;b&gt; &", "{{7*7}}"),
    *("$x^2$ \\unknown{ $\\frac{1$", "[/b][bold]", "a" * 100_000, "ab\u202edc\u2066", "\0\x1b[31m"),
)
"""Names that are markup, formulas, templates, or too long."""

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**9, 10**18, 10**30, 1.5, float("nan"), float("inf"), -0.0, "", "x"),
    *("../../etc/passwd", "<script>alert(1)</script>", "[/b]", "\0", "é" * 1000, "a" * 100_000),
    *([], {}, [[[[]]]], {"a": {"a": {}}}, [1] * 1000, ["../x"], "{{ 1 }}", "$\\frac{1}{0}$"),
)
PROBLEM = "The number of each Zoo's Owl equals 4. How many Owl does Zoo have?"
SOLUTION = "Define Zoo's Owl as x; so x = 4."
BOMBS = (
    "9^{9^{9^{9}}}",
    "\\frac{" * 500 + "1" + "}{2}" * 500,
    "(" * 5000,
    "\\sqrt{" * 2000,
    "{" * 50_000,
    "1" * 5000,
    "1," * 20_000 + "1",
    "the answer is" + " " * 2000 + "!",
    "\\text{" * 5000,
    "10**10**10",
    "####" * 10_000,
    "\\boxed{" * 5000,
)


def replaced(value: Any, draw: random.Random) -> Any:
    """JSON with one value somewhere in it replaced by a hostile one."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        return {**value, key: replaced(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        return [*value[:place], replaced(value[place], draw), *value[place + 1 :]]
    return draw.choice(VALUES)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Bytes that are flipped, cut off, repeated, or nested without end."""
    way = draw.randrange(5)
    place = draw.randrange(len(content) + 1)
    if way == 0:
        flipped = bytearray(content)
        for _ in range(draw.choice((1, 8, 64))):
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        return bytes(flipped)
    if way == 1:
        return content[:place]
    if way == 2:
        return content[:place] + content * draw.choice((1, 20))
    if way == 3:
        return content[:place] + draw.choice((b"[", b'{"a":', b"(")) * 100_000 + content[place:]
    return content[:place] + draw.randbytes(draw.choice((1, 100, 10_000))) + content[place:]


def mutate_json(path: Path, draw: random.Random) -> None:
    """Change a JSON file, mostly into one that is still JSON."""
    content = path.read_bytes()
    if draw.random() < 0.3:
        path.write_bytes(mutated(content, draw))
    else:
        path.write_text(json.dumps(replaced(json.loads(content), draw)))


def write_config(folder: Path, draw: random.Random) -> None:
    mutate_json(folder / "config.json", draw)


def write_tensors(folder: Path, draw: random.Random) -> None:
    """Lie in the header of the weights, or break their bytes."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    way = draw.randrange(5)
    if way == 0:
        path.write_bytes(mutated(content[: 8 + length], draw) + content[8 + length :])
    elif way == 1:
        path.write_bytes(struct.pack("<Q", draw.choice((0, 2**31, 2**63, 10))) + content[8:])
    elif way == 2:
        path.unlink()
        draw.choice((os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p)))(path)
    else:
        header = json.dumps(replaced(json.loads(content[8 : 8 + length]), draw)).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])


def write_index(folder: Path, draw: random.Random) -> None:
    """An index whose shards lie elsewhere, or are something else."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    shard = draw.choice(("model-00001-of-00001.safetensors", "../x", "/dev/zero", ".", "..", ""))
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(2)]
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, shard)}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    mutate_json(path, draw)


def write_kept(folder: Path, draw: random.Random) -> None:
    """A file of kept answers with a hostile line; the harness writes its header."""
    lines = [json.dumps(["00c1", [17, 5, 9], False]), json.dumps(replaced(["a", [1], True], draw))]
    content = "\n".join(lines).encode() + b"\n"
    (folder / "kept").write_bytes(mutated(content, draw) if draw.random() < 0.5 else content)


def write_igsm(folder: Path, draw: random.Random) -> None:
    """A problem and a solution with parts repeated, thousands of times at most."""
    texts = [PROBLEM, SOLUTION]
    for _ in range(draw.randrange(1, 4)):
        which = draw.randrange(2)
        words = texts[which].split(" ")
        start = draw.randrange(len(words))
        part = " ".join(words[start : start + draw.randrange(1, 5)])
        times = draw.choice((1, 3, 30, 1000))
        words[start:start] = [part] * times
        texts[which] = " ".join(words)[:200_000]
    (folder / "texts.json").write_text(json.dumps(texts))


def write_answers(folder: Path, draw: random.Random) -> None:
    """A reference and a response that explode, for a grader."""
    grader = draw.choice(("boxed", "gsm8k", "multiple-choice"))
    bomb = draw.choice(BOMBS) * draw.choice((1, 2, 5))
    response = draw.choice((f"\\boxed{{{bomb}}}", bomb, f"#### {bomb}", f"the answer is ({bomb}"))
    (folder / "texts.json").write_text(json.dumps([grader, response]))


def write_source(folder: Path, draw: random.Random) -> None:
    """A data set that is no data set, or unpacks to more than the memory."""
    rows = [{"problem": "1 + 1", "solution": "\\boxed{2}", "difficulty": 1}] * 3
    way = draw.randrange(6)
    if way == 0:
        lines = [json.dumps(row) for row in [*rows, replaced(rows[0], draw)]]
        (folder / "x.jsonl").write_text("\n".join(lines))
    elif way == 1:
        lines = "\n".join(json.dumps(row) for row in rows).encode()
        (folder / "x.jsonl").write_bytes(mutated(lines, draw))
    elif way == 2:
        parquet.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
        path = folder / "x.parquet"
        path.write_bytes(mutated(path.read_bytes(), draw))
    elif way == 3:
        cells = pa.DictionaryArray.from_arrays(pa.array([0] * 500_000, pa.int32()), ["a" * 500])
        batch = pa.table({"problem": cells, "solution": cells})
        with parquet.ParquetWriter(folder / "x.parquet", batch.schema) as writer:
            for _ in range(draw.choice((20, 40))):
                writer.write_table(batch)
    elif way == 4:
        (folder / "x.py").write_text("import os; os._exit(7)")
        (folder / "x.pkl").write_bytes(pickle.dumps(rows))
    else:
        card = "---\nconfigs:\n- config_name: a\n  data_files: {}\n---\n"
        place = draw.choice(("../../../etc/passwd", "/dev/zero", "**", "*", "[[[["))
        (folder / "README.md").write_text(card.format(json.dumps(place)))


def write_tokenizer(folder: Path, draw: random.Random) -> None:
    """A tokenizer or a template that loops, multiplies or is broken."""
    way = draw.randrange(3)
    if way == 0:
        mutate_json(folder / "tokenizer.json", draw)
    elif way == 1:
        mutate_json(folder / "tokenizer_config.json", draw)
    else:
        loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        template = draw.choice(
            (
                loop,
                "{{ 'a' * 10**10 }}",
                "{{ 1 // 0 }}",
                "{{ ''.__class__.__mro__ }}",
                "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                "{{ messages[9] }}",
            )
        )
        (folder / "chat_template.jinja").write_text(template)


SMALL = dataclasses.replace(
    CONFIG,
    task="parity",
    difficulties=(2, 4, 6),
    data_sizes=(16, 64),
    base_seeds=1,
    seeds=2,
    test_hardest=9,
)


@functools.cache
def valid_tables() -> dict[str, pd.DataFrame]:
    certificates = certificate_table(levels=(4, 6), sizes=(64, 256), methods=("base", "gains"))
    return {"table": world(config=SMALL), "certificates": certificates}


def broken(table: pd.DataFrame, draw: random.Random) -> pd.DataFrame:
    """A table with nonsense in one column, or in its rows."""
    name = draw.choice(list(table.columns))
    way = draw.randrange(7)
    if way == 0:
        return table.assign(**{name: draw.choice((*TEXTS, *NUMBERS, None, True))})
    if way == 1 and pd.api.types.is_numeric_dtype(table[name]):
        changed = table[name].astype("float64").to_numpy(copy=True)
        changed[draw.randrange(len(changed))] = draw.choice(NUMBERS)
        return table.assign(**{name: changed})
    if way == 2:
        return table.drop(columns=name)
    if way == 3:
        kept = [row for row in range(len(table)) if draw.random() < draw.choice((0, 0.5, 0.99))]
        return table.iloc[kept]
    if way == 4:
        return pd.concat([table] * draw.choice((2, 20)), ignore_index=True)
    if way == 5:
        many = pd.concat([table] * 10, ignore_index=True)
        names = draw.sample(["difficulty", "data_size", "base_seed", "method", "seed", "loss"], 2)
        for each in set(names) & set(many.columns):
            places = np.arange(len(many)) * draw.choice((1, 10**6))
            is_text = not pd.api.types.is_numeric_dtype(many[each])
            many[each] = [str(place) for place in places] if is_text else places
        return many
    changed = table.copy()
    for each in changed.columns:
        if not pd.api.types.is_numeric_dtype(changed[each]) and draw.random() < 0.5:
            changed[each] = changed[each].mask(changed[each] != "none", draw.choice(TEXTS))
    return changed


NUMBERS = (float("nan"), float("inf"), -1, 0, 10**15, 1e308, -1e308, 0.5)


def write_recorded(folder: Path, draw: random.Random, name: str = "table") -> Path:
    """A run with one kind of table, and what is to be done with it."""
    request = {"reader": draw.choice(READERS), "figure": draw.choice(FIGURES[name])}
    (folder / "request.json").write_text(json.dumps(request))
    run = write_run(folder / "run", valid_tables()["table"], SMALL, recipe="families", preset="p")
    if name != "table":
        valid_tables()[name].to_parquet(run / f"{name}.parquet", index=False)
    return run


def write_manifest(folder: Path, draw: random.Random) -> None:
    """A manifest with a hostile value somewhere in it, or hostile texts as names."""
    path = write_recorded(folder, draw) / "manifest.json"
    if draw.random() < 0.3:
        manifest, text = json.loads(path.read_text()), draw.choice(TEXTS)
        place = draw.choice(("recipe", "preset", "config", "sessions", "task", "options"))
        if place in ("recipe", "preset", "sessions"):
            manifest[place] = text if place != "sessions" else [{"commit": text, text: [text]}]
        elif place == "options":
            manifest["config"]["task_options"] = {text: text}
        else:
            manifest["config"][place] = text
        path.write_text(json.dumps(manifest))
    else:
        mutate_json(path, draw)


def write_table(folder: Path, draw: random.Random) -> None:
    """A table of a run whose bytes are broken, or that holds nonsense."""
    name = draw.choice(("table", "table", "certificates"))
    run = write_recorded(folder, draw, name)
    path = run / f"{name}.parquet"
    if draw.random() < 0.2:
        path.write_bytes(mutated(path.read_bytes(), draw))
    else:
        broken(valid_tables()[name], draw).to_parquet(path, index=False)


WRITERS: dict[str, Callable[[Path, random.Random], None]] = {
    "config": write_config,
    "tensors": write_tensors,
    "index": write_index,
    "kept": write_kept,
    "igsm": write_igsm,
    "answers": write_answers,
    "source": write_source,
    "tokenizer": write_tokenizer,
    "manifest": write_manifest,
    "table": write_table,
}


def write_attack(kind: str, valid: Path, folder: Path, seed: int) -> None:
    """Write the hostile files of one attack into a new folder.

    Args:
      kind: a key of `SHARES`.
      valid: a valid checkpoint, which attacks on checkpoints change.
      folder: the folder to create.
      seed: of the attack.
    """
    if kind in ("config", "tensors", "index", "tokenizer"):
        shutil.copytree(valid, folder)
    else:
        folder.mkdir()
    WRITERS[kind](folder, random.Random(f"{kind} {seed}"))
