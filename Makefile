# Everything runs from .venv, set up from the pinned constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SWEETSPOT := $(BIN)/sweetspot
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RESULTS := experiments/results
SAMPLE ?= 100

.PHONY: demo test test-slow test-long mutants lint types bench hostile figures clean

demo: $(VENV)/.base  ## run the main recipe at demo size, certify it, draw its figures, write its report
	$(SWEETSPOT) run paper-protocol --preset demo --out runs/demo
	$(SWEETSPOT) bound --results runs/demo --mixture exact --data-sizes 512 4096 \
		--methods base test-set held-out
	$(SWEETSPOT) report --results runs/demo

test: $(VENV)/.dev  ## the default tests
	$(BIN)/python -m pytest --refuse-skips -n 2 --dist loadfile -m "not slow"

test-slow: $(VENV)/.all  ## the slow tests: parity with transformers and torch, a real browser
	$(BIN)/python -m pytest --refuse-skips -n 2 --dist worksteal -m slow

test-long: $(VENV)/.dev  ## hours, run by hand: 500 kills, 200 signals, 10,000 fuzzed lines, 1,000 hostile files
	$(BIN)/python -m tests.kills --number 500 --out .cache/kills.json
	$(BIN)/python -m tests.kills --number 200 --signals INT TERM --out .cache/signals.json
	$(BIN)/python -m tests.kills --record .cache/kills.json .cache/signals.json
	$(BIN)/python -m tests.fuzz --number 10000 --out .cache/fuzz.json
	$(BIN)/python -m tests.fuzz --record .cache/fuzz.json
	$(BIN)/python -m tests.hostile --number 1000 --record

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mutants: $(VENV)/.dev  ## put small faults into the code, one at a time, and see that tests notice
	$(BIN)/python -m tests.mutants --sample $(SAMPLE)

types: $(VENV)/.all
	$(BIN)/pyright --threads 2

bench: $(VENV)/.all  ## measure against plain JAX and PyTorch and record the tables
	$(BIN)/python -m experiments.benchmarks.grid --record
	$(BIN)/python -m experiments.benchmarks.phases --record
	$(BIN)/python -m experiments.benchmarks.growth --record
	$(BIN)/python -m experiments.benchmarks.generation --record
	$(BIN)/python -m experiments.benchmarks.bounds --record
	$(BIN)/python -m experiments.benchmarks.igsm --record
	$(BIN)/python -m experiments.benchmarks.llm --record
	$(BIN)/python -m experiments.benchmarks.finetuning --record
	test -d runs/SmolLM2-135M-Instruct || $(BIN)/python -m experiments.llm.smollm2 runs/SmolLM2-135M-Instruct
	$(BIN)/python -m experiments.benchmarks.smollm2 --record
	$(BIN)/python -m experiments.benchmarks.cluster --record
	$(BIN)/python -m experiments.benchmarks.plan --record
	$(BIN)/python -m experiments.pages.documents

hostile: $(VENV)/.dev  ## attack the path of real checkpoints with 1,000 hostile files, and record what became of each
	$(BIN)/python -m tests.hostile --number 1000 --record

figures: $(VENV)/.base  ## redraw every picture and table of README and docs from the tracked results
	$(SWEETSPOT) figures --results $(RESULTS)/tradeoff --names accuracy_over_difficulty \
		accuracy_over_size change_by_slice gaps map optimum_over_size
	$(BIN)/python -m experiments.pages.settings
	$(SWEETSPOT) figures --results $(RESULTS)/paper-protocol --names accuracy_over_difficulty \
		accuracy_over_size base_accuracy bound_over_curve change_by_slice gap_parts map
	$(SWEETSPOT) figures --results $(RESULTS)/controls-range --names bound_over_curve certified_optimum
	$(SWEETSPOT) figures --results $(RESULTS)/prediction-dyck-uniform --names accuracy_over_difficulty \
		change_by_slice
	$(SWEETSPOT) figures --results $(RESULTS)/leave-out --names leave_out
	$(SWEETSPOT) figures --results $(RESULTS)/thirds --names accuracy_over_size
	$(SWEETSPOT) figures --results $(RESULTS)/settings
	$(SWEETSPOT) figures --results $(RESULTS)/losses --names losses
	$(SWEETSPOT) figures --results $(RESULTS)/difficulty
	$(SWEETSPOT) figures --results $(RESULTS)/certificates \
		--names certificates certified_gaps complexity tightness
	$(SWEETSPOT) figures --results $(RESULTS)/prediction
	$(SWEETSPOT) compare $(RESULTS)/paper-protocol \
		$(filter-out %-range,$(wildcard $(RESULTS)/families-*)) --out $(RESULTS)/families
	$(SWEETSPOT) figures --results $(RESULTS)/igsm
	$(SWEETSPOT) figures --results $(RESULTS)/smollm2-gsm --names change_by_slice scan_gains
	$(SWEETSPOT) figures --results $(RESULTS)/smollm2-igsm --names change_by_slice scan_gains
	$(SWEETSPOT) figures --results $(RESULTS)/tiny-igsm --names map change_by_slice tightness
	$(BIN)/python -m experiments.pages.documents

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) --editable ".[dev,llm]"
	touch $@

$(VENV)/.all: $(VENV)/.dev
	$(PIP) --editable ".[dev,llm,gguf,gym,logging,harness,bench,browser,ray,trainers]"
	touch $@

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis
