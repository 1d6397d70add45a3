"""The model card: the encoder, its training data and method, its measured quality, and the licence of the images."""

from typing import Any

from cnnjepa import __version__
from cnnjepa.export.exported_encoder import ExportedEncoder
from cnnjepa.names import markdown_text
from cnnjepa.schemas import ConfigError, Diagnostics, PretrainConfig, ProbeFigures, TrialResult
from cnnjepa.schemas.extent import Extent, as_text
from cnnjepa.schemas.yaml_text import write_yaml


def data_licence(exported: ExportedEncoder, given: str | None) -> str:
    """Return the licence of the images. Raises ConfigError for a user's own images if none is given."""
    known = given or exported.config.data.images_licence
    if known:
        return known
    raise ConfigError(
        "--data-licence: the licence of these images is unknown, and users of the weights must know it; "
        'give it in words, for example --data-licence "ImageNet terms of access, non-commercial research"'
    )


def model_card(exported: ExportedEncoder, licence: str, loading: str) -> str:
    """Return the card as Markdown with the hub's YAML head. `loading` is Python code that loads this export."""
    config, result = exported.config, exported.result
    head = {
        "library_name": "timm" if "timm" in loading else "pytorch",
        "tags": ["image-feature-extraction", "self-supervised", config.method.name],
        "license": "other",
        "license_name": "see-card",
    }
    dataset = result.dataset if result else config.data.source
    lines = [
        "---", write_yaml(head).strip(), "---", "",
        f"# {config.encoder.short_name} pretrained with {config.method.name}", "",
        f"The {exported.which} encoder of a run of CNN-JEPA Bench {__version__}, without classifier. It maps images to "
        f"{exported.network.feature_dim} features, averaged over positions.{_start(result)}", "",
        "## Use", "", "```python", loading.strip(), "```", "",
        f"Inputs are {_size(config.data.image_size)} crops of {config.data.channels} channel(s), with the values "
        f"{_plain(config.data.bounds[0])} to {_plain(config.data.bounds[1])} mapped to 0 to 1"
        f"{'' if config.data.range == 'dtype' else ' and clipped'}, minus `{list(config.data.mean)}`, divided by "
        f"`{list(config.data.std)}`.", "",
        "## Images", "", f"- Data set: {markdown_text(dataset)}", f"- Licence of the images: {markdown_text(licence)}",
    ]  # fmt: skip
    if result and result.train_images:
        lines.append(f"- Training images: {result.train_images:,}; validation images: {result.val_images:,}")
    lines += ["", "## What it is worth", "", *_figures(exported), "", "## How it was trained", "", "```yaml"]
    shown = config.model_dump(mode="json")
    shown["data"].pop("path", None)  # a path on one machine
    shown["data"]["labels"] = config.data.labels.rpartition("/")[2]
    shown["probe"].pop("data", None)
    shown["runtime"].pop("continues")
    shown["encoder"] = without_places(config)
    lines += [write_yaml(shown).strip(), "```"]
    if result:
        lines += ["", f"Name of these settings on these images: `{result.pretrain_hash}`."]
    return "\n".join(lines) + "\n"


def without_places(config: PretrainConfig) -> dict[str, Any]:
    """Return the encoder's settings without the place of its initial weights, which is on one machine."""
    return config.encoder.model_dump(mode="json", exclude={"init", "init_encoder", "init_fingerprint"})


def _start(result: TrialResult | None) -> str:
    """Return sentences about the start of the training; none for random weights."""
    said = ""
    if result and result.warm_start:
        notes = "".join(f"; {note}" for note in result.warm_start.notes)
        said += (
            f" It started from the weights of {markdown_text(result.warm_start.source)}, fingerprint "
            f"`{result.warm_start.fingerprint}`{markdown_text(notes)}."
        )
    if result and result.continues:
        said += f" Its run continues `{result.continues.pretrain_hash}` after {result.continues.epochs} epochs."
    return said


def _size(size: Extent) -> str:
    """Return the size of a crop in words."""
    return f"{size} px" if isinstance(size, int) else f"{as_text(size)} px (height x width)"


def _plain(value: float) -> str:
    """Return a number in full."""
    return f"{value:.10g}"


def _figures(exported: ExportedEncoder) -> list[str]:
    result = exported.result
    if result is None or result.probed_encoder != exported.which:
        return ["This encoder was not probed."]
    if result.probes is None:
        return [*_health(result.diagnostics), "", "The images have no labels, so no accuracy was measured."]
    own = result.probe_sets is None
    rows = [
        f"| {'' if own else 'set | '}protocol | features | linear top-1 | linear top-5 | k-NN top-1 | k-NN top-5 |",
        f"|---|---|---|---|---|---|{'' if own else '---|'}",
    ]
    for found in result.by_set:
        sources = (
            ("this encoder", found.probes), (found.floors.start_name, found.floors.start),
            ("raw pixels", found.floors.pixels),
        )  # fmt: skip
        of_set = "" if own else f"{markdown_text(found.name)} | "
        for protocol in ("held_out", "published"):
            for name, probes in sources:
                figures: ProbeFigures | None = getattr(probes, protocol) if probes else None
                if figures:
                    cells = [figures.linear_top1, figures.linear_top5, figures.knn_top1, figures.knn_top5]
                    shown = " | ".join("–" if value is None else f"{value:.2f}" for value in cells)
                    rows.append(f"| {of_set}`{protocol}` | {name} | {shown} |")
    return [
        *rows, "",
        *_metrics(result),
        "Percent, one run. `held_out`: everything chosen on a tenth of the training images. `published`: the linear "
        "probe's best epoch on the validation images (optimistic).", "",
        "Without labels:", "", *_health(result.diagnostics),
    ]  # fmt: skip


def _metrics(result: TrialResult) -> list[str]:
    """Return a table of the figures of `probe.metrics` with those of the floors; nothing without metrics."""
    sets = [found for found in result.by_set if found.metrics]
    if not sets:
        return []
    (start,) = {found.floors.start_name for found in sets}
    rows = [f"| figure | this encoder | {start} | raw pixels |", "|---|---|---|---|"]
    for found in sets:
        of_set = "" if result.probe_sets is None else f"{markdown_text(found.name)}: "
        floors = (found.floors.start_metrics, found.floors.metrics.get("pixels", {}))
        for name, value in found.metrics.items():
            shown = " | ".join(_number(figures.get(name), 4) for figures in floors)
            rows.append(f"| {of_set}{name} | {value:.4f} | {shown} |")
    return [*rows, ""]


def _health(found: Diagnostics | None) -> list[str]:
    """Return a table of the figures that need no labels."""
    if found is None:
        return ["This run has no such figures."]
    cells = [
        f"{found.rankme:.1f}", _number(found.lidar, 1), _number(found.alpha_req, 2), f"{found.feature_std:.3f}",
        _number(found.heldout_loss, 4), str(found.feature_dim),
    ]  # fmt: skip
    return [
        "| RankMe | LiDAR | α-ReQ | feature spread | held-out loss | features |", "|---|---|---|---|---|---|",
        f"| {' | '.join(cells)} |", "",
        "On validation images. RankMe: effective rank of the features (arXiv 2210.02885). LiDAR: effective rank of "
        "what distinguishes images from crops of one image (arXiv 2312.04000). α-ReQ: exponent of the covariance's "
        "spectrum (arXiv 2202.05808). Feature spread: 0 = all equal, about 1 = spread. Held-out loss: the "
        "method's own.",
    ]  # fmt: skip


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
