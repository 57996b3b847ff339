"""Damaged and hostile files: none runs, each is reported in one line, nothing is left behind.

100 cases here; `pytest -m slow tests/weights/test_fuzz.py` runs 2,400 and writes their outcome to
experiments/results/fuzz.json.
"""

import collections
import io
import json
import os
import pathlib
import sys
import time
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity import GOLDEN
from torch_files import ATTACKS, asm, call, legacy, name, storage, tensor, zipped

from hybrid_jax.errors import InputError
from hybrid_jax.weights import convert, files

RESULTS = pathlib.Path(__file__).resolve().parents[2] / 'experiments' / 'results' / 'fuzz.json'
# What a reader has no business with. `pickle.find_class` is raised where pickle itself would look
# up a name, which no symbol ever does. Compiling alone is not: numpy reads headers as literals.
FORBIDDEN = (
  'pickle.find_class os.system os.exec os.fork os.posix_spawn os.spawn subprocess.Popen exec '
  'import os.remove os.rename os.mkdir socket.connect ctypes.dlopen code.__new__'
).split()
SEEDS = [
  'latent_discriminator.pt',
  'latent_discriminator_legacy.pt',
  'nvlabs16.pkl',
  'nvlabs16_module.pt',
  'torch_files/script_module.pt',
  'torch_files/zip.pt',
  'torch_files/legacy.pt',
]

watching: list[list] = []


def _audit(event: str, arguments: tuple) -> None:
  if watching and event in FORBIDDEN:
    watching[-1].append((event, str(arguments)[:80]))


sys.addaudithook(_audit)


# --- Cases ---------------------------------------------------------------------------------------


