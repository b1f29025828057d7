# `make quickstart` and `make test` set up what they need; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Modules are compiled once rather than by each process, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-all image-check kube-check lint docs bench bench-gpu bench-scale races tables manifests lock clean

quickstart: $(READY)
	$(BIN)/isoflop run studies/quickstart.yaml

# A process per core and one more; the sweeps run in one of them, one after the other.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --durations 25

test: $(READY)
	$(PYTEST) -m "not full"

# Every test, including the long ones: many kills, every format of every export, long benchmarks.
test-all: $(READY)
	$(PYTEST)

# Builds the image with Docker or Podman and runs it; without a registry, on a base of Debian's packages.
image-check: $(READY)
	ISOFLOP_IMAGE_CHECK=1 $(BIN)/python -m pytest -s --timeout 3000 tests/kube/test_image.py

# The chart and the commands on a real API server, built from Debian 12's source at the first call.
kube-check: $(READY)
	ISOFLOP_KUBE_CHECK=1 $(BIN)/python -m pytest --timeout 3000 tests/kube/real

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --num-workers auto

# The documentation, in site/; a broken link or anchor fails.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Each speed goal beside its reference, as ratios; BENCH="skipping pruning" for some of them.
bench: $(READY)
	$(BIN)/python -m tests.bench.speed $(BENCH)

bench-gpu: $(READY)
	$(BIN)/python -m tests.bench.speed --device cuda $(BENCH)

# Cost per trial against their number; TRIALS=500 for a short look.
TRIALS ?= 5000
bench-scale: $(READY)
	$(BIN)/python -m tests.bench.scale --trials $(TRIALS)

# Races searchers on two of the recorded tables, and writes the rows and the figure of docs/races.md.
races: $(READY)
	$(BIN)/python -m tests.bench.races studies/tables/sums.parquet studies/tables/digits.parquet \
		--page docs/races.md --figure docs/search.png $(RACES)

# Records the tables that searches are compared on, and prints how good they are; TABLES="digits" for
# some. An interrupted recording resumes.
TABLES ?= $(patsubst studies/tables/%.yaml,%,$(wildcard studies/tables/*.yaml))
tables: $(READY)
	for name in $(TABLES); do \
		$(BIN)/isoflop run studies/tables/$$name.yaml && $(BIN)/isoflop table studies/tables/$$name.yaml \
			--to studies/tables/$$name.parquet || exit; \
	done
	$(BIN)/python -m tests.bench.recorded $(TABLES:%=studies/tables/%.parquet)

# The chart as plain objects, for kubectl without Helm; a test compares them.
manifests: $(READY)
	$(BIN)/python tests/kube/chart/rendering.py --write

# The environment as it is now becomes the lock; a machine's own build of torch stays its own.
lock: $(READY)
	echo '# Every version that isoflop is run and tested with; made by `make lock`.' > requirements.lock
	$(BIN)/pip freeze --exclude-editable | sed 's/^\(torch==[^+]*\)+.*/\1/' >> requirements.lock

clean:
	rm -rf .venv build dist site *.egg-info

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "isoflop needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint requirements.lock \
		--editable '.[cluster,dev,docs,export,k8s,mnist]'
	@# Not the libraries' own tests, nor Kubernetes' second client; what cannot be compiled is no module.
	$(BIN)/python -m compileall -qq -j 0 -x '/(tests?|aio)/' .venv/lib || true
	touch $(READY)
