"""The callback by which long-running work reports its progress."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called repeatedly with the amount done so far and the total: in bytes, unless documented otherwise."""
