"""Drawing the masks of a batch of 1,024 on the 7x7 grid of a 224 px image: under 2 ms.

Every strategy, over many steps, because the number of redraws and the block sizes differ from step to step.

    python benchmarks/masks.py
"""

import argparse

import torch
from figures import add_options, median, report

from cnnjepa.masks import sample_masks
from cnnjepa.measuring.step_timer import seconds
from cnnjepa.schemas import MixedMasking, RandomMasking
from cnnjepa.schemas.masking import BlockMasking, MaskingConfig, MultiBlockMasking
from cnnjepa.training.distributed import Processes, pick_device
from cnnjepa.training.environment import environment

TARGET_MS = 2.0
_STEPS = {"full": 1000, "quick": 200, "tiny": 5}
_STRATEGIES: dict[str, MaskingConfig] = {
    "mixed (published)": MixedMasking(),
    "random": RandomMasking(),
    "multi-block": MultiBlockMasking(),
    "multi-block, unbiased": MultiBlockMasking(sampler="unbiased"),
    "single block": BlockMasking(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--grid", type=int, default=7, help="side length in cells")
    parser.add_argument("--device", default="auto")
    add_options(parser)
    asked = parser.parse_args()
    device = pick_device(asked.device)
    indices = torch.arange(asked.batch, device=device)
    times: dict[str, list[float]] = {name: [] for name in _STRATEGIES}
    for step in range(-3, _STEPS[asked.mode]):
        for name, masking in _STRATEGIES.items():
            taken = seconds(lambda m=masking, s=step: sample_masks(m, asked.grid, indices, 0, max(s, 0)), device)
            if step >= 0:
                times[name].append(1000 * taken)
    note = f"batch {asked.batch:,}, {asked.grid}x{asked.grid} cells"
    figures = [
        median(f"masks, {name}", taken, unit="ms", target=TARGET_MS, direction="at_most", note=note)
        for name, taken in times.items()
    ]
    report("masks", asked, environment(Processes(0, 1, device)), figures, {"batch": asked.batch, "grid": asked.grid})


if __name__ == "__main__":
    main()
