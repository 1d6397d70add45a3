"""The commands and Python lines that the documents show, and what stands for them in a test.

A command is run as it is written, except for the substitutions below: smaller presets, images that a test draws, one
process in place of many. Studies of larger presets are planned, not trained.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# What was typed once, long ago; its commands need not exist any more.
HISTORY = {"log.md"}

# Programs of others: that they exist and what they take is not ours to test.
OTHERS = {
    "apptainer", "docker", "export", "git", "jupytext", "optuna-dashboard", "pip", "pre-commit", "ray", "rsync",
    "scontrol", "source", "srun", "tensorboard",
}  # fmt: skip
OURS = {"cnnjepa", "make", "pytest", "python", "torchrun"}

# A few seconds of training on a CPU.
TINY = (
    "train_images=64", "val_images=48", "runtime.batch_size=16", "epochs=2", "linear_epochs=2", "linear_batch_size=32",
    "held_out_ks=[5]", "held_out_lrs=[0.01]", "device=cpu",
)  # fmt: skip

# Word → what stands for it. The folder of a test has what these name (test_documented_commands.py).
WORDS = {
    r"(/\w+)*/(in100|imagenet|imagenet100|photos)": "images",
    r"(/[\w$]+)*/imagenet100\.tar|tinyimagenet100\.tar\.gz|\$DATA": "photos.tar",
    r"(/fast/imagenet100-256|packed)": "packed",
    r"\$SCRATCH/bench|/shared/bench": ".",
    r"COSTS\.json|benchmarks/method_cost\.json": "costs.json",
    r"studies/search-tiny64/best\.yaml": "best.yaml",
    r"studies/search-smoke/best\.yaml": "best.yaml",
    r"runs/demo-seed0": "runs/demo",
    r"results/photos": "results",
    r"runs/mine/config\.yaml": "runs/demo/config.yaml",
    r"3f2a9c": "TRIAL",
    r"\$head:6379|head:6379": "auto",
}
# Presets that would train for long; only where something is trained.
PRESETS = {r"tiny64|tiny64_cpu|in100|in1k|demo|ablation|cifar": "smoke", r"(?:in100|in1k)-(\w+)": r"demo-\1"}
# Options that say how many machines take part, or that never end.
DROPPED = {
    "--address": 1, "--gpus-per-trial": 1, "--workers-per-trial": 1, "--follow": 0, "--max-hours": 1,
}  # fmt: skip
# Options of documented commands that the tests give another value.
REPLACED = (
    "--trials", "--rounds", "--batch", "--image-size", "--methods", "--preset", "--executor", "--cpus-per-trial",
    "--seeds", "--images-per-s",
)  # fmt: skip


class Command(NamedTuple):
    """A command as a document shows it."""

    document: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """Its words, without comment, prompt and redirection."""
        return shlex.split(re.sub(r"\s(>|&$|\|).*$", "", self.text), comments=True)

    @property
    def program(self) -> str:
        """Its first word."""
        return self.words[0]


def commands() -> list[Command]:
    """Every command line of the code blocks, of all documents."""
    return [command for document in DOCUMENTS if document.name not in HISTORY for command in _in_blocks(document)]


def _in_blocks(document: Path) -> Iterator[Command]:
    program = "|".join(sorted(OURS | OTHERS))
    lines = document.read_text(encoding="utf-8").splitlines()
    language = None
    number = 0
    while number < len(lines):
        start, text = number + 1, lines[number]
        number += 1
        if text.lstrip().startswith("```"):
            language = text.strip("` ") if language is None else None
            continue
        if language not in (None, "bash") or not (language or text.startswith("    ")):
            continue
        while text.endswith("\\") and number < len(lines):
            text = text[:-1] + " " + lines[number].strip()
            number += 1
        text = re.sub(r"^\w+\$\s+", "", text.strip())
        for part in text.split(" && "):
            if re.match(rf"({program})( |$)", part):
                yield Command(document.name, start, part.strip())


def inline() -> list[Command]:
    """Every command that a sentence names in backticks."""
    found = []
    for document in DOCUMENTS:
        if document.name not in HISTORY:
            text = re.sub(
                r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), document.read_text(encoding="utf-8"),
                flags=re.DOTALL | re.MULTILINE,
            )  # fmt: skip
            for match in re.finditer(r"`((?:cnnjepa|make|python) [^`]+)`", text):
                line = text[: match.start()].count("\n") + 1
                found.append(Command(document.name, line, " ".join(match[1].split())))
    return found


def of_make() -> list[Command]:
    """Every command of ours that a target of the Makefile runs."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    start = "\t$(BIN)/cnnjepa "
    return [
        Command("Makefile", number, line.removeprefix("\t$(BIN)/"))
        for number, line in enumerate(lines, 1)
        if line.startswith(start)
    ]


