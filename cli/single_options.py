"""Commands that refuse a second value for an option that holds one. Without this check the last value would count, and
the others would be dropped silently."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand


class SingleOptions(TyperCommand):
    """A command whose options are given at most once, except those that collect a list. The paragraphs of its help are
    wrapped at the terminal's width, not where the lines of the docstring end."""

    def __init__(self, *args: Any, help: str | None = None, **settings: Any) -> None:
        paragraphs = (help or "").split("\n\n")
        super().__init__(*args, help="\n\n".join(" ".join(text.split()) for text in paragraphs), **settings)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the words after the command. Raises ConfigError for an option that is given twice."""
        if args:  # without words, the command may show its help instead
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for option, times in Counter(filter(_holds_one_value, given)).items():
                if times > 1:
                    _refuse_repeated(option, times)
        return super().parse_args(ctx, args)


def _holds_one_value(parameter: Any) -> bool:
    """Return whether a second value would replace the first. A repeated switch such as `--resume` changes nothing."""
    is_switch = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
    return parameter.param_type_name == "option" and not parameter.multiple and not is_switch


def _refuse_repeated(option: Any, times: int) -> NoReturn:
    from cnnjepa.schemas.errors import ConfigError

    names = "/".join((*option.opts, *option.secondary_opts))
    raise ConfigError(f"{names} is given {times} times; give it once")


class Commands(typer.Typer):
    """A group of commands of class SingleOptions."""

    def command(self, *args: Any, **settings: Any) -> Callable[[Any], Any]:
        """Return a decorator that adds a command."""
        return super().command(*args, **{"cls": SingleOptions, **settings})
