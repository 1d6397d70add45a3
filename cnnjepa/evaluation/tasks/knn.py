"""Task `knn`: weighted votes of the nearest training images (docs/sources.md#probe-knn)."""

from collections.abc import Callable

from cnnjepa.evaluation.subject import Subject
from cnnjepa.evaluation.task import Outcome, Task
from cnnjepa.evaluation.tasks.linear import held_out_parts, hits_outcome
from cnnjepa.probes.knn import chosen_k, knn_hits, usable_k
from cnnjepa.schemas.evaluation import KnnTask


class Knn(Task):
    """See `KnnTask`."""

    settings: KnnTask

    def evaluate(self, subject: Subject, tick: Callable[[], None]) -> Outcome:
        settings, train = self.settings, subject.pooled("train")
        if settings.protocol == "held_out":
            fit, held = held_out_parts(train, settings)
            tick()
            k, top1 = chosen_k(fit, held, subject.classes, settings.ks, settings.temperature, subject.device)
            chosen = {"k": float(k), "held_out_top1": top1}
        else:
            chosen = {"k": float(usable_k(settings.k, train.labels.numel()))}
        tick()
        (hits,) = knn_hits(
            train, subject.pooled("val"), subject.classes, [int(chosen["k"])], settings.temperature, subject.device
        )
        return hits_outcome(hits, subject.classes, chosen)
