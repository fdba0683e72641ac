# `make demo` trains and runs on drawn scenes; `make test` runs the suite and the linter.
# Each makes .venv first where that has not been done. PYTHON chooses the interpreter.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test format

demo: .venv/.demo-ready
	$(BIN)/python demo.py
	$(BIN)/python train.py --data input/demo --backbone dinov2_vitt14 --imgsz 448 336 \
		--epochs 6 --batch 8 --lr 0.005 --out-dir demo
	$(BIN)/python infer_image.py --input input/demo/unseen --model outputs/demo/best_model_iou.pth \
		--out-dir demo/pictures --save overlay,mask
	$(BIN)/python infer_video.py --input input/demo/walkers.mp4 \
		--model outputs/demo/best_model_iou.pth --out-dir demo/video

test: .venv/.test-ready
	$(BIN)/python -m pytest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/.demo-ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/.test-ready: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@
