"""Projectors and predictors of two-view methods: linear layers with batch norm and ReLU between them.

A linear layer before a batch norm has no bias (docs/sources.md#head-layers). Modules are numbered, not named. LARS
excludes parameters by name, so the head's norms are decayed (docs/sources.md#lars-excluded).
"""

import itertools

from torch import nn


def mlp(*widths: int, norm_last: bool = False, bias_last: bool = True) -> nn.Sequential:
    """Build a head [B, widths[0]] → [B, widths[-1]]. `norm_last` adds a batch norm on the output."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=bias_last and not norm_last))
    if norm_last:
        layers.append(nn.BatchNorm1d(widths[-1]))
    return nn.Sequential(*layers)
