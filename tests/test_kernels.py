"""The GPU kernels, run by Triton's interpreter on the CPU, equal torch's operations; no speed is looked at."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")
GPUTarget = pytest.importorskip("triton.backends.compiler").GPUTarget
ASTSource = pytest.importorskip("triton.compiler").ASTSource

HERE = Path(__file__).parent


@pytest.mark.processes
@pytest.mark.slow
def test_kernels_equal_torch_in_the_interpreter() -> None:
    """In a process of its own: Triton reads the variable when it is imported."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         str(HERE / "kernel_cases.py")],
        capture_output=True, text=True, cwd=HERE.parent, timeout=300,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.parametrize(("kernel", "constants"), [
    ("batch_norm._part_statistics", {"COUNTED": True, "ROWS": 64, "CHANNELS": 64}),
    ("batch_norm._normalise", {"COUNTED": True, "RESIDUAL": True, "RELU": True, "ROWS": 64, "CHANNELS": 64}),
    ("batch_norm._part_sums", {"COUNTED": True, "RESIDUAL": True, "RELU": True, "ROWS": 64, "CHANNELS": 64}),
    ("batch_norm._through_norm", {"COUNTED": False, "MASKED": True, "ROWS": 64, "CHANNELS": 64}),
    ("gather._gather_sum", {"K": 4, "N_TILE": 16, "C_TILE": 128}),
])  # fmt: skip
def test_kernels_compile_for_a_gpu_and_read_sixteen_bytes_at_once(kernel: str, constants: dict[str, int]) -> None:
    """Without a GPU: Triton compiles for one (compute capability 9.0)."""
    module, name = kernel.split(".")
    function = getattr(importlib.import_module(f"cnnjepa.kernels.{module}"), name)
    big = {"x", "grad", "y", "residual", "through", "grad_x", "source", "out"}
    kinds = {"index": "*i64", "counted": "*i32", "outside": "fp32", **dict.fromkeys(big, "*bf16")}
    kinds |= dict.fromkeys(("rows", "per_count", "per_part", "C", "n"), "i32")
    names = function.arg_names
    signature = {each: "constexpr" if each in constants else kinds.get(each, "*fp32") for each in names}
    aligned = [i for i, each in enumerate(names) if each == "C" or signature[each].startswith("*")]
    source = ASTSource(
        fn=function, signature=signature, constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )  # fmt: skip
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert "ld.global.v4" in compiled.asm["ptx"]
