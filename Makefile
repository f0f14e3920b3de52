# `make test` is the README's test command; the rest is for people who change the code.
.PHONY: install test cpu-test gpu-test stress lint types pages check site docs format

install:
	pip install --quiet --constraint constraints.txt ".[test]"

test: install
	python -m pytest -n 2 --dist loadfile

# The tests of arithmetic under the other instruction sets that torch can use on this CPU: what
# rounds differs, what comes out may not.
cpu-test:
	for capability in $$(python tests/support/cpu_capabilities.py); do \
		echo "ATEN_CPU_CAPABILITY=$$capability"; \
		ATEN_CPU_CAPABILITY=$$capability python -m pytest -n 2 --dist loadfile -m cpu || exit 1; \
	done

gpu-test:
	python -m pytest -m gpu

stress:
	python -m pytest -m slow -s tests/stress

lint:
	ruff check .
	ruff format --check .

# A link named like the package lets a type checker resolve `kvpareto` from the repository root.
types:
	mkdir -p .tc && ln -sfn .. .tc/kvpareto
	MYPYPATH=.tc mypy -p kvpareto

# Tables and quotes in README and docs against the rows and the program they come from.
pages:
	python docs/write_generated.py --check

check: lint types pages

# The documentation as a site in build/site, every page in its place.
site:
	pip install --quiet --constraint constraints.txt ".[docs]"
	mkdocs build --quiet --strict

docs:
	python docs/write_generated.py

format:
	ruff check --fix .
	ruff format .
