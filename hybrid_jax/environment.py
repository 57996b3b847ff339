"""The environment of a run: library versions, commit, device, file hashes, and the cache folder.

Only the standard library is imported at the top: scripts that measure a machine with nothing but
JAX installed use this module too.
"""

import datetime
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator

from hybrid_jax import __version__

# Libraries whose version can change a result.
LIBRARIES = (
  'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'av',
  'opencv-python-headless', 'dm-pix', 'mediapipe', 'c2pa-python',
)  # fmt: skip


def cache_folder(*parts: str) -> pathlib.Path:
  """A folder below the user's cache folder of this package (on Linux `~/.cache/hybrid_jax`)."""
  import platformdirs

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


# What JAX itself looks for: device files of NVIDIA's driver and of WSL, TPU chips on the PCI bus
# (Google's vendor number is also that of its network cards, hence the chips' numbers).
_NVIDIA = ('dev/nvidia[0-9]*', 'dev/nvidiactl', 'dev/dxg', 'proc/driver/nvidia/version')
_GOOGLE, _TPUS = '0x1ae0', {'0x0027', '0x0056', '0x005e', '0x0062', '0x0063', '0x006f', '0x0076'}
_TPU_VARIABLES = ('TPU_ACCELERATOR_TYPE', 'TPU_WORKER_ID', 'TPU_NAME', 'TPU_CHIPS_PER_HOST_BOUNDS')


def missing_accelerator(root: str | os.PathLike = '/') -> str:
  """Returns one line if this machine has a GPU or TPU that the installed JAX cannot use, else ''.

  The line names the extra to install. Nothing is said where the CPU was asked for
  (JAX_PLATFORMS=cpu), or where the extra is installed: then JAX itself reports what fails.

  Args:
    root: folder that holds `dev`, `proc` and `sys`, for tests.
  """
  import jax

  if (jax.config.jax_platforms or '').startswith('cpu') or jax.default_backend() != 'cpu':
    return ''
  kind, extra, plugin = accelerator(root)
  if not kind or any(name.startswith(plugin) for name in _installed()):
    return ''
  return (
    f'This machine has {kind}, but the installed JAX uses the CPU only: '
    f"install the extra with  pip install -e '.[{extra}]'"
  )


def accelerator(root: str | os.PathLike = '/') -> tuple[str, str, str]:
  """Returns (name, extra, prefix of JAX's plugin package) of the machine's accelerator, or ''s."""
  root = pathlib.Path(root)

  def has(*patterns: str) -> bool:
    return any(any(root.glob(pattern)) for pattern in patterns)

  if has(*_NVIDIA):
    return 'an NVIDIA GPU', 'cuda', 'jax-cuda'
  # TPU v4 and older have device files of their own (an Intel NPU's is dev/accel/accel0). Newer ones
  # are bound to vfio, as any device can be that is passed through.
  vfio = has('dev/vfio/[0-9]*') and any(map(os.environ.get, _TPU_VARIABLES))
  if vfio or has('dev/accel[0-9]*') or any(map(_is_tpu, root.glob('sys/bus/pci/devices/*'))):
    return 'a TPU', 'tpu', 'libtpu'
  return '', '', ''


def _is_tpu(device: pathlib.Path) -> bool:
  try:
    vendor, number = ((device / name).read_text().strip() for name in ('vendor', 'device'))
  except OSError:
    return False
  return vendor == _GOOGLE and number in _TPUS


def _installed() -> Iterator[str]:
  for distribution in importlib.metadata.distributions():
    yield (distribution.metadata['Name'] or '').lower().replace('_', '-')


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
