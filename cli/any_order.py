"""Options before the name of a command: `ablate --plan FILE.yaml` means `ablate FILE.yaml --plan`."""

from typing import Any

from typer.core import TyperGroup


class AnyOrder(TyperGroup):
    """A group of commands whose name may follow their options."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Move the first word that is neither an option nor an option's value to the front."""
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0].startswith("-") and args[0].partition("=")[0] not in own:
            place = self._place_of_the_command(args)
            if place is not None:
                args = [args[place], *args[:place], *args[place + 1 :]]
            elif args[0].partition("=")[0] in self._takes_a_value():
                ctx.fail(f"{args[0]} belongs to a command, and none is given; commands are {', '.join(self.commands)}.")
        return super().parse_args(ctx, args)

    def _place_of_the_command(self, args: list[str]) -> int | None:
        takes_a_value, place = self._takes_a_value(), 0
        while place < len(args) and args[place] != "--":
            if not args[place].startswith("-"):
                return place
            place += 2 if takes_a_value.get(args[place]) else 1
        return None

    def _takes_a_value(self) -> dict[str, bool]:
        """Return option of any command → whether the next word is its value."""
        return {
            name: not getattr(parameter, "is_flag", False)
            for command in self.commands.values()
            for parameter in command.params
            if parameter.param_type_name == "option"
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
