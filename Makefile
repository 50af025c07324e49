# SPDX-License-Identifier: Apache-2.0
#
# Nothing needs to be done before any of these: the first one makes the environment, the later ones find it made.

## make demo   make a small data set, train on it, translate held-out pictures: demo/index.html
## make test   the whole test suite, and the linter
## make env    only the Python environment, in .venv
## make clean  remove .venv and demo/
##
## CONTEXT=cpu or CONTEXT=cudnn chooses where the demo computes (default: auto). With cudnn, demo and env install CUDA's
## libraries too (1.8 GB to fetch); they stay, and auto takes them then.
## DEMO_ARGS="..." and TEST_ARGS="..." are handed on to demo.py and pytest

PY = .venv/bin/python
CONTEXT ?= auto
DEMO_ARGS ?=
TEST_ARGS ?=
# what .venv holds at least
REQUIREMENTS = requirements.txt $(if $(filter cudnn,$(CONTEXT)),requirements-cuda.txt)

# As in make_env.sh: packages from elsewhere would hide those of .venv.
unexport PYTHONPATH PYTHONHOME

.PHONY: help demo test env clean
# demo and test share .venv
.NOTPARALLEL:

help:
	@sed -n 's/^## \{0,1\}//p' Makefile

demo: env
	$(PY) demo.py --context $(CONTEXT) $(DEMO_ARGS)

test:
	@sh make_env.sh requirements.txt requirements-test.txt
	$(PY) -m ruff check .
	$(PY) -m pytest -n 2 --dist loadfile $(TEST_ARGS)

env:
	@sh make_env.sh $(REQUIREMENTS)

clean:
	rm -rf .venv demo
