"""The result of one check."""

import dataclasses
from collections.abc import Callable

from hybrid_jax.errors import InputError

STATUSES = ('ok', 'warning', 'missing', 'wrong')


@dataclasses.dataclass(frozen=True)
class Check:
  """One line of a report. `status` is one of STATUSES; the last two keep a run from starting."""

  status: str
  name: str
  message: str

  @property
  def blocks(self) -> bool:
    """Whether training cannot start."""
    return self.status in ('missing', 'wrong')

  def __str__(self) -> str:
    return f'{self.status:<8} {self.name}: {" ".join(self.message.split())}'


def attempt(name: str, work: Callable[[], str], status: str) -> Check:
  """Returns an ok check with the message that `work` returns.

  If `work` raises InputError, the check has this `status` and the error's message.
  """
  try:
    return Check('ok', name, work())
  except InputError as error:
    return Check(status, name, str(error))
