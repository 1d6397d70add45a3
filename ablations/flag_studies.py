"""The two studies that flags can request: the paper's ablations of predictor and masking."""

from typing import Any

from cnnjepa.ablations.study_files import validated
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.fields import arms, nearest
from cnnjepa.schemas.method import CNNJEPAConfig
from cnnjepa.schemas.study import Study

# Axes of each strategy. A flag that does not apply to a strategy does not change its arms.
_STRATEGIES = {m.model_fields["strategy"].default: m for m in arms(CNNJEPAConfig.model_fields["masking"].annotation)}


def predictor_study(depths: list[Any] | None, kernels: list[Any] | None, convs: list[Any] | None, preset: str) -> Study:
    """Return a grid over the given axes; without any, over the paper's depths 1 to 6. Raises ConfigError."""
    axes = {"predictor.depth": depths, "predictor.kernel_size": kernels, "predictor.conv": convs}
    given = {axis: values for axis, values in axes.items() if values is not None}
    if not given:
        given = {"predictor.depth": [1, 2, 3, 4, 5, 6]}
    tables = {"predictor.depth": "predictor_depth", "predictor.kernel_size": "predictor_kernel"}
    published = tables.get(next(iter(given)), "predictor_conv") if len(given) == 1 else None
    if preset == "in1k":
        published = "predictor_depth_in1k" if list(given) == ["predictor.depth"] else None
    return validated(
        {
            "name": f"predictor-{preset}",
            "question": "How deep, how wide and of what kind should the predictor be?",
            "published": published,
            "preset": preset,
            "axes": given,
        },
        "ablate predictor",
    )


def masking_study(
    strategies: list[Any] | None, ratios: list[Any] | None, blocks: list[Any] | None, preset: str
) -> Study:
    """Return a study of every strategy with every ratio and number of blocks that it has; without flags, the paper's
    three strategies. Raises ConfigError for an unknown strategy, or a flag that applies to none."""
    names = strategies or ["mixed", "multi_block", "random"]
    for name in names:
        if name not in _STRATEGIES:
            known = f"{', '.join(_STRATEGIES)}{nearest(str(name), _STRATEGIES)}"
            raise ConfigError(f"--strategies: {name!r} must be one of {known}")
    named: dict[str, dict[str, Any]] = {}
    for name in names:
        fields = _STRATEGIES[name].model_fields
        for ratio in ratios if ratios and "ratio" in fields else [None]:
            for count in blocks if blocks and "num_blocks" in fields else [None]:
                parts = [name]
                parts += [] if ratio is None else [f"ratio={ratio}"]
                parts += [] if count is None else [f"blocks={count}"]
                label = " ".join(parts)
                named[label] = {
                    "masking.strategy": name,
                    **({"masking.ratio": ratio} if ratio is not None else {}),
                    **({"masking.num_blocks": count} if count is not None else {}),
                }
    for flag, values, field in (("--ratios", ratios, "ratio"), ("--blocks", blocks, "num_blocks")):
        if values and not any(field in _STRATEGIES[name].model_fields for name in names):
            having = [name for name, model in _STRATEGIES.items() if field in model.model_fields]
            raise ConfigError(f"{flag} applies to none of {', '.join(names)}, only to {', '.join(having)}")
    return validated(
        {
            "name": f"masking-{preset}",
            "question": "Which patches should be hidden, and how many?",
            "published": "masking" if not ratios and not blocks else None,
            "preset": preset,
            "axes": {"masking": named},
        },
        "ablate masking",
    )
