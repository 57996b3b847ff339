"""How commands end: memory or disk that runs out, and output that is read no further."""

import errno
import io
import subprocess
import sys
import time

import jax
import pytest
import tqdm

from hybrid_jax import cli
from hybrid_jax.errors import InputError, memory_named


@pytest.mark.parametrize(
  'error',
  [
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating\n 17 bytes.'),
    RuntimeError('INTERNAL: CUDA_ERROR_OUT_OF_MEMORY'),
    MemoryError(),
    MemoryError('Unable to allocate 9 TiB'),
  ],
)
def test_exhausted_memory_is_one_line_with_what_to_lower(error):
  with pytest.raises(SystemExit) as ended, cli.running(lower='lower --batch-size (now 8)'):
    raise error
  assert str(ended.value).startswith('error: out of memory: lower --batch-size (now 8) (')
  assert '\n' not in str(ended.value)


def test_other_errors_pass_through_memory():
  for error in (RuntimeError('INTERNAL: other'), InputError('out of memory: lower x'), KeyError()):
    with pytest.raises(type(error)) as passed, memory_named('lower y'):
      raise error
    assert passed.value is error


def test_a_full_disk_is_one_line():
  with pytest.raises(SystemExit, match='^error: a/b: cannot be used .No space left'), cli.running():
    raise OSError(errno.ENOSPC, 'No space left on device', 'a/b')


def test_the_seconds_of_a_bar_pass_in_a_terminal_alone(monkeypatch):
  class Terminal(io.StringIO):
    terminal = True

    def isatty(self):
      return self.terminal

  for terminal in (True, False):
    stream, Terminal.terminal = Terminal(), terminal
    monkeypatch.setattr(sys, 'stderr', stream)
    bar = tqdm.tqdm(total=1, desc='compiling')
    with cli.ticking(bar):
      time.sleep(1.5)  # compiles
    bar.close()
    assert ('00:01' in stream.getvalue().rpartition('\r')[0]) == terminal


@pytest.mark.parametrize('stream', ['stdout', 'stderr'])
def test_a_command_whose_messages_are_read_no_further_goes_on(stream, tmp_path):
  code = (
    'import pathlib, sys\n'
    'from hybrid_jax import cli\n'
    'def main():\n'
    '  for k in range(20_000):\n'
    f'    print("line", k, file=sys.{stream})\n'
    f'  pathlib.Path({str(tmp_path)!r}, "finished").touch()\n'
    'cli.command(main)\n'
  )
  with subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
  ) as process:
    read, other = process.stdout, process.stderr
    read, other = (read, other) if stream == 'stdout' else (other, read)
    assert read.readline() == b'line 0\n'
    read.close()
    assert other.read() == b'' and process.wait() == 0
  assert (tmp_path / 'finished').exists()
