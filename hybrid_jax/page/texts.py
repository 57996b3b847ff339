"""Texts of the page: errors of the user's input, and what a result was made from."""

import functools
import html
import pathlib
from typing import Any

from hybrid_jax.errors import InputError, memory_named
from hybrid_jax.page.stages import Stopped

LESS_MEMORY = 'take a shorter clip or a smaller picture'


def guarded(*others: Any) -> Any:
  """Shows errors of the user's input, and that a job was cancelled, as a line beside the input.

  Args:
    others: values of all outputs but the last, which takes the line.
  """

  def decorate(function: Any) -> Any:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> tuple:
      try:
        with memory_named(LESS_MEMORY):
          return function(*args, **kwargs)
      except Stopped:
        return *others, 'Cancelled.'
      except (InputError, FloatingPointError) as error:
        text = str(error)
      except OSError as error:
        text = f'{error.filename or "a file"}: cannot be used ({error.strerror or error})'
      return *others, f'<span class="wrong" role="alert">{shown(text)}</span>'

    return wrapped

  return decorate


def shown(message: str) -> str:
  """Returns a message without the folders of this machine, and safe to show as HTML."""
  words = (pathlib.Path(word).name if word.startswith('/') else word for word in message.split(' '))
  # A message begins with the path, whose name may have spaces: its folder is cut off as a whole.
  folder, slash, rest = message.partition(': ')[0].rpartition('/')
  text = message.replace(f'{folder}{slash}', '') if message.startswith('/') else ' '.join(words)
  return html.escape(text)


def origin(record: dict[str, Any]) -> str:
  """Returns what a result was made from, as a table in Markdown."""
  made = record['record']
  options = made['options']
  changed = [f'{name} {options[name]}' for name in ('motion', 'layout', 'edit', 'cma')]
  rows = {
    'Portrait': _hashed(made['source']['name'], made['source']['sha256']),
    'Driving clip': _hashed(made['driving']['name'], made['driving']['sha256']),
    'Encoder': _hashed('', made['weights']['encoder_sha256']),
    'Generator': _hashed('', made['weights']['generator_sha256']),
    'Options': html.escape(', '.join(text for text in changed if not text.endswith(' '))),
    'Written': f'{record["written"]}, hybrid_jax {made["hybrid_jax"]}',
  }
  lines = [f'| {name} | {value} |' for name, value in rows.items()]
  return '\n'.join(['| | |', '|---|---|', *lines, '', f'{made["made"].capitalize()}.'])


def _hashed(name: str, sha256: str) -> str:
  return f'{html.escape(name).replace("|", " ")} SHA-256 {sha256[:16]}...'.strip()
