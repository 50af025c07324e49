# SPDX-License-Identifier: Apache-2.0
#
# None of these needs any preparation: the first one makes the environment, later ones use it.

## make demo   make a small data set, train on it, translate held-out pictures: demo/index.html
## make app    a page to work with: mark, translate and compare in a browser; with the demo's model, which it makes first
## make test   the whole test suite, and the linter
## make env    only the Python environment, in .venv
## make browser  fetch onnxruntime-web (11 MB, with npm) for the page in examples/browser
## make clean  remove .venv and demo/
##
## CONTEXT=cpu or CONTEXT=cudnn chooses where the demo computes (default: auto). With cudnn, demo and env also install
## CUDA's libraries (1.8 GB to download); they stay installed, and auto then uses them.
## DEMO_ARGS="...", APP_ARGS="..." and TEST_ARGS="..." are passed to demo.py, app.py and pytest

PY = .venv/bin/python
CONTEXT ?= auto
DEMO_ARGS ?=
APP_ARGS ?=
TEST_ARGS ?=
# the least that .venv must hold
REQUIREMENTS = requirements.txt $(if $(filter cudnn,$(CONTEXT)),requirements-cuda.txt)

ORT_VERSION = 1.20.1
ORT_FOLDER = examples/browser/onnxruntime
ORT_FILES = ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm

# As in make_env.sh: other packages on these paths would hide those of .venv.
unexport PYTHONPATH PYTHONHOME

.PHONY: help demo app test env browser clean
# demo, app and test share .venv
.NOTPARALLEL:

help:
	@sed -n 's/^## \{0,1\}//p' Makefile

demo: env
	$(PY) demo.py --context $(CONTEXT) $(DEMO_ARGS)

app:
	@sh make_env.sh $(REQUIREMENTS) requirements-app.txt
	@ls demo/run/params_*.h5 >/dev/null 2>&1 || $(PY) demo.py --context $(CONTEXT) $(DEMO_ARGS)
	$(PY) app.py --model demo/run --context $(CONTEXT) $(APP_ARGS)

test:
	@sh make_env.sh requirements.txt requirements-test.txt
	$(PY) -m ruff check .
	$(PY) -m pytest -n 2 --dist loadfile $(TEST_ARGS)

env:
	@sh make_env.sh $(REQUIREMENTS)

# only the files that the page needs
browser:
	mkdir -p $(ORT_FOLDER)
	cd $(ORT_FOLDER) && npm pack --silent onnxruntime-web@$(ORT_VERSION)
	cd $(ORT_FOLDER) && tar xzf onnxruntime-web-$(ORT_VERSION).tgz --strip-components=2 $(ORT_FILES:%=package/dist/%)
	rm $(ORT_FOLDER)/onnxruntime-web-$(ORT_VERSION).tgz

clean:
	rm -rf .venv demo
