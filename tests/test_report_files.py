"""The files of a report: formats, places, and what a second report replaces."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reports import DEPTHS, files, outcome, table
from studies import planned, result_of, write_study

from cnnjepa.ablations.archive import archive_step_costs, archive_study
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.report.build import build_report
from cnnjepa.cli.main import main
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.study import Study


@pytest.mark.medium
@pytest.mark.usefixtures("blank_pictures")
def test_measured_steps_stand_in_the_report_over_all(tmp_path: Path) -> None:
    write_study(tmp_path, DEPTHS, outcome)
    (tmp_path / "benchmarks").mkdir()
    steps = {"cnnjepa": [0.2, 0.1, 0.3], "supervised": [0.2, 0.1, 0.3], "simclr": [0.3, 0.4, 0.5], "byol": [0.4] * 2}
    methods: dict[str, Any] = {
        name: {"seconds": seconds, "flops_per_image": 1e9, "memory_bytes": 2**30, "images": 16}
        for name, seconds in steps.items()
    }
    methods["byol"] |= {"beside": [0.1, 0.11], "flops_per_image": 4e9, "images": 32}
    record = {"title": "a step", "preset": "demo", "batch": 16, "image_size": 32, "methods": methods,
              "environment": {"cpu": "a test's", "gpus": []}}  # fmt: skip
    path = tmp_path / "benchmarks" / "method_cost.json"
    path.write_text(json.dumps(record))
    assert build_report(tmp_path, []).warnings == ()
    rows = {row["method"]: row for row in table(tmp_path / "report", "step_cost")}
    assert [row["answer"] for row in rows.values()] == ["", "", "inconclusive", "holds"]
    assert float(rows["byol"]["share"]) == pytest.approx(2 * (0.1 * 0.11) ** 0.5 / 0.4)
    assert float(rows["byol"]["share_high"]) < 1 < float(rows["simclr"]["share_high"])
    assert rows["byol"]["flops_share"] == "0.25" and rows["byol"]["memory_share"] == "2.0"
    methods["byol"]["memory_bytes"] = 0
    path.write_text(json.dumps(record))
    build_report(tmp_path, [])
    assert table(tmp_path / "report", "step_cost")[3]["memory_share"] == ""
    path.write_text("{")
    (warning,) = build_report(tmp_path, []).warnings
    assert warning.startswith("benchmarks/method_cost.json: was not written by `cnnjepa benchmark --cost`")


@pytest.mark.processes
def test_a_second_call_writes_the_same_bytes(reported: Path) -> None:
    before = {name: files(reported / name) for name in ("report", "studies/depths/report", "studies/ratios/report")}
    again = subprocess.run(  # a new process: nothing may depend on the order of a set or on what was drawn before
        [sys.executable, "-m", "cnnjepa", "report", "--root", str(reported)], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    for name, contents in before.items():
        now = files(reported / name)
        assert now.keys() == contents.keys()
        assert [path for path in now if now[path] != contents[path]] == []


@pytest.mark.medium
def test_all_formats_are_written_and_name_no_machine(reported: Path) -> None:
    folder = reported / "studies" / "depths" / "report"
    written = files(folder)
    for name in ("depths_accuracy_held_out", "depths_accuracy_published", "depths_cost", "depths_runs"):
        assert {f"tables/{name}.{ending}" for ending in ("md", "csv", "tex", "html")} <= written.keys()
    for name in (
        "depths_arms_held_out", "depths_along_depth_published", "depths_cost_accuracy", "depths_curves", "depths_masks"
    ):  # fmt: skip
        assert written[f"figures/{name}.svg"].startswith(b"<?xml") and written[f"figures/{name}.png"][1:4] == b"PNG"
    assert {"report.html", "report.md", "report.tex"} <= written.keys()
    for name, content in files(reported / "report").items() | written.items():
        assert str(reported).encode() not in content, name


@pytest.mark.medium
def test_the_report_over_all_has_the_main_table_and_the_published_one(reported: Path) -> None:
    rows = table(reported / "report", "main_synthetic-32_published")
    assert [(row["method"], row["study"], row["n"]) for row in rows] == [
        ("cnnjepa", "depths, depth=2", "3"), ("cnnjepa", "ratios, ratio=0.6", "2"),
    ]  # fmt: skip
    published = {(r["method"], r["encoder"]): r for r in table(reported / "report", "published_in100")}
    assert published["byol", "resnet50"]["linear_top1"] == "79.02"
    assert len(table(reported / "report", "published_in1k")) == 4


@pytest.mark.medium
@pytest.mark.usefixtures("blank_pictures")
def test_what_an_earlier_report_wrote_goes_and_nothing_else_does(tmp_path: Path) -> None:
    write_study(tmp_path, DEPTHS, outcome)
    build_report(tmp_path, ["depths"])
    folder = tmp_path / "studies" / "depths" / "report"
    (folder / "figures" / "mine.png").write_bytes(b"a person's own")
    shutil.rmtree(tmp_path / "runs")
    build_report(tmp_path, ["depths"])
    assert not (folder / "tables" / "depths_accuracy_held_out.csv").exists()
    assert (folder / "figures" / "mine.png").read_bytes() == b"a person's own"


@pytest.mark.medium
@pytest.mark.usefixtures("blank_pictures")
def test_the_gallery_of_photographs_stays_out_of_the_page(tmp_path: Path) -> None:
    """A real, tiny run on a folder of images; and what is said when the images are gone."""
    import torchvision

    from cnnjepa.ablations.data_facts import Resolver
    from cnnjepa.ablations.plan import plan, requested_trials
    from cnnjepa.ablations.pool import Pool
    from cnnjepa.data.synthetic import render
    from cnnjepa.training.pretrain import pretrain

    for split in ("train", "val"):
        pixels, labels = render(split, 48, 32)[:2]
        for place, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            path = tmp_path / "images" / split / f"class{label % 4}" / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            torchvision.io.write_png(image, str(path))
    settings = {
        "data.source": "folder", "data.path": str(tmp_path / "images"), "data.image_size": 32, "train_images": None,
        "val_images": None, "runtime.batch_size": 16, "linear_epochs": 2, "held_out_ks": [5], "linear_batch_size": 16,
    }  # fmt: skip
    study = Study(name="photos", preset="smoke", axes={"predictor.depth": (1,)}, set=settings)
    trials = plan(requested_trials(study), Resolver("cpu", 1))
    write_study(tmp_path, study, lambda arm, seed: None, trials)
    pretrain(trials[0].config, Pool(tmp_path).folder(trials[0].pretrain_hash).path, resume=True)
    build_report(tmp_path, ["photos"], run=trials[0].pretrain_hash[:8])
    folder = tmp_path / "studies" / "photos" / "report"
    assert (folder / "gallery" / "photos_neighbours.png").is_file()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "may forbid redistribution" in page and "Nearest validation images" not in page
    assert "photos_features" in {p.stem for p in (folder / "figures").iterdir()}
    shutil.rmtree(tmp_path / "images")
    build_report(tmp_path, ["photos"])
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "No map of features and no gallery of depth=1, seed 0" in text
    assert not (folder / "gallery" / "photos_neighbours.png").exists()


@pytest.mark.medium
def test_a_large_study_costs_no_more_pictures_than_a_small_one(tmp_path: Path, blank_pictures: list[str]) -> None:
    """Time is in pictures; benchmarks/report.py measures it."""
    counts = []
    for arms in (4, 32):
        blank_pictures.clear()
        rates = tuple(round(0.001 * (n + 1), 3) for n in range(arms))
        study = Study(name=f"rates{arms}", preset="smoke", axes={"optimizer.lr": rates}, seeds=(0, 1))
        write_study(tmp_path, study, lambda arm, seed: (50.0 + seed, 40.0))
        build_report(tmp_path, [study.name])
        counts.append(len(blank_pictures))
    assert counts[0] == counts[1] <= 20


@pytest.mark.medium
@pytest.mark.usefixtures("blank_pictures")
def test_a_speed_benchmark_with_several_shares_is_drawn(tmp_path: Path) -> None:
    write_study(tmp_path, DEPTHS, outcome)
    out = tmp_path / "benchmarks" / "out"
    out.mkdir(parents=True)
    rows = [{"visible": v, "dense_s": 2.0, "packed_s": 0.3 + 2 * v, "masked_s": 2.2} for v in (0.25, 0.5, 1.0)]
    (out / "speed.json").write_text(json.dumps({"kind": "visible_share", "rows": rows}))
    (out / "single.json").write_text(json.dumps({"kind": "visible_share", "rows": rows[:1]}))
    (out / "other.json").write_text(json.dumps({"rows": []}))
    (out / "torn.json").write_text("{")
    (out / "wrong.json").write_text(json.dumps({"kind": "visible_share", "rows": [{"visible": 7}]}))
    built = build_report(tmp_path, [])
    assert [p.stem for p in (tmp_path / "report" / "figures").glob("speed*.svg")] == ["speed_speed"]
    assert len(built.warnings) == 2 and "torn.json" in built.warnings[0] and "wrong.json" in built.warnings[1]


@pytest.mark.medium
@pytest.mark.usefixtures("blank_pictures")
def test_out_takes_the_report_elsewhere(tmp_path: Path) -> None:
    write_study(tmp_path, DEPTHS, outcome)
    built = build_report(tmp_path, ["depths"], out=tmp_path / "elsewhere")
    assert built.pages == (tmp_path / "elsewhere" / "report.html",) and built.pages[0].is_file()
    assert not (tmp_path / "studies" / "depths" / "report").exists()
    row = table(tmp_path / "elsewhere", "depths_runs")[0]
    assert (tmp_path / "elsewhere" / row["folder"] / "result.json").is_file()


@pytest.mark.medium
@pytest.mark.usefixtures("blank_pictures")
def test_out_takes_the_report_over_all_studies_and_their_own_elsewhere(tmp_path: Path) -> None:
    for name in ("one", "two"):
        study = Study(name=name, preset="smoke", axes={"predictor.depth": (1, 2)}, seeds=(0, 1))
        write_study(tmp_path / "root", study, lambda arm, seed: (50.0 + seed, 40.0))
    before = files(tmp_path / "root")
    out = tmp_path / "elsewhere"
    built = build_report(tmp_path / "root", [], out)
    assert built.pages == (*(out / "studies" / name / "report" / "report.html" for name in ("one", "two")),
                           out / "report.html")  # fmt: skip
    assert all(page.is_file() for page in built.pages)
    assert files(tmp_path / "root") == before
    for folder, name in ((out, "one_runs"), (out / "studies" / "two" / "report", "two_runs")):
        assert (folder / table(folder, name)[0]["folder"] / "result.json").is_file()


@pytest.mark.medium
def test_the_latex_compiles(reported: Path, tmp_path: Path) -> None:
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")
    for name in ("report", "studies/depths/report"):
        where = tmp_path / name
        shutil.copytree(reported / name, where)
        run = subprocess.run(
            [compiler, "-interaction=nonstopmode", "-halt-on-error", "report.tex"],
            cwd=where,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout[-1500:]
        assert "Undefined control" not in run.stdout and not re.search(r"Overfull \\hbox", run.stdout)
        assert (where / "report.pdf").stat().st_size > 20_000


@pytest.mark.medium
def test_a_name_with_latex_s_letters_is_escaped(tmp_path: Path) -> None:
    from cnnjepa.ablations.report.escape import latex_text, markdown_text

    assert latex_text("50 % of $x_1 & {y}^2 \\ # ~") == (
        r"50 \% of \$x\_1 \& \{y\}\textasciicircum{}2 \textbackslash{} \# \textasciitilde{}"
    )
    assert latex_text("τ − ± 漢") == r"$\tau$ $-$ $\pm$ \textbackslash{}u6f22"
    assert markdown_text("a|b*c_d[e]") == r"a\|b\*c\_d\[e\]"


@pytest.mark.medium
@pytest.mark.usefixtures("blank_pictures")
def test_an_archive_gives_the_same_tables_and_names_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, kept = tmp_path / "here", tmp_path / "kept"
    photos = Study(
        name="photos", preset="tiny64", axes={"predictor.depth": (1, 2)}, seeds=(0, 1, 2),
        set={"data.path": str(here / "photos.tar")},
    )  # fmt: skip
    trials = planned(photos, lambda config: "photos")
    write_study(here, photos, lambda arm, seed: None if (arm, seed) == ("depth=2", 2) else (50.0 + seed, 40.0), trials)
    for trial in trials[:3]:
        run = Pool(here).folder(trial.pretrain_hash)
        result = result_of(trial, 50.0 + trial.seed, 40.0, software={"host": "lab-7", "commit": "0123"})
        run.write_result(result)
        (run.path / "checkpoints").mkdir()
        (run.path / "checkpoints" / "last.pt").write_bytes(b"weights")
    (here / "benchmarks").mkdir()
    (here / "benchmarks" / "method_cost.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["cnnjepa", "archive", "photos", "--to", str(kept), "--root", str(here)])
    with pytest.raises(SystemExit, match="0"):
        main()
    told = capsys.readouterr()
    assert "photos: 5 trials" in told.out and "1 without a result yet: depth=2, seed 2" in told.err
    measured = kept / "benchmarks" / "method_cost.json"
    assert "benchmarks/method_cost.json" in told.out and measured.read_text() == "{}"
    (here / "benchmarks" / "method_cost.json").write_text("[]")
    with pytest.raises(ConfigError, match="hold different measured steps"):
        archive_step_costs(here, kept)
    measured.unlink()
    for path, content in files(kept).items():
        assert str(tmp_path).encode() not in content and b"lab-7" not in content, path
        assert path.split("/")[-1] in {"study.yaml", "trials.jsonl"}
    build_report(here, ["photos"], tmp_path / "a")
    build_report(kept, ["photos"], tmp_path / "b")
    for one in ("accuracy_held_out", "accuracy_published", "cost"):
        first, second = ((tmp_path / side / "tables" / f"photos_{one}.csv").read_bytes() for side in "ab")
        assert first == second and b"depth=2" in first
    assert "the study was archived without weights" in (tmp_path / "b" / "report.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="is the root itself"):
        archive_study(here, "photos", here)
    with pytest.raises(ConfigError, match="there are photos"):
        archive_study(here, "phtos", kept)