def substituted(command: Command) -> tuple[str, ...]:
    """The arguments of `cnnjepa` that stand for the command in a test."""
    words = command.words
    if words[0] == "torchrun":
        words = words[words.index("cnnjepa") :]
    kept = list(_shortened(words[1:]))
    verb = kept[0]
    has_images = any(word in ("images", "photos.tar", "packed", "xrays", "tiles") for word in kept)
    kept = ["runtime.epochs=4" if word == "runtime.epochs=400" else word for word in kept]
    tiny = [word for setting in _settings(kept, has_images) for word in ("--set", setting)]
    if verb in ("train", "doctor") and not {"--encoder", "--from"} & set(kept):
        kept += [] if {"--preset", "--config"} & set(kept) else ["--preset", "smoke"]
        kept += tiny
    if verb == "search":
        kept += ["--trials", "2", *([] if _is_file(kept) else tiny)]
    if verb in ("ablate", "benchmark") and kept[1:2] != ["studies"]:
        if "--cost" in kept:
            kept += [
                "--rounds",
                "1",
                "--batch",
                "2",
                "--image-size",
                "32",
                "--methods",
                "cnnjepa,byol",
                "--preset",
                "demo",
            ]
        elif verb == "ablate" and "smoke" in kept and "--plan" not in kept:
            kept += ["--executor", "local", "--cpus-per-trial", "1", "--seeds", "0", *tiny]
        else:  # every trial of the plan is built and validated; none is trained
            kept += [] if "--plan" in kept else ["--plan"]
            kept += ["--images-per-s", "100", "--executor", "local"]
            # The embedded images are drawn for a plan; few are enough.
            few = ("train_images=512", "val_images=64")
            own = any(word.startswith(("train_images=", "data.train_images=")) for word in kept)
            kept += [] if has_images or own else [word for setting in few for word in ("--set", setting)]
            if verb == "benchmark" and ({"in100", "--equal-time"} & set(kept)):
                kept += ["--methods", "cnnjepa,byol"]
    return tuple(_last_values(kept))


def _last_values(words: list[str]) -> Iterator[str]:
    """The words without those options and values that a later word replaces: a command takes an option once."""
    for place, word in enumerate(words):
        option = words[place - 1] if place and words[place - 1] in REPLACED else word
        if option not in REPLACED or option not in words[place + 1 :]:
            yield word


def _shortened(words: list[str]) -> Iterator[str]:
    skip = 0
    table = {**WORDS, **(PRESETS if words[0] in ("train", "doctor", "search") else {})}
    for place, word in enumerate(words):
        if skip:
            skip -= 1
            continue
        if word in DROPPED:
            skip = DROPPED[word]
            continue
        if place and words[place - 1] in ("--set", "--space", "--methods", "--to", "--name"):
            yield word
            continue
        matches = (re.fullmatch(pattern, word) for pattern in table)
        found = next(((m, to) for m, to in zip(matches, table.values(), strict=True) if m), None)
        yield found[0].expand(found[1]) if found else word


def _settings(words: list[str], has_images: bool) -> list[str]:
    """The settings that make it small, without those that the command sets itself."""
    given = [word.partition("=")[0] for word in words if "=" in word]
    sizes = ["image_size=32"] if has_images else []
    return [s for s in [*sizes, *TINY] if not any(s.partition("=")[0].endswith(g.rpartition(".")[2]) for g in given)]


def _is_file(words: list[str]) -> bool:
    return len(words) > 1 and words[1].endswith(".yaml")


def python_blocks() -> list[tuple[str, str]]:
    """(document and line, code) of every block of Python that stands for itself."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
            found.append((f"{document.name}:{text[: match.start()].count(chr(10)) + 1}", match[1]))
    return found
