"""Masking: the strategies that divide the cells of the feature grid into context and targets."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cnnjepa.schemas.block_sizes import block_sizes, expected_targets, target_rates
from cnnjepa.schemas.bounds import Bounds, share_of
from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.extension import BASES, ExtensibleSection, Kind, extensible
from cnnjepa.schemas.extent import Extent, area, as_text

Sampler = Literal["faithful", "unbiased"]

# A draw must leave enough context at least this often, so that redrawing ends. With mean context E, at most M cells
# (all blocks at one position) and min_keep k, P(context > k) >= (E - k) / (M - k), because E <= k (1 - P) + M P.
_LEAST_CHANCE = 0.05


class MaskingSection(ExtensibleSection):
    """The config of a masking strategy."""

    EXTENDS: ClassVar[Kind] = "masking"

    DRAWS_CELLS: ClassVar[bool] = True
    """True if a draw consists of two boolean maps of cells, context and target."""

    strategy: str
    """The strategy that this section configures."""

    def mean_context(self, grid: Extent) -> float:
        """Return the expected number of visible cells per sample. `grid` is the number of cells per side of a square
        feature grid, or (rows, columns)."""
        raise ConfigError(
            f"masking.strategy={self.strategy}: its Config must define mean_context(grid), the expected number of "
            "visible cells per sample"
        )

    def check(self, grid: Extent) -> None:
        """Raise ValueError if masks on this grid would have no context or no target."""

    def facts(self, grid: Extent) -> dict[str, str]:
        """Return further figures of the masks on a grid, by name, for printing."""
        return {}


class RandomMasking(MaskingSection):
    """A fixed number of cells, drawn uniformly, is visible. All other cells are targets."""

    strategy: Literal["random"] = "random"
    """The strategy that this section configures."""

    ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of cells that are masked; round(cells·(1 − ratio)) stay visible. Source: docs/sources.md#mask-ratio."""

    def kept(self, grid: Extent) -> int:
        """Return the number of visible cells."""
        return round(area(grid) * (1 - self.ratio))

    def mean_context(self, grid: Extent) -> float:
        """Return the expected number of visible cells per sample."""
        return self.kept(grid)

    def check(self, grid: Extent) -> None:
        """Raise ValueError if this grid would have no context or no target."""
        kept, cells = self.kept(grid), area(grid)
        if not 1 <= kept <= cells - 1:
            raise ValueError(
                f"masking.ratio {self.ratio:g} leaves {kept} of {cells} cells visible on the {as_text(grid)} "
                f"grid; must be between {0.5 / cells:.3g} and {1 - 0.5 / cells:.3g}, which leaves at least "
                "one context and one target cell"
            )


class BlockSection(MaskingSection):
    """Settings shared by the block strategies."""

    scale: Annotated[Bounds, share_of("the grid's cells")] = (0.15, 0.2)
    """Smallest and largest share of the grid's cells in one block. Source: docs/sources.md#block-sizes."""

    aspect: Bounds = (0.75, 1.5)
    """Smallest and largest height/width of a block. Source: docs/sources.md#block-sizes."""

    min_keep: int = Field(default=5, ge=0)
    """A block or a context of at most this many cells is drawn again. Source: docs/sources.md#min-keep."""

    sampler: Sampler = "faithful"
    """`faithful`: the positions of the authors' code, which never reach the last row and column; `unbiased`: all
    positions. Source: docs/sources.md#block-positions."""

    @property
    def blocks(self) -> int:
        """Target blocks per sample."""
        return 1

    def expected_targets(self, grid: Extent) -> float:
        """Return the exact expected number of target cells per sample, before any redraw for a small context."""
        sizes = block_sizes(grid, self.scale, self.aspect, self.min_keep)
        return expected_targets(grid, sizes, self.blocks, self.sampler == "faithful")

    def facts(self, grid: Extent) -> dict[str, str]:
        """Return the exact number of target cells, and the sampler."""
        exact = f"{self.expected_targets(grid):.4f}"
        return {"target cells of block batches, exact": exact, "sampler": self.sampler}

    def mean_context(self, grid: Extent) -> float:
        """Return the expected number of visible cells per sample."""
        return area(grid) - self.expected_targets(grid)

    def check(self, grid: Extent) -> None:
        """Raise ValueError if no block can exceed min_keep or if too little context is left."""
        sizes = block_sizes(grid, self.scale, self.aspect, self.min_keep)
        if not sizes:
            largest = int(area(grid) * self.scale[1])
            raise ValueError(
                f"masking.scale {list(self.scale)} gives blocks of at most about {largest} cells on the "
                f"{as_text(grid)} grid, never more than masking.min_keep {self.min_keep}; use a finer grid (larger "
                "data.image_size, encoder.stem small), larger blocks or a smaller min_keep"
            )
        for size in sizes:
            context = area(grid) - sum(map(sum, target_rates(grid, size, self.blocks, self.sampler == "faithful")))
            most = area(grid) - size.height * size.width  # all blocks at one position
            if most <= self.min_keep or context < self.min_keep + _LEAST_CHANCE * (most - self.min_keep):
                raise ValueError(
                    f"{self.blocks} block(s) of {size.height}x{size.width} cells leave about {context:.1f} of "
                    f"{area(grid)} cells as context on the {as_text(grid)} grid, too rarely more than masking.min_keep "
                    f"{self.min_keep}; use fewer or smaller blocks (masking.scale, masking.num_blocks) or a smaller "
                    "min_keep"
                )


