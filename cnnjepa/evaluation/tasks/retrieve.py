"""Task `retrieve`: ranking of the other validation images by cosine similarity.

Mean average precision and recall at k over all queries, as in arXiv 1511.06452 (recall at k) and in the retrieval
evaluation of DINO (arXiv 2104.14294, section 4.2.1).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.data.source import stratified
from cnnjepa.evaluation.intervals import accuracy, mean_over_images
from cnnjepa.evaluation.subject import Subject
from cnnjepa.evaluation.task import Outcome, Task
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.evaluation import RetrieveTask
from cnnjepa.tensor_ops.matmul import linear
from cnnjepa.tensor_ops.similar_pairs import similar_pairs

_QUERIES = 256  # queries ranked at a time: 50 MB of similarities and 100 MB of places at 50,000 images


class Retrieve(Task):
    """See `RetrieveTask`."""

    settings: RetrieveTask

    def evaluate(self, subject: Subject, tick: Callable[[], None]) -> Outcome:
        settings, val = self.settings, subject.pooled("val")
        rows = F.normalize(val.values.to(subject.device), dim=1)
        labels = val.labels.to(subject.device)
        queries, notes = self._queries(val.labels, subject.data.name)
        precisions, first_hits = [], []
        for part in queries.split(_QUERIES):
            tick()
            precision, first = ranked(rows, labels, part.to(subject.device))
            precisions.append(precision.cpu())
            first_hits.append(first.cpu())
        precision, first = torch.cat(precisions), torch.cat(first_hits)
        figures = {"mAP": mean_over_images(100 * precision.numpy())}
        per_image = {"mAP": (100 * precision).float().numpy()}
        for k in settings.recall_at:
            hits = (first < k).numpy()
            figures[f"recall at {k}"] = accuracy(hits)
            per_image[f"recall at {k}"] = 100 * hits.astype("float32")
        total, pairs = self._duplicates(rows, subject, tick)
        if total:
            notes.append(
                f"{total:,} pairs of validation images have a cosine similarity of at least "
                f"{settings.duplicate_similarity:g}"
            )
        return Outcome(figures, per_image, notes=notes, details={"near_duplicates": pairs})

    def _queries(self, labels: Tensor, name: str) -> tuple[Tensor, list[str]]:
        """Return the indices of the queries, and a note about images whose class has no other image."""
        alone = torch.bincount(labels)[labels] < 2
        able = (~alone).nonzero()[:, 0]
        if not able.numel():
            raise ConfigError(
                f"task retrieve: no class of {name} has two validation images, so a query would have nothing to find"
            )
        if able.numel() > self.settings.most_queries:
            able = able[stratified(labels[able], self.settings.most_queries)]
        left_out = int(alone.sum())
        return able, [f"{left_out} images are no queries: they are alone in their class"] if left_out else []

    def _duplicates(
        self, rows: Tensor, subject: Subject, tick: Callable[[], None]
    ) -> tuple[int, list[dict[str, float | str]]]:
        """Return the number of near-duplicate pairs of validation images, and the most similar of them."""
        settings = self.settings
        best, total = similar_pairs(rows, settings.duplicate_similarity, settings.most_duplicates, tick)
        places, name = subject.pooled("val").whole_set[1], subject.data.val.name
        return total, [
            {
                "similarity": round(similarity, 6),
                "first": name(int(places[first])),
                "second": name(int(places[second])),
            }
            for first, second, similarity in best
        ]


def ranked(rows: Tensor, labels: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each query, an index into rows [M, D] of unit length: its average precision (float64 [Q], 0 to 1), and
    the rank from 0 of the first image of its class (int64 [Q]). The query itself is not ranked. Equal similarities
    are ranked by the order of the set. Every query must have another image of its class."""
    similarity = linear(rows[queries], rows)
    similarity.scatter_(1, queries[:, None], -2.0)  # below every cosine: the query comes last
    order = similarity.argsort(dim=1, descending=True, stable=True)[:, :-1]
    hit = labels[order] == labels[queries][:, None]
    ranks = torch.arange(1, hit.shape[1] + 1, device=rows.device, dtype=torch.float64)
    precision_at = hit.cumsum(1, dtype=torch.float64) / ranks
    return (precision_at * hit).sum(1) / hit.sum(1), hit.int().argmax(1)
