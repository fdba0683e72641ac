# `make demo` trains and runs on drawn scenes; `make test` runs the suite and the linter;
# `make reproduce` scores the published heads. Each makes .venv first if it is not there, with the
# versions of constraints.txt; PYTHON is the interpreter to make it with.

PYTHON ?= python3
BIN := .venv/bin

VOC := input/VOC2012
ADE := input/ADEChallengeData2016

.PHONY: demo test format reproduce newest lowest constraints

demo: .venv/.demo-ready
	$(BIN)/python -m demo
	$(BIN)/python train.py --data input/demo --backbone dinov2_vitt14 --imgsz 448 336 \
		--head sharp --augment flip --cache-features 2 --epochs 7 --lr 0.002 --warmup 1 \
		--scheduler --scheduler-epochs 5 --out-dir demo
	$(BIN)/python infer_image.py --input input/demo/unseen --model outputs/demo/best_model_iou.pth \
		--out-dir demo/pictures --save overlay,mask
	$(BIN)/python infer_video.py --input input/demo/walkers.mp4 \
		--model outputs/demo/best_model_iou.pth --out-dir demo/video
	@echo "Open these pages in a browser:"
	@echo "  $(CURDIR)/outputs/demo/index.html"
	@echo "  $(CURDIR)/outputs/demo/pictures/index.html"
	@echo "  $(CURDIR)/outputs/demo/video/index.html"

test: .venv/.test-ready
	$(BIN)/python -m pytest -n 2 --dist loadfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Downloads about 6 GB of weights; takes some hours on a GPU; needs the two data sets.
reproduce: .venv/.demo-ready
	@test -d $(VOC) || { echo "$(VOC) is missing: python check_data.py --download voc2012"; exit 1; }
	@test -d $(ADE) || { echo "$(ADE) is missing: ADE20K's SceneParsing release, by hand"; exit 1; }
	for backbone in vits14 vitb14 vitl14 vitg14; do for kind in linear ms; do \
		$(BIN)/python train.py --test-only --data $(VOC) --out-dir reproduce/$${backbone}_voc2012_$$kind \
			--model dinov2_$${backbone}_voc2012_$$kind && \
		$(BIN)/python train.py --test-only --data $(ADE) --out-dir reproduce/$${backbone}_ade20k_$$kind \
			--model dinov2_$${backbone}_ade20k_$$kind || exit 1; \
	done; done

format: .venv/.test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The other ends of the ranges, into a new .venv: `make newest test`, `make lowest test`.
newest: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --upgrade -r requirements-dev.txt
	touch .venv/.demo-ready .venv/.test-ready

lowest: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --resolution lowest-direct \
		-r requirements-dev.txt
	touch .venv/.demo-ready .venv/.test-ready

constraints: .venv/.test-ready
	$(BIN)/python .ci/constraints.py

.venv/.demo-ready: requirements.txt constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt -c constraints.txt
	touch $@

.venv/.test-ready: requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt -c constraints.txt
	touch $@
