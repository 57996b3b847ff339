"""The environment of a run: library versions, commit, device, file hashes, and the cache folder."""

import datetime
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys

import platformdirs

from hybrid_jax import __version__

# Libraries whose version can change a result.
LIBRARIES = (
  'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'av',
  'opencv-python-headless', 'dm-pix', 'mediapipe', 'c2pa-python',
)  # fmt: skip


def cache_folder(*parts: str) -> pathlib.Path:
  """A folder below the user's cache folder of this package (on Linux `~/.cache/hybrid_jax`)."""
  return pathlib.Path(platformdirs.user_cache_dir('hybrid_jax'), *parts)


def sha256(path: str | os.PathLike) -> str:
  """The SHA-256 of a file, read in blocks."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def versions() -> dict[str, str | None]:
  """The version of Python, of this package and of each of `LIBRARIES`; None if not installed."""
  found: dict[str, str | None] = {'python': platform.python_version(), 'hybrid_jax': __version__}
  for name in LIBRARIES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = None
  return found


def commit() -> str | None:
  """The commit of the clone that this package runs from, with '+' if its code was changed.

  None if the package is installed without its repository.
  """
  folder = pathlib.Path(__file__).parent

  def git(*arguments: str) -> str:
    command = ['git', *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout.strip()

  try:
    # A copy inside another repository is not tracked by it.
    git('ls-files', '--error-unmatch', pathlib.Path(__file__).name)
    changed = git('status', '--short', '--', ':/*.py')
    return git('rev-parse', '--short=12', 'HEAD') + ('+' if changed else '')
  except (OSError, subprocess.CalledProcessError):
    return None


def processor() -> str:
  """Number of usable CPU cores and the name of the processor."""
  names = pathlib.Path('/proc/cpuinfo')
  lines = names.read_text().splitlines() if names.is_file() else []
  name = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), '')
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  return f'{cores} cores, {name or platform.machine()}'


def device() -> str:
  """Number and kind of the JAX devices; for a CPU its cores and name."""
  import jax  # slow to import, and it reserves the accelerator

  devices = jax.devices()
  kind = f'{len(devices)} x {devices[0].device_kind}'
  return f'{kind}, {processor()}' if devices[0].platform == 'cpu' else kind


def record() -> dict:
  """What every result file states of its run: command, commit, date, device and versions."""
  return {
    'command': command(),
    'commit': commit(),
    'date': datetime.date.today().isoformat(),
    'device': device(),
    'versions': versions(),
  }


def command() -> str:
  """The command line of this process, as `python -m MODULE OPTIONS`, without absolute folders."""
  spec = getattr(sys.modules['__main__'], '__spec__', None)
  module = f'-m {spec.name.removesuffix(".__main__")}' if spec else pathlib.Path(sys.argv[0]).name
  options = (_without_folder(option) for option in sys.argv[1:])
  return ' '.join(('python', module, *options))


def _without_folder(option: str) -> str:
  name, equals, value = option.rpartition('=')
  return f'{name}{equals}{pathlib.Path(value).name}' if os.path.isabs(value) else option