class BlockMasking(BlockSection):
    """One larger target block per sample. All other cells are context (I-JEPA's comparison)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("scale",)

    strategy: Literal["block"] = "block"
    """The strategy that this section configures."""

    scale: tuple[float, float] = (0.6, 0.6)
    """Smallest and largest share of the grid's cells in the block. Source: arXiv 2301.08243, its comparison of masks
    (0.6)."""


class MultiBlockMasking(BlockSection):
    """The union of several blocks is the target. All other cells are context."""

    strategy: Literal["multi_block"] = "multi_block"
    """The strategy that this section configures."""

    num_blocks: int = Field(default=4, ge=1, le=64)
    """Number of target blocks per sample. Source: docs/sources.md#block-count."""

    @property
    def blocks(self) -> int:
        return self.num_blocks


class IJEPAMasking(BlockSection):
    """I-JEPA's masks: several target blocks, and a larger context block without their cells (arXiv 2301.08243)."""

    DRAWS_CELLS: ClassVar[bool] = False  # a draw gives lists of cells, block by block

    strategy: Literal["ijepa"] = "ijepa"
    """The strategy that this section configures."""

    num_blocks: int = Field(default=4, ge=1, le=64)
    """Number of target blocks per sample; each is predicted independently. Source: docs/sources.md#ijepa-masks."""

    context_scale: Annotated[Bounds, share_of("the grid's cells")] = (0.85, 1.0)
    """Smallest and largest share of the grid's cells in the square context block, which is cut to the grid's rows and
    columns. Source: docs/sources.md#ijepa-masks."""

    min_keep: int = Field(default=10, ge=0)
    """A block or a context of at most this many cells is drawn again. Source: docs/sources.md#ijepa-masks."""

    @property
    def blocks(self) -> int:
        return self.num_blocks

    def mean_context(self, grid: Extent) -> float:
        """Return the expected number of visible cells per sample, with context and targets assumed to be placed
        independently."""
        blocks = block_sizes(grid, self.context_scale, (1.0, 1.0), self.min_keep)
        share = sum(block.height * block.width * block.probability for block in blocks) / area(grid)
        return share * super().mean_context(grid)

    def check(self, grid: Extent) -> None:
        """Raise ValueError if no block can exceed min_keep or if too little context is left."""
        super().check(grid)
        if not block_sizes(grid, self.context_scale, (1.0, 1.0), self.min_keep):
            raise ValueError(
                f"masking.context_scale {list(self.context_scale)} gives no context block of more than "
                f"masking.min_keep {self.min_keep} cells on the {as_text(grid)} grid; use a larger context_scale, a "
                "finer grid or a smaller min_keep"
            )


class MixedMasking(BlockSection):
    """Each batch is multi-block with a given probability, otherwise random: the published setting."""

    strategy: Literal["mixed"] = "mixed"
    """The strategy that this section configures."""

    num_blocks: int = Field(default=4, ge=1, le=64)
    """Number of target blocks per sample in multi-block batches. Source: docs/sources.md#block-count."""

    ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of cells that are masked in random batches. Source: docs/sources.md#mask-ratio."""

    multi_block_probability: float = Field(default=0.75, ge=0, le=1)
    """Probability of a multi-block batch. Source: docs/sources.md#mixed-masking."""

    @property
    def blocks(self) -> int:
        return self.num_blocks

    @property
    def random(self) -> RandomMasking:
        """The strategy of random batches."""
        return RandomMasking(ratio=self.ratio)

    def mean_context(self, grid: Extent) -> float:
        p = self.multi_block_probability
        return p * super().mean_context(grid) + (1 - p) * self.random.mean_context(grid)

    def check(self, grid: Extent) -> None:
        super().check(grid)
        self.random.check(grid)


BASES["masking"] = MaskingSection

IMPLEMENTATIONS: dict[type[MaskingSection], str] = {
    RandomMasking: "cnnjepa.masks.random_cells:RandomCells",
    BlockMasking: "cnnjepa.masks.blocks:Blocks",
    MultiBlockMasking: "cnnjepa.masks.blocks:Blocks",
    MixedMasking: "cnnjepa.masks.mixed:Mixed",
}
"""Config class of every built-in strategy that draws two maps of cells, and the class that draws them, imported when a
run needs it."""

if TYPE_CHECKING:
    MaskingConfig = MaskingSection
else:
    MaskingConfig = extensible("masking", IMPLEMENTATIONS)
