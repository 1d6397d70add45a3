"""Time of a training step against the visible fraction, from benchmark files.

A file is drawn if it is JSON like {"kind": "visible_share", "rows": [{"visible": 0.5, "dense_s": 2.7, "packed_s": 1.8,
"masked_s": 3.1}, …]} with at least two fractions. `benchmarks/sparse_encoder.py --shares 0.25,0.5,0.75,1.0` writes such
a file.
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from cnnjepa.ablations.report.figures.style import PALETTE, Picture, canvas, picture


class SpeedRow(BaseModel):
    """Seconds of a forward and backward pass at one visible fraction."""

    visible: float = Field(gt=0, le=1)
    dense_s: float
    packed_s: float
    masked_s: float


class SpeedFile(BaseModel):
    """The content of a benchmark's file that is drawn. Further keys are ignored."""

    kind: Literal["visible_share"]
    rows: list[SpeedRow]
    asked: dict[str, object] = {}


def read_speed(folder: Path) -> tuple[dict[str, SpeedFile], list[str]]:
    """Return (file's name → its content, warnings) of every visible-share benchmark with several fractions in
    `folder`."""
    found, warnings = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.get("kind") != "visible_share":
                continue
            speed = SpeedFile.model_validate(content)
        except (ValueError, ValidationError) as error:
            warnings.append(f"benchmark {path.name} is left out: it cannot be read ({str(error).splitlines()[0]})")
            continue
        if len({row.visible for row in speed.rows}) > 1:
            found[path.stem] = speed
    return found, warnings


def draw_speed(speed: SpeedFile, source: str, name: str) -> Picture:
    """Draw the dense, masked and packed encoders, and the best possible time: visible fraction x dense."""
    rows = sorted(speed.rows, key=lambda row: row.visible)
    shares = [100 * row.visible for row in rows]
    with canvas(6.2, 3.6) as figure:
        axis = figure.subplots()
        for number, (label, values, marker) in enumerate(
            (
                ("dense (no masks)", [row.dense_s for row in rows], "s"),
                ("masked (dense, then zeroed)", [row.masked_s for row in rows], "^"),
                ("packed (ours)", [row.packed_s for row in rows], "o"),
            )
        ):
            axis.plot(shares, values, marker=marker, color=PALETTE[number], label=label)
        ceiling = [row.visible * row.dense_s for row in rows]
        axis.plot(shares, ceiling, ":", color="#555555", label="visible share x dense: the ideal")
        axis.set(xlabel="visible share, %", ylabel="forward + backward, s")
        axis.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=2)
        what = ", ".join(
            f"{key} {speed.asked[key]}" for key in ("arch", "size", "batch", "precision") if key in speed.asked
        )
        return picture(
            figure, name, f"Time against the visible share ({what or source}; benchmarks/out/{source}.json)."
        )
