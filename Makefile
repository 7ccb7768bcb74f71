# The same words at home and in CI. Everything stays inside this folder: .venv, .demo, .chaos and tool caches.

PYTHON ?= python3
BIN := .venv/bin
# uv takes a quarter of pip's time, which is two minutes. Of pip's settings it knows nothing: what it cannot find, pip may.
PIP := $(BIN)/pip install --quiet --no-compile -c constraints.txt
UV := $(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python $(addprefix --find-links ,$(PIP_FIND_LINKS)) -c constraints.txt
INSTALL := install() { $(UV) "$$@" || { echo "uv cannot; pip tries"; $(PIP) "$$@"; }; }; install
# Newer than pyproject.toml and constraints.txt: the environment is as they say, and `make setup` has nothing to do.
READY := .venv/.ready
UNREAD := /(tests|testing|networkx|pip|mypy|mypyc|setuptools|moto)/|/transformers/models/|/sympy/(physics|stats|plotting)/

.PHONY: setup demo screenshots test chaos test-browser test-gpu check bench bench-gpu night clean

setup: $(READY)

# torchao lies apart, for the one test that wants it: diffusers imports it wherever it is installed, for seconds.
# The tests' invisible-watermark asks for opencv-python, which needs a display library (libGL) that servers do not have.
# The headless build is the same module without windows. Both write the folder cv2, so both go before the headless comes.
# compileall has all cores, for what somebody reads: the rest is half of it all. Templates do not compile, and may.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON) here; Nightshift needs Python 3.11, 3.12 or 3.13." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Nightshift needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	    "name another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module; on Debian and Ubuntu it is the package python3-venv." >&2; exit 1; }
	@echo "Installing into .venv, which takes a few minutes the first time"
	@$(PYTHON) -m venv .venv
	@$(PIP) uv
	@$(INSTALL) -e '.[worker,embedded,export,http,parquet,postgres,s3,web,zstd,dev]'
	@$(BIN)/pip uninstall -qq --yes opencv-python opencv-python-headless
	@$(INSTALL) --no-deps opencv-python-headless
	@$(INSTALL) --no-deps --target .venv/fp8 --upgrade torchao
	@$(BIN)/python -W ignore -m compileall -qq -j 0 -x '$(UNREAD)' .venv/lib .venv/fp8 || true
	@touch $@

demo: setup
	rm -rf .demo
	NIGHTSHIFT_HOME=.demo/home $(BIN)/nightshift render examples/demo.tsv --pair tiny --out .demo/images

# The pictures of docs/page.md, by Debian's Chromium. What the page looks like is looked at, and then committed.
screenshots: setup
	GOMP_SPINCOUNT=0 $(BIN)/python -m docs.screenshots

# Several processes render beside each other: OpenMP's threads must not spin while they wait. Tests that share a farm, or
# the fork server that their processes come from (tests/acceptance/conftest.py, tests/chaos), run in one process, and so
# does each file. Three on two cores: the farms and the chaos tests mostly wait, and the third has the cores meanwhile.
# Bytecode is kept, whatever the environment says: else each of some hundred processes compiles all modules anew.
test: setup
	PYTHONDONTWRITEBYTECODE= GOMP_SPINCOUNT=0 $(BIN)/pytest --numprocesses 3 --dist loadgroup

# Hours. It may be cut short: what is finished stands in .chaos/finished.jsonl, and the next call goes on from there.
chaos: setup
	GOMP_SPINCOUNT=0 $(BIN)/python -m tests.chaos

# The page in Debian's Chromium. Without one they are skipped, and say so; with CI=true they fail.
test-browser: setup
	GOMP_SPINCOUNT=0 $(BIN)/pytest -m browser

# The exactness tests on the GPU, in float32 and float16. Without a GPU they are skipped, and say so.
test-gpu: setup
	$(BIN)/pytest -m gpu

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/sizes.py

# SDXL's architecture with random weights on the GPU. Without one it says so.
bench-gpu: setup
	$(BIN)/python -m benchmarks.gpu

# Ten minutes of bulk work, disturbed on the way: by the clock, so no benchmark.
night: setup
	GOMP_SPINCOUNT=0 $(BIN)/python -m benchmarks.night

# Each script of benchmarks/ but those that have a word of their own. Together they take less than ten minutes on two idle
# cores; alone, each takes larger sizes by itself. One that misses its goal does not keep the others from running.
BENCHES = $(filter-out night gpu,$(patsubst benchmarks/%.py,%,$(shell grep -l __main__ benchmarks/*.py)))
BENCH_answers := --jobs 20000 --rounds 1
BENCH_dispatch := --packs 2
BENCH_export := --images 400 --rounds 1
BENCH_farm := --devices 250 --packs 1
BENCH_finish := --rounds 5
BENCH_naive := --limit 8 --steps 6 --rounds 3 --reproduced 1
BENCH_overhead := --seconds 75
BENCH_scale := --jobs 20000
BENCH_startup := --rounds 1
BENCH_submit := --rows 20000 --simple-rows 500

bench: setup
	@missed=; $(foreach name,$(BENCHES),echo "benchmarks/$(name).py"; \
	  $(BIN)/python -m benchmarks.$(name) $(BENCH_$(name)) || missed="$$missed $(name)";) \
	  test -z "$$missed" || { echo "failed or under their goals:$$missed" >&2; exit 1; }

clean:
	rm -rf .venv .demo .chaos build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
