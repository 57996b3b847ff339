"""What the user can put right."""


class InputError(ValueError):
  """Bad input: one line that says what is wrong, with which file or field, and what to do.

  Commands print it and exit with 1; nothing else is caught, so that our own mistakes show a
  traceback.
  """
