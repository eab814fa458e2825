# Fresh machine: `make demo` or `make test`. Both make .venv and install everything into it.
PYTHON ?= python3
BIN    := .venv/bin

.PHONY: help install demo test test-slow lint types clean
help:
	@echo "make demo       install, then run the whole job on simulated patients"
	@echo "make test       install, then lint, type-check and test"
	@echo "make test-slow  the tests that take minutes (full-size teachers)"

install: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	touch $@

demo: install
	$(BIN)/vfss demo build/demo --force

test: lint types
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the package-dir mapping, so it reads an installed copy.
types: install
	rm -rf build/typed build/lib
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/typed .
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../mypy-cache -p vfss_distill

clean:
	rm -rf build .pytest_cache .ruff_cache *.egg-info
