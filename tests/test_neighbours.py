"""Neighbours in a file of features are those of an exhaustive search, by name, by path and for new images."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import encoded, picture
from PIL import Image
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.embedding.embed import embed
from cnnjepa.embedding.feature_file import FeatureFile, open_features
from cnnjepa.embedding.queries import images_of, queries
from cnnjepa.embedding.request import EmbedRequest
from cnnjepa.embedding.search import neighbours
from cnnjepa.schemas import ConfigError
from cnnjepa.tensor_ops.similar_pairs import similar_pairs


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images without labels, of which z is a copy of one, and a vector file of them."""
    root = tmp_path_factory.mktemp("neighbours")
    (root / "set").mkdir()
    for i in range(11):
        (root / "set" / f"{i:02d}.png").write_bytes(encoded(picture(i, 40, 40)))
    (root / "set" / "z.png").write_bytes(encoded(picture(4, 40, 40)))
    embed(EmbedRequest("random:smoke", root / "f.npy", root / "set", device="cpu"))
    return root / "f.npy"


def brute_force(vectors: np.ndarray[Any, Any], query: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    return vectors @ query / norms


def test_the_neighbours_are_those_of_an_exhaustive_search() -> None:
    bank, asked = torch.randn(300, 8), torch.randn(3, 8)
    asked[2] = bank[17]
    found = neighbours(bank, asked, 5, [None, None, 17])
    for query, near, own in zip(asked, found, (None, None, 17), strict=True):
        similar = brute_force(bank.double().numpy(), query.double().numpy())
        order = [row for row in np.argsort(-similar) if row != own][:5]
        assert [one.row for one in near] == order
        assert np.allclose([one.similarity for one in near], similar[order], atol=1e-5)


def test_equally_near_rows_come_in_their_order_and_k_may_exceed_the_set() -> None:
    bank = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    found = neighbours(bank, bank[1:2], 9, [1])[0]
    assert [(one.row, round(one.similarity, 6)) for one in found] == [(0, 1.0), (2, 1.0), (3, 0.0)]


def test_faiss_is_used_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class IndexFlatIP:
        def __init__(self, dim: int) -> None:
            self.rows = np.empty((0, dim), np.float32)

        def add(self, block: np.ndarray[Any, Any]) -> None:
            self.rows = np.concatenate([self.rows, block])

        def search(self, given: np.ndarray[Any, Any], k: int) -> tuple[Any, Any]:
            similar = given @ self.rows.T
            order = np.argsort(-similar, 1)[:, :k]
            return np.take_along_axis(similar, order, 1), order

    bank, asked = torch.randn(5000, 8), torch.randn(4, 8)
    monkeypatch.setitem(sys.modules, "faiss", None)
    exact = neighbours(bank, asked, 7, [None] * 4)
    monkeypatch.setitem(sys.modules, "faiss", types.SimpleNamespace(IndexFlatIP=IndexFlatIP))
    found = neighbours(bank, asked, 7, [None] * 4)
    assert [[one.row for one in near] for near in found] == [[one.row for one in near] for near in exact]


@pytest.mark.parametrize("block", [7, 2048])
def test_similar_pairs_are_all_pairs_above_the_threshold(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnjepa.tensor_ops.similar_pairs._BLOCK", block)
    rows = torch.nn.functional.normalize(torch.randn(30, 4), dim=1)
    rows[20] = rows[3]
    similar = rows.double() @ rows.double().T
    expected = {(i, j) for i in range(30) for j in range(i + 1, 30) if similar[i, j] >= 0.8}
    found, count = similar_pairs(rows, 0.8, 1000)
    assert {(pair.first, pair.second) for pair in found} == expected and count == len(expected) > 3
    assert (found[0].first, found[0].second) == (3, 20)
    assert similar_pairs(rows, 0.8, 2) == (found[:2], len(expected))
    assert similar_pairs(rows, 0.8, 0) == ([], len(expected))


@pytest.mark.parametrize("block", [3, 2048])
def test_equally_similar_pairs_come_in_the_order_of_the_rows(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnjepa.tensor_ops.similar_pairs._BLOCK", block)
    found, count = similar_pairs(torch.eye(2)[[0, 1, 0, 1, 0, 0, 1]], 1.0, 5)
    assert count == 9
    assert [pair[:2] for pair in found] == [(0, 2), (0, 4), (0, 5), (1, 3), (1, 6)]


def test_an_image_is_named_by_row_or_path_or_embedded(features: Path, tmp_path: Path) -> None:
    file = open_features(features)
    new = tmp_path / "new.png"
    new.write_bytes((features.parent / "set" / "05.png").read_bytes())
    by_name, by_path, other = queries(file, ["05.png", str(features.parent / "set" / "05.png"), str(new)])
    row = file.names.index("05.png")
    assert by_name.row == by_path.row == row and other.row is None
    assert torch.allclose(other.vector, file.vectors[row], atol=1e-6)


def test_a_name_that_is_nothing_is_refused(features: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"cow.png is neither a name in .*f.npy nor a file; names there are like \d\d"
    ):
        queries(open_features(features), ["cow.png"])


def test_an_encoder_or_images_that_changed_are_refused(features: Path, tmp_path: Path) -> None:
    file = open_features(features)
    (tmp_path / "new.png").write_bytes(encoded(picture(1, 40, 40)))
    changed = {**file.facts, "encoder": {**file.facts["encoder"], "fingerprint": "0"}}
    other = FeatureFile(
        file.path, changed, {"name": file.names, "index": file.index}, lambda: iter([file.vectors.numpy()])
    )
    with pytest.raises(ConfigError, match=r"encoder random:smoke is not the one that wrote .*f.npy any more"):
        queries(other, [str(tmp_path / "new.png")])
    with pytest.raises(ConfigError, match=r"have changed since it was written; .*--data PATH"):
        (tmp_path / "a.png").write_bytes(encoded(picture(2, 40, 40)))
        images_of(file, tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.zeros((2, 2)))
    with pytest.raises(ConfigError, match=r"mine.npy was not written by `cnnjepa embed`"):
        open_features(tmp_path / "mine.npy")
    with pytest.raises(ConfigError, match=r"gone.npy does not exist"):
        open_features(tmp_path / "gone.npy")


def test_the_command_lists_neighbours_and_draws_them(features: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    found = CliRunner().invoke(app, ["neighbours", str(features), "04.png", "-k", "3", "--out", str(sheet)])
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[:2] == ["04.png", "  1.0000  z.png"] and len(lines) == 4
    with Image.open(sheet) as drawn:
        assert drawn.size == (8 + 4 * 152, 8 + 178)
        first, second = (drawn.crop((left, 8, left + 144, 152)) for left in (8, 160))
    expected = Image.open(features.parent / "set" / "04.png").resize((144, 144))
    assert np.array_equal(np.asarray(first), np.asarray(expected))
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_the_command_lists_near_duplicates(features: Path) -> None:
    found = CliRunner().invoke(app, ["neighbours", str(features), "--pairs", "0.99999", "--most", "1"])
    assert found.stdout.splitlines()[0] in ("1.0000  04.png  z.png", "1.0000  z.png  04.png")
    assert "pair" in found.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "give either images or --pairs SIMILARITY"),
        (["04.png", "--pairs", "0.9"], "give either images or --pairs SIMILARITY, not both"),
        (["04.png", "--out", "sheet.txt"], "the ending must be .png or .jpg"),
        (["04.png", "--out", "no/sheet.png"], "the folder no does not exist"),
    ],
)
def test_wrong_requests_are_refused(words: list[str], reason: str, features: Path) -> None:
    found = CliRunner().invoke(app, ["neighbours", str(features), *words])
    assert isinstance(found.exception, ConfigError) and reason in str(found.exception)
