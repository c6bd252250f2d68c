# Two commands for a newcomer: `make demo` and `make test`. Both make what they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Tests run side by side, in so many processes; each has servers of its own. Three times the two cores of a small machine:
# with four processes they had nothing to do for a sixth of the time, while tests of flows waited for Prefect's clocks.
JOBS ?= 6
PYTEST := $(BIN)/python -m pytest
BESIDE = --numprocesses $(JOBS) --dist loadgroup

.PHONY: demo test test-slow test-prefect-next collected test-all drills test-optional ui lint check coverage profile bench lock servers clean docs storm soak fuzz fuzz-atheris sbom pins

# Everything comes by hash, also what installs (uv takes seconds where pip takes a minute) and what builds the package.
$(BIN)/transship: pyproject.toml requirements.lock deployments/build.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deployments/build.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(BIN)/transship

demo: $(BIN)/transship   ## relocate a bundle between two image-layout folders, without any server
	$(BIN)/python deployments/examples/demo.py

servers:                 ## what the tests talk to: docker-registry, skopeo, PostgreSQL and small tools (Debian packages)
	@{ which docker-registry skopeo man groff openssl curl git && ls /usr/lib/postgresql/*/bin/postgres; } >/dev/null 2>&1 \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends \
	    docker-registry skopeo postgresql man-db openssl curl git; }

test: $(BIN)/transship servers   ## all but the slow ones
	$(PYTEST) $(BESIDE)

test-slow: $(BIN)/transship servers   ## kills in series, storms, thousands of tags, Prefect's clocks, both databases; properties at length
	$(PYTEST) $(BESIDE) -m "slow or hypothesis" --hypothesis-profile long

ui: $(BIN)/transship servers   ## the Prefect UI in headless Chromium, which is installed when it isn't there
	@command -v chromedriver >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; }
	$(PYTEST) -m optional tests/ui

NEXT ?= tests/flows tests/tasks
# `OVERRIDE=` tests what a plain `pip install` resolves to: SQLAlchemy below the bound that Prefect 3.8 needs.
OVERRIDE ?= sqlalchemy[asyncio]>=2.1
test-prefect-next: $(BIN)/transship servers   ## the flows on the newest Prefect and SQLAlchemy that resolve, in a venv of its own
	test -x .venv-next/bin/python || $(PYTHON) -m venv --without-pip .venv-next
	echo "$(OVERRIDE)" > .venv-next/override.txt
	$(BIN)/uv pip install --quiet --python .venv-next/bin/python --compile-bytecode --upgrade --override .venv-next/override.txt \
	  "prefect>=3.9" -e . --group dev
	.venv-next/bin/python -m pytest $(BESIDE) $(NEXT)
	.venv-next/bin/python -m pytest -m slow tests/flows/test_mirror_deployments.py -k schedule_fires

test-optional: $(BIN)/transship servers   ## what needs 900 MB more: Chromium, Ceph as a second, stricter S3, and Helm
	@command -v radosgw >/dev/null && command -v chromedriver >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver ceph-mon ceph-osd radosgw ceph-common; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r tests/deployments/helm.lock
	$(PYTEST) -m optional

collected: $(BIN)/transship   ## the tests as bytecode, once; else each process of pytest compiles all of them as it begins
	$(PYTEST) --collect-only --quiet >/dev/null

# What fails is tried once more: a busy machine is no defect. The summary names it (RERUN), and it is mended like a failure.
test-all: $(BIN)/transship servers   ## both in one run
	$(PYTEST) $(BESIDE) -m "not optional and not drill" --hypothesis-profile ci --reruns 1

drills: $(BIN)/transship servers   ## a server that is restarted, a machine that dies, at real settings: a quarter of an hour
	$(PYTEST) -m drill

STORM ?= --table docs/reference/storm.md
storm: $(BIN)/transship servers   ## every fault of the table with every operation, some forty minutes on two busy cores; writes a page of the book
	$(BIN)/python -m tests.storm $(STORM)

SOAK ?= 3600
soak: $(BIN)/transship servers   ## mirrors for so many seconds, with faults: memory, descriptors and threads stay as they are
	$(BIN)/python -m tests.storm.soak --seconds $(SOAK)

FUZZ ?= 20000
fuzz: $(BIN)/transship   ## every parser, with so many examples each: an hour
	HYPOTHESIS_EXAMPLES=$(FUZZ) $(PYTEST) -m "" $(BESIDE) --hypothesis-profile fuzz tests/fuzz

PARSER ?= manifests
fuzz-atheris: $(BIN)/transship   ## one parser (PARSER=NAME) by coverage, for ten minutes, with atheris (its wheels are for CPython on Linux)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r tests/fuzz/requirements.lock
	$(BIN)/python -m tests.fuzz "$(PARSER)" -max_total_time=600

lint: $(BIN)/transship
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Without servers nothing waits, and each further process takes 8 s of CPU to collect the tests.
check: JOBS = 3
check: lint              ## and the tests that start no server: a minute
	$(PYTEST) --quiet --no-servers $(BESIDE)

coverage: $(BIN)/transship servers   ## lines and branches that `make test` runs, also in the processes it starts: htmlcov/
	rm -rf .coverage .coverage.* htmlcov
	$(BIN)/coverage run -m pytest $(BESIDE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report --sort cover

PROGRAM ?= deployments/examples/demo.py
profile: $(BIN)/transship   ## where the time goes, as a flame graph: make profile PROGRAM=".venv/bin/transship copy -b ..."
	$(BIN)/py-spy record --subprocesses --rate 200 --output profile.svg -- $(BIN)/python $(PROGRAM)

docs: $(BIN)/transship   ## the book, into site/, and manual pages, into site/man; its reference pages are made from the declarations
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/transship help --man-pages site/man

bench: $(BIN)/transship servers
	$(BIN)/python -m tests.benchmarks

COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate
lock: $(BIN)/transship   ## write the locks anew: all, what the image has, what builds it; UPGRADE=--upgrade for new versions
	$(COMPILE) $(UPGRADE) pyproject.toml --group dev -o requirements.lock
	$(COMPILE) pyproject.toml -c requirements.lock -o deployments/requirements.lock
	$(COMPILE) --group pyproject.toml:build -c requirements.lock -o deployments/build.lock

sbom: $(BIN)/transship   ## what the package and the image are made of, as CycloneDX
	mkdir -p dist
	$(BIN)/python deployments/sbom.py > dist/sbom.json
	$(BIN)/python deployments/sbom.py --image > dist/sbom-image.json

pins: $(BIN)/transship   ## renew the digests of images of other people; asks their registries
	$(BIN)/python deployments/pins.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .demo .bench profile.svg .coverage .coverage.* htmlcov site
