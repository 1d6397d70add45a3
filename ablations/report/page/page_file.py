"""The page: one self-contained HTML file that needs no network."""

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cnnjepa.ablations.report.figures import interactive
from cnnjepa.ablations.report.figures.style import Picture
from cnnjepa.ablations.report.page.trial_pages import trial_pages
from cnnjepa.ablations.report.reading import Curves
from cnnjepa.ablations.report.study_report import StudyReport
from cnnjepa.ablations.report.tables import formats
from cnnjepa.ablations.report.tables.table import Table
from cnnjepa.ablations.study_folder import TrialKey
from cnnjepa.names import visible

KINDS = {
    "finding": "Finding",
    "noise": "Not significant",
    "open": "No verdict",
    "warning": "Warning",
    "missing": "Incomplete",
    "fact": "",
}
"""Kind of a sentence → its heading on the page."""

_PLOTS = {
    "accuracy": (
        "Accuracy",
        "Bars: 95 % interval of the mean over seeds. Hollow markers: one seed, binomial interval.",
    ),
    "cost": (
        "Training cost against accuracy",
        "Marker area: encoder parameters. Results on different images are not comparable.",
    ),
    "curves": ("Training curves", "One line per trial. The legend shows and hides arms."),
}

# Pictures that the page draws interactively; it shows the others as they are.
_INTERACTIVE = ("_arms", "_along_", "_curves", "_cost_accuracy")


def page(
    title: str,
    reports: Sequence[StudyReport],
    runs: Sequence[Table],
    main_tables: Sequence[Table],
    main_pictures: Sequence[Picture],
    report: Path,
) -> str:
    """Return the text of the whole file. `runs`: each study's table of trials; `report`: the folder that the file goes
    into."""
    specs: dict[str, Any] = {}
    sections = [_section(made, table, specs) for made, table in zip(reports, runs, strict=True)]
    logs: dict[TrialKey, Curves] = {}
    for made in reports:
        logs |= made.curves
    data = {**trial_pages([made.study for made in reports], logs, report), "plots": specs}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    environment = Environment(
        loader=PackageLoader("cnnjepa.ablations.report.page", ""), autoescape=True, undefined=StrictUndefined,
        finalize=lambda value: visible(value, lines=True) if type(value) is str else value,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(
        title=title,
        sections=sections,
        kinds=KINDS,
        main_tables=Markup("".join(map(formats.html, main_tables))),
        main_pictures=[_embedded(one) for one in main_pictures],
        css=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        plotly=Markup((files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")),
        # Escape `<`, so that no text in the data can end the element.
        data=Markup(text.replace("<", "\\u003c")),
    )


def _asset(name: str) -> str:
    return (files("cnnjepa.ablations.report.page") / name).read_text(encoding="utf-8")


def _section(made: StudyReport, runs: Table, specs: dict[str, Any]) -> dict[str, Any]:
    name = made.study.name
    variants = {
        "accuracy": interactive.accuracy_plot(made.comparisons),
        "cost": interactive.cost_plot(made.comparisons),
    }
    spec: dict[str, dict[str, Any]] = {kind: {"variants": some} for kind, some in variants.items() if some}
    spec["curves"] = {"curves": name}
    offered = []
    for kind, (title, caption) in _PLOTS.items():
        if kind in spec:
            specs[f"{name}-{kind}"] = spec[kind]
            offered.append({"id": f"{name}-{kind}", "title": title, "caption": caption})
    pictures = [one for one in made.pictures if not any(part in one.name for part in _INTERACTIVE)]
    if made.gallery and made.gallery_is_free:
        pictures.append(made.gallery)
    return {
        "name": name,
        "question": made.study.study.question,
        "sentences": made.sentences,
        "plots": offered,
        "tables": Markup("".join(map(formats.html, made.tables))),
        "pictures": [_embedded(one) for one in pictures],
        "remarks": made.remarks,
        "runs": Markup(formats.html(runs)),
    }


def _embedded(one: Picture) -> dict[str, str]:
    """Return the picture as SVG if it is small, else as PNG: a gallery's photographs are larger as SVG."""
    kind, content = ("svg+xml", one.svg) if len(one.svg) < 400_000 else ("png", one.png)
    return {"source": f"data:image/{kind};base64,{base64.b64encode(content).decode()}", "caption": one.caption}
