"""The only error class of this package."""


class ConfigError(ValueError):
    """The request is wrong. The message names the field, its value, the allowed values and the remedy.

    The command line prints it as one message and exits with code 2.
    """