def seeds() -> list[bytes]:
  """Files to damage: golden ones, and one each of safetensors and .npy."""
  out = io.BytesIO()
  np.save(out, np.ones((1, 8), np.float32))
  header = json.dumps({'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}}).encode()
  flat = len(header).to_bytes(8, 'little') + header + bytes(8)
  return [(GOLDEN / file).read_bytes() for file in SEEDS] + [out.getvalue(), flat]


def repacked(data: bytes, change) -> bytes:
  """A zip whose pickles are changed and whose checksums are right again."""
  out = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w') as new:
    for item in old.infolist():
      content = old.read(item)
      new.writestr(item.filename, change(content) if item.filename.endswith('.pkl') else content)
  return out.getvalue()


def mutants(data: bytes):
  """A strategy for damaged copies of `data`."""
  place = st.integers(0, len(data) - 1)
  flips = st.lists(st.tuples(place, st.integers(1, 255)), min_size=1, max_size=8)

  def flip(content: bytes, changes) -> bytes:
    content = bytearray(content)
    for at, bits in changes:
      content[at % len(content)] ^= bits
    return bytes(content)

  kinds = [
    place.map(lambda at: data[:at]),
    flips.map(lambda changes: flip(data, changes)),
    # The first bytes are those that say what follows.
    st.lists(st.tuples(st.integers(0, min(600, len(data) - 1)), st.integers(1, 255)), min_size=1)
    .map(lambda changes: flip(data, changes[:8])),
    st.tuples(place, st.binary(min_size=1, max_size=64)).map(
      lambda x: data[: x[0]] + x[1] + data[x[0] :]
    ),
    st.tuples(place, place).map(lambda x: data[: min(x)] + data[max(x) :]),
    st.tuples(place, place, place).map(lambda x: data[: x[0]] + data[min(x[1:]) : max(x[1:])]),
  ]  # fmt: skip
  if data.startswith(b'PK'):
    kinds.append(flips.map(lambda changes: repacked(data, lambda x: flip(x, changes))))
  return st.one_of(kinds)


def opcodes():
  """Trees of plain values, tensors, allowed calls and attacks, as the opcodes that make them."""
  attacks = st.sampled_from([code for code, _ in ATTACKS.values()])
  small = st.integers(-3, 20)
  sizes = st.lists(small, max_size=4).map(tuple)
  leaf = st.one_of(
    st.none().map(asm),
    st.booleans().map(asm),
    st.integers(-(2**70), 2**70).map(asm),
    st.text(max_size=8).map(asm),
    st.tuples(small, small, sizes, sizes).map(lambda x: tensor(*x)),
    st.sampled_from(['torch.Size', 'collections.OrderedDict', 'numpy.dtype', 'torch.float32']).map(
      name
    ),
    attacks,
  )
  names = st.sampled_from(
    'state_dict g_ema latent_avg G_ema opts comp mlp.0.weight lin0.model.1.weight'.split()
  )
  functions = st.sampled_from(
    'collections.OrderedDict torch._utils._rebuild_tensor_v2 torch._utils._rebuild_parameter '
    'torch.Size argparse.Namespace numpy.dtype numpy._core.multiarray.scalar _codecs.encode '
    'torch_utils.persistence._reconstruct_persistent_obj torch.storage._load_from_bytes '
    'builtins.set dnnlib.util.EasyDict'.split()
  )
  return st.recursive(
    leaf,
    lambda inner: st.one_of(
      st.lists(inner, max_size=3).map(lambda x: b'](' + b''.join(x) + b'e'),
      st.dictionaries(names, inner, max_size=4).map(asm),
      st.tuples(functions, st.lists(inner, max_size=7)).map(lambda x: call(x[0], *x[1])),
      st.tuples(inner, inner).map(lambda x: x[0] + x[1] + b'b'),
      st.tuples(inner, st.binary(max_size=6)).map(lambda x: x[0] + x[1]),
    ),
    max_leaves=12,
  )


def containers(code: bytes):
  some = np.arange(16, dtype=np.float32)
  return [
    zipped(code, some.tobytes()),
    legacy(code, some),
    b'\x80\x04' + code + b'.',
    zipped(storage(16) + b'0' + code, some.tobytes()),
  ]


# --- One case ------------------------------------------------------------------------------------


def outcome(data: bytes, folder: pathlib.Path, watch: bool = True) -> str:
  """The result of reading a file, and of converting it if it could be read."""
  path, output = folder / 'file', folder / 'out'
  path.write_bytes(data)
  events: list = []
  watching.append(events)
  try:
    files.read(path)
    result = 'read'
  except InputError as error:
    assert '\n' not in str(error) and len(str(error)) < 900, error
    result = 'refused'
  finally:
    watching.pop()
  assert not (watch and events), events
  if result == 'read':
    try:
      convert.convert(str(path), str(output))
      result = 'converted'
    except InputError as error:
      assert '\n' not in str(error), error
      result = 'read, and refused for its contents'
  assert sorted(os.listdir(folder)) == ['file', *(['out'] if result == 'converted' else [])]
  if result == 'converted':
    assert sorted(os.listdir(output)) == ['manifest.json', 'weights']
    for root, folders, names in os.walk(output, topdown=False):
      for each in names:
        os.remove(os.path.join(root, each))
      for each in folders:
        os.rmdir(os.path.join(root, each))
    os.rmdir(output)
  return result


def run(cases: int, folder: pathlib.Path) -> collections.Counter:
  """`cases` cases, a third of them assembled and the others damaged files."""
  counts: collections.Counter = collections.Counter()
  options = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
  )
  for data in seeds():  # what is imported late is imported now
    outcome(data, folder, watch=False)

  def one(data: bytes) -> None:
    counts[outcome(data, folder)] += 1

  each = max(1, cases * 2 // 3 // len(seeds()))
  for data in seeds():
    settings(options, max_examples=each)(given(mutants(data))(one))()
  assembled = opcodes().flatmap(lambda code: st.sampled_from(containers(code)))
  while sum(counts.values()) < cases:
    settings(options, max_examples=cases - sum(counts.values()), derandomize=False)(
      given(assembled)(one)
    )()
  return counts


@pytest.fixture
def marked(tmp_path, monkeypatch):
  """A working directory where an attack would leave its mark."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'work').mkdir()
  yield tmp_path / 'work'
  assert sorted(os.listdir(tmp_path)) == ['work']


def test_hundred_cases(marked):
  assert sum(run(100, marked).values()) >= 100


def test_the_hook_sees_what_is_forbidden():
  watching.append([])
  exec('1')
  import pickle

  pickle.loads(b'\x80\x02cos\ngetcwd\n.')
  events = [event for event, _ in watching.pop()]
  assert 'exec' in events and 'pickle.find_class' in events


@pytest.mark.slow
def test_thousands_of_cases(marked):
  start = time.time()
  counts = run(2400, marked)
  assert sum(counts.values()) >= 2400
  RESULTS.write_text(
    json.dumps(
      {
        'command': 'python -m pytest -m slow tests/weights/test_fuzz.py',
        'cases': sum(counts.values()),
        'outcomes': dict(counts),
        'asserted of each': 'no forbidden event or mark of an attack, one line or a whole folder',
        'seconds': round(time.time() - start),
      },
      indent=2,
    )
    + '\n'
  )
