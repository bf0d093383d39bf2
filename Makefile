# Two commands on a fresh machine: `make train` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
DATA   ?= data
# Each test process may start four ranks of its own: more than two do not fit on a laptop.
TEST_PROCESSES ?= 2
bin    := $(VENV)/bin

.PHONY: help install train generate test matrix cluster nightly lint format reference clean
help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

# torch goes in first and alone: deepspeed's build imports it.
$(VENV)/.installed: requirements/requirements.txt requirements/requirements-torch.txt requirements/requirements-sentencepiece.txt requirements/requirements-tensorboard.txt
	$(PYTHON) -m venv $(VENV)
	$(bin)/pip install --quiet --disable-pip-version-check -r requirements/requirements-torch.txt
	$(bin)/pip install --quiet --disable-pip-version-check --no-build-isolation -r requirements/requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/requirements-dev.txt requirements/requirements-preprocessing.txt requirements/requirements-fast-tokenizers.txt requirements/requirements-tiktoken.txt requirements/requirements-wandb.txt requirements/requirements-comet.txt requirements/requirements-s3.txt requirements/requirements-transformers.txt requirements/requirements-lm-eval.txt
	$(bin)/pip install --quiet --disable-pip-version-check --no-build-isolation -r requirements/requirements-dev.txt
	@touch $@

install: $(VENV)/.installed  ## create .venv with everything a run needs

# Without a GPU 2 local processes, with GPUs 1, 2 or 4 of them: the default model is small, its batch of 4 divides no further.
processes = $(shell $(bin)/python -c "from megatron.launcher.devices import count_devices; print({0: 2, 1: 1, 2: 2, 3: 2}.get(count_devices(), 4))")

train: $(VENV)/.installed  ## train the default model on the standard library's source; continues where it stopped
	$(bin)/python prepare_data.py python_stdlib -d $(DATA)
	$(bin)/python deepy.py train.py configs/python_10M.yml configs/local_setup.yml num_gpus=$(processes)
	$(bin)/python deepy.py generate.py configs/python_10M.yml configs/local_setup.yml configs/text_generation.yml

test: $(VENV)/.installed-dev  ## run the whole test suite
	$(bin)/python -m pytest -m "not gpu and not matrix and not nightly" -n $(TEST_PROCESSES) --dist loadfile

matrix: $(VENV)/.installed-dev  ## compare every layout with one process, and runs carried over from one to another (minutes); write the tables
	$(bin)/python -m pytest -m "not gpu" tests/distributed/matrix tests/distributed/resharding tests/distributed/test_conversion.py \
		tests/distributed/test_compiled.py tests/unit/model/test_compiled.py --update-matrix

cluster: $(VENV)/.installed-dev  ## run every launcher on hosts of its own (minutes, as root; .ci/run has the packages); write the table
	$(bin)/python -m pytest tests/cluster -v -rs --update-matrix
	@cat tests/cluster/launchers.md

nightly: $(VENV)/.installed-dev  ## kill runs of four processes again and again (an hour), and show what happened
	$(bin)/python -m pytest -m nightly -s

lint: $(VENV)/.installed-dev  ## ruff, mypy (strict), import contracts, the reference of all keys, hadolint, shellcheck
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports
	$(bin)/python tools/config_reference.py --check
	$(bin)/hadolint containers/docker/Dockerfile
	$(bin)/shellcheck .ci/run containers/docker/*.sh tools/bash/*.sh tools/slurm/*.sbatch

format: $(VENV)/.installed-dev  ## rewrite the code as `make lint` wants it
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

reference: $(VENV)/.installed  ## rewrite configs/neox_arguments.md and its schema from the code
	$(bin)/python tools/config_reference.py --write

clean:           ## remove the environment, data and runs of `make train`
	rm -rf $(VENV) $(DATA) runs
