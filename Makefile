# `make` sets up and replicates; `make test` sets up and tests. Everything works without a network but the package
# registry, and without a GPU.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tried versions; torch first, so that nothing can pull a build with gigabytes of CUDA.
TORCH := torch==2.13.0
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := default
.PHONY: default smoke full paper cluster-check paper-check report forecast ui bench verify-readme lint test test-slow clean clean-results clean-data format help

default: $(VENV)/.installed ## the default replication, minutes on a laptop
	snakemake --quiet rules
	@spikebench where

smoke: $(VENV)/.installed ## every rule, tiny: is everything in order?
	snakemake --quiet rules --config preset=smoke
	@spikebench where --preset smoke

full: $(VENV)/.installed ## the published replication, an evening
	snakemake --quiet rules --config preset=full
	@spikebench where --preset full

paper: $(VENV)/.installed ## the papers' own sizes on a Slurm cluster with GPUs (docs/cluster.md; ARGS for what is yours)
	snakemake --workflow-profile profiles/slurm --config preset=paper $(ARGS)

cluster-check: $(VENV)/.installed ## what would be asked of a cluster; nothing is sent (PRESET=full for another preset than paper)
	snakemake --workflow-profile profiles/slurm --dry-run --quiet all --config preset=$(or $(PRESET),paper)
	@spikebench resources --preset $(or $(PRESET),paper)

paper-check: $(VENV)/.installed ## a few steps of each kind of training of the preset paper, and how long all of it would take
	spikebench calibrate --preset paper
	@spikebench resources --preset paper --total

report: $(VENV)/.installed ## tables, figures, claims and page from whatever rows exist (PRESET=full for another preset)
	spikebench all-from-rows $(if $(PRESET),--preset $(PRESET))

forecast: $(VENV)/.installed ## what is trained already, and about how long the rest takes (PRESET=full for another preset)
	@spikebench forecast $(if $(PRESET),--preset $(PRESET))

ui: $(VENV)/.installed ## browse the runs in MLflow on 127.0.0.1
	spikebench ui

bench: $(VENV)/.installed ## speed against peers; every figure the README quotes
	python benchmarks/mh_engine.py
	python benchmarks/aedat.py
	python benchmarks/binning.py
	python benchmarks/frames.py
	python benchmarks/camera.py
	python benchmarks/bisnn_step.py
	python benchmarks/gem_snn_step.py
	python benchmarks/feedback_training.py
	python benchmarks/bptt.py

verify-readme: $(VENV)/.installed ## is every number of the README what the published rows say? (a test asks it, too)
	python docs/published/publish.py --verify

lint: $(VENV)/.installed ## format, style, types, workflow, container
	ruff format --check .
	ruff check .
	mypy
	snakefmt --check --line-length 120 Snakefile workflow/rules
	snakemake --lint
	hadolint Dockerfile

format: $(VENV)/.installed
	ruff format .
	ruff check --fix .
	snakefmt --line-length 120 Snakefile workflow/rules

test: $(VENV)/.installed ## all tests but the long drills
	pytest -n 2 --dist loadgroup

test-slow: $(VENV)/.installed ## the long drills: kill -9 at random moments, power cuts, statistics with many draws
	pytest -m slow

clean: ## caches and the environment; results stay
	rm -rf $(VENV) .snakemake .pytest_cache .mypy_cache .ruff_cache *.egg-info

clean-results: ## the only target that deletes results; data stays
	find results -mindepth 1 -not -name README.md -not -path 'results/data*' -delete

clean-data: ## fetched archives and the frames made of them
	rm -rf results/data

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s:

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit('Spikebench needs Python 3.11 or newer: make PYTHON=python3.11' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m spikebench.compile
	touch $@
