# Two commands for a newcomer: `make demo` and `make test`. Both make what they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-optional ui check bench lock servers clean docs

$(BIN)/transship: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv   # installs in seconds what takes pip a minute
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $(BIN)/transship

demo: $(BIN)/transship   ## relocate a bundle between two image-layout folders, without any server
	$(BIN)/python deployments/examples/demo.py

servers:                 ## what the tests talk to: docker-registry, skopeo and PostgreSQL (Debian packages)
	@command -v docker-registry >/dev/null && command -v skopeo >/dev/null && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends docker-registry skopeo postgresql; }

test: $(BIN)/transship servers
	$(BIN)/python -m pytest

ui: $(BIN)/transship servers   ## the Prefect UI in headless Chromium, which is installed when it isn't there
	@command -v chromedriver >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; }
	$(BIN)/python -m pytest -m optional tests/ui

test-optional: $(BIN)/transship servers   ## what needs 600 MB more: Chromium, and Ceph as a second, stricter S3
	@command -v radosgw >/dev/null && command -v chromedriver >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver ceph-mon ceph-osd radosgw ceph-common; }
	$(BIN)/python -m pytest -m optional

check: $(BIN)/transship  ## lint, format, types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

docs: $(BIN)/transship   ## the book, into site/; its reference pages are made from the declarations
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: $(BIN)/transship servers
	$(BIN)/python -m tests.benchmarks

lock:                    ## write both locks anew, the second without the tools of development; needs uv
	uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-header --no-annotate -o requirements.lock
	uv pip compile pyproject.toml -c requirements.lock --universal --generate-hashes --no-header --no-annotate -o deployments/requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .demo .bench site
