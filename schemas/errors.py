"""The one error of this room."""


class ConfigError(ValueError):
    """What was asked for is wrong: names the field, the value, what is legal and what to do.

    The command line prints it as one message and leaves with exit code 2.
    """
