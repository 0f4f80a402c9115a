# make train         trains on the probe corpus and evaluates
# make starter       assembles the starter model in outputs/starter
# make space         starts the demo page with the starter model, or with MSFSER_MODEL
# make test          runs the tests, or TESTS
# make test-oldest   runs the tests, or TESTS, with the lowest supported transformers, in .venv-oldest
# make stress        hostile input and faults in large numbers; MINUTES=30 bounds the part with the demo page
# make common        the common tests of transformers, from its sdist, on four tiny models
# make mutants       puts 300 small faults into copies of the source, and counts those that a test notices (hours)
# make lint          checks format, style, types and spelling
# make audit         asks the Python advisory database about the versions in constraints.txt
# make licenses      lists the licenses of the dependencies in docs/licenses.md
# make probe         runs the ablation on the probe corpus, over three seeds, and publishes it
# make docs          fills the tables and figures of the documentation in from benchmarks/results
# make wheel         builds the package in dist/
#
# All but audit set up .venv first.

PYTHON ?= python3
VENV := .venv
PIP := bin/pip --disable-pip-version-check
TESTS ?= tests
# One process of tests for each core, with one thread each.
PYTEST = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest --numprocesses=logical --dist=worksteal
MINUTES ?= 30

.PHONY: train starter space test test-oldest stress common mutants lint audit licenses probe docs wheel

train: $(VENV)/ready
	$(VENV)/bin/python train.py configs/probe.yaml

starter: $(VENV)/ready
	$(VENV)/bin/msfser starter outputs/starter

space: $(if $(MSFSER_MODEL),$(VENV)/ready,starter)
	$(VENV)/bin/msfser space

test: $(VENV)/ready
	$(call PYTEST,$(VENV)) $(TESTS)

test-oldest: $(VENV)-oldest/ready
	$(call PYTEST,$(VENV)-oldest) $(TESTS)

stress: $(VENV)/ready
	MINUTES=$(MINUTES) $(VENV)/bin/python -m pytest -m stress -s -o faulthandler_timeout=0 tests/stress

common: $(VENV)-common/ready
	MSFSER_TRANSFORMERS_SDIST=$(VENV)-common PYTHONPATH=$(VENV)-common/site $(call PYTEST,$(VENV)) -m common tests/common

mutants: $(VENV)/ready
	cd tests && ../$(VENV)/bin/python -m mutants

lint: $(VENV)/ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell

audit: $(VENV)-audit/ready
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

licenses: $(VENV)/ready
	sed -i.old '/^|/,$$d' docs/licenses.md && rm docs/licenses.md.old
	$(VENV)/bin/pip-licenses --from=mixed --format=markdown --ignore-packages msfser \
		| sed 's/  */ /g; s/---*/---/g' >> docs/licenses.md

probe: $(VENV)/ready
	$(VENV)/bin/msfser ablate configs/probe.yaml --num_train_epochs 10
	cp outputs/ablation/probe/results.json benchmarks/results/ablation_probe.json
	cp outputs/ablation/probe/differences.svg assets/ablation_probe.svg

docs: $(VENV)/ready
	$(VENV)/bin/python -m msfser.benchmarks.tables

wheel: $(VENV)/ready
	rm -rf build dist
	$(VENV)/$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build

# The link gives mypy the checkout under the package's name.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/$(PIP) install -c constraints.txt torch -e ".[all,test,lint]"
	mkdir -p $(VENV)/src
	ln -sfn ../.. $(VENV)/src/msfser
	$(VENV)/bin/msfser encoders
	touch $@

# All but transformers and what it pins is that of .venv.
$(VENV)-oldest/ready: $(VENV)/ready
	rm -rf $(VENV)-oldest
	$(PYTHON) -m venv $(VENV)-oldest
	grep -v -E '^(transformers|tokenizers|huggingface_hub)==' constraints.txt > $(VENV)-oldest/constraints.txt
	$(VENV)/bin/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> $$($(VENV)-oldest/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/newest.pth
	$(VENV)-oldest/$(PIP) install -c $(VENV)-oldest/constraints.txt transformers==5.19.0
	touch $@

# The sdist of the pinned transformers, whose tests the wheel does not have, and a package that they need.
$(VENV)-common/ready: $(VENV)/ready
	rm -rf $(VENV)-common
	$(VENV)/$(PIP) download --no-deps --no-binary transformers -c constraints.txt -d $(VENV)-common transformers
	tar -xzf $(VENV)-common/transformers-*.tar.gz -C $(VENV)-common --strip-components 1
	$(VENV)/$(PIP) install --no-deps --target $(VENV)-common/site parameterized==0.9.0
	touch $@

$(VENV)-audit/ready:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/$(PIP) install pip-audit==2.10.1
	touch $@
