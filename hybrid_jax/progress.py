"""How library functions show progress: through a callback that the command supplies."""

from collections.abc import Callable, Iterable

# progress(items, description, total) yields the items while showing how many of `total` are done.
# Where a resumed run has fewer items left than `total`, the bar begins at the difference. A
# description that changes while the items pass is a function without arguments.
Progress = Callable[[Iterable, str | Callable[[], str], int | None], Iterable]


def silent(items: Iterable, description: str | Callable[[], str], total: int | None) -> Iterable:
  """Returns the items and shows nothing."""
  return items
