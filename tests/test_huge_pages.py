"""Large tensors on a CPU lie in huge pages where Linux gives them, and no bit of a result depends on it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SWITCH = "THP_MEM_ALLOC_ENABLE"
# A packed step with tensors of 8 MiB and more: the hash of its gradients, the KiB in huge pages, the switch.
_STEP = f"""
import hashlib, json, os
from cnnjepa.huge_pages import ask_for_huge_pages
ask_for_huge_pages()
import torch
from cnnjepa.encoders import build_trunk
from cnnjepa.schemas import EncoderConfig
from cnnjepa.sparse import PackedEncoder
torch.set_num_threads(1)
encoder = PackedEncoder(build_trunk(EncoderConfig(arch="resnet18"), seed=0))
draw = torch.Generator().manual_seed(0)
images = torch.randn(16, 3, 128, 128, generator=draw)
features = encoder(images, torch.rand(16, 4, 4, generator=draw) < 0.9)
features.square().sum().backward()
bits = b"".join(p.grad.contiguous().numpy().tobytes() for p in encoder.parameters())
large = [line.split()[1] for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages")]
print(json.dumps([hashlib.sha256(bits).hexdigest(), int(large[0]), os.environ["{_SWITCH}"]]))
"""


def step(**environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", _STEP], capture_output=True, text=True,
        env={**{name: value for name, value in os.environ.items() if name != _SWITCH}, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not _KERNEL.exists(), reason="not Linux")
def test_large_tensors_lie_in_huge_pages_and_give_the_same_bits() -> None:
    (bits, without, kept), (asked_bits, large, asked) = step(**{_SWITCH: "0"}), step()
    assert (kept, asked) == ("0", "1")  # what a user sets stays
    assert bits == asked_bits
    if "[madvise]" in _KERNEL.read_text() and "[never]" not in _KERNEL.with_name("defrag").read_text():
        assert large >= without + 2048
