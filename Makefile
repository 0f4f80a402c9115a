# make train         sets up .venv, trains on the probe corpus and evaluates
# make starter       sets up .venv and puts the starter model together, outputs/starter
# make space         starts the demo page on the starter model, or on MSFSER_MODEL
# make test          sets up .venv and runs the tests
# make test-oldest   runs the tests, or TESTS, with the lowest supported transformers, in .venv-oldest
# make stress        hostile input and faults in large numbers; MINUTES=30 bounds the part with the demo page
# make audit         asks the Python advisory database about the versions in constraints.txt
# make probe         the ablation on the probe corpus, over three seeds
# make lint          checks format and style

PYTHON ?= python3
VENV := .venv
TESTS ?= tests
MINUTES ?= 30

.PHONY: train starter space test test-oldest stress audit probe lint

train: $(VENV)/ready
	$(VENV)/bin/python train.py configs/probe.yaml

starter: $(VENV)/ready
	$(VENV)/bin/msfser starter outputs/starter

space: $(if $(MSFSER_MODEL),$(VENV)/ready,starter)
	$(VENV)/bin/python space/app.py

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest

test-oldest: $(VENV)-oldest/ready
	$(VENV)-oldest/bin/python -m pytest $(TESTS)

stress: $(VENV)/ready
	cd tests && ../$(VENV)/bin/python -m stress --minutes $(MINUTES)

audit: $(VENV)-audit/ready
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

probe: $(VENV)/ready
	$(VENV)/bin/msfser ablate configs/probe.yaml --num_train_epochs 10

lint: $(VENV)/ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check -c constraints.txt torch -e ".[train,annotate,onnx,space,test]"
	$(VENV)/bin/msfser encoders
	touch $@

# All but transformers and what it pins is that of .venv.
$(VENV)-oldest/ready: $(VENV)/ready
	rm -rf $(VENV)-oldest
	$(PYTHON) -m venv $(VENV)-oldest
	grep -v -E '^(transformers|tokenizers|huggingface_hub)==' constraints.txt > $(VENV)-oldest/constraints.txt
	$(VENV)/bin/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> $$($(VENV)-oldest/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/newest.pth
	$(VENV)-oldest/bin/pip install --disable-pip-version-check -c $(VENV)-oldest/constraints.txt transformers==5.19.0
	touch $@

$(VENV)-audit/ready:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --disable-pip-version-check pip-audit==2.10.1
	touch $@
