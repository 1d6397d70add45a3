"""The notebooks in examples/: kept as text, and run from top to bottom as scripts."""

from pathlib import Path

import pytest
from commands import run_file

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_notebook(example: Path) -> None:
    import jupytext

    notebook = jupytext.read(example)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown" and notebook.cells[0].source.startswith("# ")
    assert kinds.count("code") >= 4 and kinds.count("markdown") >= 4
    assert jupytext.writes(notebook, fmt="py:percent").count("# %%") == len(kinds)


# What each leaves behind, and what it prints.
LEFT = {
    "pretrain_and_look": ("runs/example/masks.png", "RankMe"),
    "read_an_ablation": ("studies/example-depths/trials.json", "95 % interval"),
    "own_images_to_features": ("runs/example-own/features.npz", "80 images, 32 features each"),
}


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    done = run_file(example, tmp_path, "error::UserWarning:__main__", MPLBACKEND="Agg")
    assert done.returncode == 0, done.stdout + done.stderr
    file, printed = LEFT[example.stem]
    assert (tmp_path / file).is_file() and printed in done.stdout, done.stdout
