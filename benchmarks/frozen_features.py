"""Tasks on frozen features against other libraries on the same features: logistic regression and nearest neighbours.

Logistic regression with few labels (seven penalties from 0.01 to 10,000) against scikit-learn's at tol=1e-6, at which
its accuracies are ours; the k nearest of a bank by cosine similarity against FAISS, where it is installed. Features are
random clouds around class centres.

    python benchmarks/frozen_features.py            # about 3 minutes on one thread
"""

import argparse
import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from figures import Figure, add_options, ratio, report
from timing import alternately
from torch import Tensor

from cnnjepa.evaluation.logistic import fit_path
from cnnjepa.probes.knn import nearest
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment

CPU = torch.device("cpu")
CS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
# (name, rows, channels, classes, spread of a class around its centre)
PROBLEMS = (("600 x 96, 16 classes", 600, 96, 16, 4.0), ("1,000 x 2,048, 100 classes", 1000, 2048, 100, 8.0))


class Size(NamedTuple):
    """Amount of work of a mode."""

    rounds: int
    bank: int
    queries: int
    channels: int


_MODES = {
    "full": Size(5, 100_000, 2000, 2048), "quick": Size(3, 20_000, 1000, 512), "tiny": Size(1, 500, 50, 16),
}  # fmt: skip


def clouds(rows: int, channels: int, classes: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """Features of unit length, float64, and their classes."""
    centres = torch.randn(classes, channels, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(rows) % classes
    noise = torch.randn(rows, channels, generator=torch.Generator().manual_seed(seed))
    return F.normalize((centres[labels] + spread * noise).double(), dim=1), labels


def regression(rounds: int, problems: int) -> tuple[list[Figure], dict[str, Any]]:
    from sklearn.linear_model import LogisticRegression

    figures, details = [], {}
    for name, rows, channels, classes, spread in PROBLEMS[:problems]:
        (x, y), (judged, truth) = clouds(rows, channels, classes, spread, 0), clouds(4000, channels, classes, spread, 1)
        ours, theirs = [], []

        def fit_ours() -> None:
            ours[:] = fit_path(x, y, classes, CS)  # noqa: B023 - called in this round

        def fit_theirs() -> None:
            models = (LogisticRegression(C=c, tol=1e-6, max_iter=10_000) for c in CS)
            theirs[:] = [model.fit(x.numpy(), y.numpy()) for model in models]  # noqa: B023

        times = alternately({"ours": fit_ours, "scikit-learn": fit_theirs}, rounds, CPU)
        accuracies = {
            "ours": [100 * float((model.scores(judged).argmax(1) == truth).double().mean()) for model in ours],
            "scikit-learn": [100 * model.score(judged.numpy(), truth.numpy()) for model in theirs],
        }
        apart = max(abs(a - b) for a, b in zip(*accuracies.values(), strict=True))
        figures += [
            ratio(f"logistic regression, {name}, ours / scikit-learn", times["ours"], times["scikit-learn"],
                  target=1.0, direction="at_most", note="seconds for seven penalties"),
            Figure(f"logistic regression, {name}, largest difference of accuracies", apart, "points", 0.2, "at_most",
                   note="on 4,000 other rows"),
        ]  # fmt: skip
        details[name] = {"seconds": times, "accuracies": accuracies}
    return figures, details


def neighbours(size: Size) -> tuple[list[Figure], dict[str, Any]]:
    try:
        import faiss
    except ModuleNotFoundError:
        print("nearest neighbours: FAISS is not installed; not compared")
        return [], {}
    draw = torch.Generator().manual_seed(0)
    bank = F.normalize(torch.randn(size.bank, size.channels, generator=draw), dim=1)
    queries = F.normalize(torch.randn(size.queries, size.channels, generator=draw), dim=1)
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(size.channels)
    index.add(bank.numpy())
    found: dict[str, Any] = {}

    def ours() -> None:
        found["ours"] = nearest(bank, queries, 20, CPU)[1]

    def theirs() -> None:
        found["FAISS"] = torch.from_numpy(index.search(queries.numpy(), 20)[1])

    times = alternately({"ours": ours, "FAISS": theirs}, size.rounds, CPU)
    same = 100 * float((found["ours"] == found["FAISS"]).double().mean())
    note = f"20 nearest of {size.bank:,} x {size.channels:,} for {size.queries:,} queries"
    return [
        ratio("nearest neighbours, ours / FAISS", times["ours"], times["FAISS"], target=1.0, direction="at_most",
              note=f"{note}; FAISS's bank is prepared before"),
        Figure("nearest neighbours, same rows", same, "%", 99.9, "at_least", note="others are ties by rounding"),
    ], {"seconds": times}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module="sklearn")
    size = _MODES[asked.mode]
    figures, regressions = regression(size.rounds, 1 if asked.mode == "tiny" else len(PROBLEMS))
    more, searches = neighbours(size)
    report(
        "frozen_features",
        asked,
        environment(Processes(0, 1, CPU)),
        [*figures, *more],
        {"regression": regressions, "search": searches},
    )


if __name__ == "__main__":
    main()
