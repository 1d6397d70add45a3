"""Encoders that a user names: runs, exports, networks of torchvision and timm, presets, and networks of the user.
Importing this package imports no torch."""
