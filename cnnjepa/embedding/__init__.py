"""Features of a set of images in a file, and search in such a file. Importing this package imports no torch."""
