"""How long work reports how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called again and again with what is done so far and what there is in all: bytes, where nothing else is said."""
