"""What a class id may be."""

UNLABELLED = 255
"""The id every label map uses for "no class": ignored by the data set, or not recognised by us."""

MAX_CLASS_ID = 65535
"""The largest id a label map may hold: that of a 16-bit picture."""
