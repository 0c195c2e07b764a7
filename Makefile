# make train: everything from a fresh Debian 12 machine to a trained model.
# make test:  everything built and tested.

MAKEFLAGS += --no-print-directory
JOBS ?= $(shell nproc)
ARCHITECTURES ?= 80;90
BUILD = cmake --build

# Debian's names. lua-check brings lua5.1, which LuaRocks runs on.
PACKAGES = gcc g++ libc6-dev make cmake luajit libluajit-5.1-dev lua-busted lua-cjson \
  lua-argparse lua-check lua-filesystem luarocks libdnnl-dev \
  libopenblas-openmp-dev libcmocka-dev dataset-fashion-mnist

.PHONY: all cuda deps train calibrate test test-long test-cuda test-asan bench bench-cuda \
  bench-readme bench-all format clean

all:
	cmake -S . -B build
	$(BUILD) build --target reprise -j $(JOBS)

# Nothing is asked of apt when everything is there.
deps:
	@.ci/deps $(PACKAGES)

train: deps
	@$(MAKE) all
	luajit train.lua

# This machine's rates, for the planner's costs: stored in the user's cache.
calibrate: all
	@luajit -e "package.path = './lua/?.lua;./lua/?/init.lua;' .. package.path; \
	  local made = require('reprise').calibrate(); \
	  print(('%.3g GFLOP/s in costly ops, %.3g GB/s in the others: written to %s'):format( \
	  made.flops_per_second / 1e9, made.bytes_per_second / 1e9, made.path))"

test: deps
	@$(MAKE) all
	@JOBS=$(JOBS) spec/run

# The specs that take minutes.
test-long: all
	luajit "$$(command -v busted)" --run=long
	@if $(BUILD) build --target help | grep -q ' ops_test$$'; then \
	  $(BUILD) build --target ops_test -j $(JOBS) && \
	  RP_CUDA_COMPLETE=1 build/spec/cuda/ops_test; fi

# The CUDA backend, where its toolkit is: minutes, so no part of `make`.
# ARCHITECTURES=90 compiles for one compute capability alone.
cuda: all
	cmake -S . -B build -DREPRISE_CUDA_ARCHITECTURES='$(ARCHITECTURES)'
	@if $(BUILD) build --target help | grep -q 'reprise_cuda$$'; then \
	  $(BUILD) build --target reprise_cuda cuda_backend_device_test \
	    cuda_ops_device_test -j $(JOBS); \
	else echo "skipped: no CUDA toolkit with cuDNN here, so no CUDA backend"; fi

# What the real cuDNN says of our graphs, which needs no GPU. On this machine's
# GPU: what the backend takes for granted of it, then its rows against the
# CPU's, op by op.
test-cuda: cuda
	@if $(BUILD) build --target help | grep -q ' cudnn_test$$'; then \
	  $(BUILD) build --target cudnn_test -j $(JOBS); \
	else echo "skipped: no cuDNN library"; fi
	@failed=0; for name in cudnn cuda_backend_device cuda_ops_device; do \
	  test=build/spec/cuda/$${name}_test; \
	  [ ! -x $$test ] || $$test || [ $$? -eq 77 ] || failed=1; \
	done; exit $$failed

# The C tests under the address, leak and undefined-behaviour sanitizers.
test-asan:
	cmake -S . -B build-asan -DREPRISE_SANITIZE=ON
	$(BUILD) build-asan -j $(JOBS)
	ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  ctest --test-dir build-asan --output-on-failure

# Ours and PyTorch's side by side, about a quarter of an hour: tables and
# pictures in bench/results. PYTHON=... names the Python that has a PyTorch,
# BENCH='--seconds 120' takes more repeats.
bench: all
	luajit bench/compare.lua $(BENCH)

# GPT-2 on this machine's GPU, ours and PyTorch: tables and pictures in
# bench/results/cuda-*. BENCH='--models gpt2-124m --batches 8' takes minutes,
# all of it hours; without a GPU it says so.
bench-cuda: cuda
	luajit bench/cuda.lua $(BENCH)

# The README's figures from bench/results.
bench-readme:
	luajit bench/report.lua --readme README.md

# Every other benchmark too.
bench-all: bench
	for name in gpt ops shares overhead predict watch savings planner/gap \
	  planner/speed; do \
	  echo; echo "bench/$$name.lua"; luajit bench/$$name.lua || exit 1; done

format:
	find core spec -name '*.[ch]' | xargs clang-format -i

clean:
	rm -rf build build-*
