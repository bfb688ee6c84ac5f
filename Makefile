# Every target sets up .venv by itself, or another one: make PYTHON=python3.12 VENV=.venv-3.12 ... Try `make help`.
PYTHON ?= python3
SOURCE ?= gs://mixer_models
OUT ?= build
VERSION ?= 2
FLAVOUR ?= native
HANDLES ?=
TO ?=
PUBLISHER ?=
ASSETS ?=
PYTEST ?=
JOBS ?= auto
VENV ?= .venv
WITHSTAND ?=
BENCH ?=

TAG := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
LOCK := .ci/locks/$(TAG).txt
READY := $(VENV)/.ready-$(TAG)
RUN := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help setup demo digits convert-all parity republish test lint types whole browser ray matrix bench withstand fuzz audit lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

# uv, which pip installs first, takes a third of pip's time. It does not read pip's configuration (an index of one's own,
# for instance): where it fails, pip installs the rest too.
$(READY): $(LOCK) pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	awk '/^[^ #]/ { uv = /^uv==/ } uv' $(LOCK) >$(VENV)/uv.txt
	$(VENV)/bin/pip install --quiet --require-hashes --requirement $(VENV)/uv.txt
	$(VENV)/bin/uv pip install --quiet --python $(VENV) --compile-bytecode --require-hashes --requirement $(LOCK) || \
	  $(VENV)/bin/pip install --quiet --require-hashes --requirement $(LOCK)
	$(VENV)/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(LOCK):
	@echo "no lock file for this Python ($(TAG)): use 3.11, 3.12 or 3.13, for instance make PYTHON=python3.12 ..." >&2; exit 2

setup: $(READY)  ## set up .venv with the locked packages

demo: $(READY)  ## write six synthetic checkpoints, convert and check all twelve handles, show the table
	$(RUN) convert seed build/demo/checkpoints
	$(RUN) convert convert-all --jobs 2 --source build/demo/checkpoints --out build/demo/models
	@echo "The commands of the README find these models after:"
	@echo "  export MIXER_JAX2TF_SOURCE=build/demo/checkpoints MIXER_JAX2TF_OUT=build/demo/models"

digits: $(READY)  ## train a small Mixer on real digits, convert and fine-tune it, draw OUT/digits/digits.png
	$(RUN) convert digits --out "$(OUT)/digits" --overwrite

convert-all: $(READY)  ## fetch, convert and check the handles from SOURCE into OUT
	$(RUN) convert convert-all --jobs 2 --source "$(SOURCE)" --out "$(OUT)" --version $(VERSION) --flavour $(FLAVOUR) $(HANDLES)

parity: $(READY)  ## check the converted models with the full set; writes OUT/parity.xml
	$(RUN) convert validate --set full --jobs 2 --memory 7 --source "$(SOURCE)" --out "$(OUT)" --version $(VERSION) --flavour $(FLAVOUR) $(HANDLES)

republish: $(READY)  ## convert and publish new versions of outdated models: TO=DEST PUBLISHER=name ASSETS=URL
	$(RUN) convert republish --to "$(TO)" --publisher "$(PUBLISHER)" --assets "$(ASSETS)" --source "$(SOURCE)" \
	  --out "$(OUT)" --flavour $(FLAVOUR) $(HANDLES)

# Types are checked beside the tests. What mypy says is shown if it fails: pytest's closing line is the last otherwise.
test: lint  ## lint, types, tests (offline; tiny models)
	$(RUN) mypy >$(VENV)/types.txt 2>&1 & types=$$!; \
	$(RUN) pytest -n $(JOBS) --maxprocesses 4 --dist worksteal -m 'not whole and not browser and not matrix and not ray' $(PYTEST); \
	tests=$$?; wait $$types || { cat $(VENV)/types.txt >&2; exit 1; }; exit $$tests

lint: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(READY)
	$(RUN) mypy

whole: $(READY)  ## tests with full-size models, and those that take long
	$(RUN) pytest -n $(JOBS) --maxprocesses 2 --dist loadfile -m whole $(PYTEST)

browser: $(READY)  ## tests of the page in a real browser (Chromium and its driver)
	$(RUN) pytest -m browser $(PYTEST)

ray: $(READY)  ## tests on a Ray cluster whose workers and nodes are killed
	$(RUN) pytest -m ray $(PYTEST)

matrix: $(READY)  ## run models in each TensorFlow release; writes OUT/matrix.json
	$(RUN) convert matrix --out "$(OUT)"

bench: $(READY)  ## measure conversion, inference and start-up; writes OUT/bench (BENCH=--quick: a few ratios)
	$(RUN) convert bench --out "$(OUT)/bench" $(BENCH) $(HANDLES)

withstand: $(READY)  ## inject faults and count what is survived; writes validation/WITHSTAND.md (WITHSTAND=--full: all)
	$(VENV)/bin/python tests/withstand/__main__.py $(WITHSTAND)

fuzz: $(READY)  ## read 20,000 mutated inputs, and as many that coverage guides: a section of `make withstand`, in full
	$(VENV)/bin/python tests/withstand/__main__.py --only hostile --full

# Needs the network. Each accepted vulnerability is a line of the list: its identifier, `#`, and the reason.
audit: $(READY)  ## ask PyPI for known vulnerabilities of the locked packages, except those that .ci/accepted.txt lists
	$(RUN) pip_audit --disable-pip --require-hashes --requirement $(LOCK) \
	  $$(sed -n 's/^\([A-Z][A-Za-z0-9-]*\).*/--ignore-vuln \1/p' .ci/accepted.txt)

lock: $(READY)  ## resolve the packages again for each Python
	for minor in 11 12 13; do \
	  $(VENV)/bin/uv pip compile --quiet --upgrade --generate-hashes --no-strip-extras --extra dev --python-version 3.$$minor \
	    --no-header pyproject.toml --output-file .ci/locks/py3$$minor.txt || exit 1; \
	done

clean:  ## remove .venv and the demo's files
	rm -rf $(VENV) build/demo
