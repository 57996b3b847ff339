"""Builds torch files opcode by opcode: sound ones, and hostile ones that PyTorch never writes.

`asm` assembles the pickle; `zipped`, `legacy` and `plain` put it into the three containers. `write`
saves a tree as torch would. Nothing here needs PyTorch.
"""

import io
import pickle
import zipfile

import numpy as np

# --- Opcodes -------------------------------------------------------------------------------------


def asm(x) -> bytes:
  """The opcodes that push `x`; bytes are taken for opcodes."""
  if isinstance(x, bytes):
    return x
  if isinstance(x, tuple):
    return b'(' + b''.join(map(asm, x)) + b't'
  if isinstance(x, dict):
    return b'}(' + b''.join(asm(k) + asm(v) for k, v in x.items()) + b'u'
  return pickle.dumps(x, 2)[2:-1]


def name(full: str) -> bytes:
  """The opcode that pushes a global by its dotted name."""
  module, _, attribute = full.rpartition('.')
  return f'c{module}\n{attribute}\n'.encode()


def call(full: str, *args) -> bytes:
  """The opcodes that call a global."""
  return name(full) + asm(args) + b'R'


def storage(count: int, key='0', kind='torch.FloatStorage', extra=()) -> bytes:
  """The opcodes that push a storage of `count` elements; `extra` is a legacy view."""
  return asm(('storage', name(kind), key, 'cuda:0', count, *extra)) + b'Q'


def tensor(count, offset, size, stride, **kwargs) -> bytes:
  """The opcodes that push a tensor; `count` and `kwargs` are those of its `storage`."""
  rebuild = 'torch._utils._rebuild_tensor_v2'
  return call(rebuild, storage(count, **kwargs), offset, size, stride, False, {})


# --- Containers ----------------------------------------------------------------------------------


def zipped(x, *storages: bytes, byteorder=b'little', root='a b.c', **options) -> bytes:
  """A file in the zip format; `options` are those of `zipfile.ZipFile`."""
  out = io.BytesIO()
  with zipfile.ZipFile(out, 'w', **options) as archive:
    archive.writestr(f'{root}/data.pkl', b'\x80\x02' + asm(x) + b'.')
    archive.writestr(f'{root}/byteorder', byteorder)
    for i, data in enumerate(storages):
      archive.writestr(f'{root}/data/{i}', data)
  return out.getvalue()


def legacy(x, *storages: np.ndarray, little=True) -> bytes:
  """A file in the format before torch 1.6."""
  header = (0x1950A86A20F9469CFC6C, 1001, {'protocol_version': 1001, 'little_endian': little})
  parts = [pickle.dumps(part, 2) for part in header]
  parts += [b'\x80\x02' + asm(x) + b'.', pickle.dumps([str(i) for i in range(len(storages))], 2)]
  return b''.join(parts) + b''.join(a.size.to_bytes(8, 'little') + a.tobytes() for a in storages)


def plain(x) -> bytes:
  """A plain pickle, as NVlabs' files are."""
  return b'\x80\x04' + asm(x) + b'.'


def write(path, tree) -> str:
  """`tree`, of dicts, lists, strings and float32 arrays, as torch would save it."""
  storages = []

  def opcodes(x):
    if isinstance(x, dict):
      return {key: opcodes(value) for key, value in x.items()}
    if isinstance(x, list):
      return b'](' + b''.join(asm(opcodes(value)) for value in x) + b'e'
    if not isinstance(x, np.ndarray):
      return x
    storages.append(np.ascontiguousarray(x, np.float32).tobytes())
    stride = tuple(s // 4 for s in np.empty(x.shape, np.float32).strides)
    return tensor(x.size, 0, x.shape, stride, key=str(len(storages) - 1))

  path.write_bytes(zipped(opcodes(tree), *storages))
  return str(path)


# --- Modules saved whole -------------------------------------------------------------------------

SOURCE = "open('MARKER', 'w')"


def module(state, **changed) -> bytes:
  """A module of NVlabs' code, with `SOURCE` in the place of its source."""
  meta = {'type': 'class', 'version': 6, 'module_src': SOURCE, 'class_name': 'Net', 'state': state}
  return call('torch_utils.persistence._reconstruct_persistent_obj', meta | changed)


def state(parameters=(), modules=()):
  """The state of a module, as torch.nn.Module keeps it."""
  return {'_parameters': dict(parameters), '_buffers': {}, '_modules': dict(modules)}


def binary(data: bytes) -> bytes:
  """The opcode that pushes bytes."""
  return b'B' + len(data).to_bytes(4, 'little') + data


def nested(data: bytes, count=4) -> bytes:
  """A tensor whose storage is a stream of its own."""
  source = call('torch.storage._load_from_bytes', binary(data))
  rebuild = 'torch._utils._rebuild_tensor_v2'
  return call(rebuild, source, 0, (count,), (1,), False, {})


def stream(x: np.ndarray) -> bytes:
  """A legacy file of one storage, as it stands inside a plain pickle."""
  return legacy(storage(x.size), x)


# --- Attacks -------------------------------------------------------------------------------------

SHELL = 'touch MARKER'
PYTHON = "open('MARKER', 'w')"
IMPORT_OS = call('builtins.__import__', 'os')
ORDERED = call('collections.OrderedDict')
DOTTED = asm('collections') + asm('OrderedDict.__init__.__globals__') + b'\x93'

# what runs if it is read by pickle, and what the refusal must name
ATTACKS = {
  'reduce': (call('os.system', SHELL), 'os.system'),
  'posix': (call('posix.system', SHELL), 'posix.system'),
  'popen': (name('subprocess.Popen') + asm((['touch', 'MARKER'],)) + b'\x81', 'subprocess.Popen'),
  'eval': (call('builtins.eval', PYTHON), 'builtins.eval'),
  'eval 2': (call('__builtin__.eval', PYTHON), '__builtin__.eval'),
  'exec': (call('builtins.exec', PYTHON), 'builtins.exec'),
  'getattr': (call('builtins.getattr', IMPORT_OS, 'system') + asm((SHELL,)) + b'R', 'getattr'),
  'import': (IMPORT_OS, '__import__'),
  'nested reduce': (call('collections.OrderedDict', (call('os.system', SHELL),)), 'os.system'),
  'in a hook': (
    call('torch._utils._rebuild_parameter', 1, False, {'h': call('os.system', SHELL)}),
    'os.system',
  ),
  'in a state': (ORDERED + asm({'_metadata': call('os.system', SHELL)}) + b'b', 'os.system'),
  'in a persistent id': (asm(('storage', call('os.system', SHELL))) + b'Q', 'os.system'),
  'as a storage type': (storage(1, kind='os.system'), 'os.system'),
  'map': (asm([]) + call('builtins.map', name('os.system'), (SHELL,)) + b'e', 'builtins.map'),
  'partial': (call('functools.partial', name('os.system'), SHELL) + b')R', 'functools.partial'),
  'attrgetter': (call('operator.attrgetter', 'system') + asm((IMPORT_OS,)) + b'R', 'attrgetter'),
  'methodcaller': (call('operator.methodcaller', 'system', SHELL), 'operator.methodcaller'),
  'copyreg': (call('copyreg._reconstructor', name('builtins.object'), 1, 2), '_reconstructor'),
  'extension': (call('copyreg.add_extension', 'os', 'system', 7), 'copyreg.add_extension'),
  'EXT1': (b'\x82\x07' + asm((SHELL,)) + b'R', 'EXT1'),
  'INST': (b'(' + asm(SHELL) + b'ios\nsystem\n', 'INST'),
  'OBJ': (b'(' + name('collections.OrderedDict') + asm(SHELL) + b'o', 'OBJ'),
  'NEWOBJ_EX': (name('collections.OrderedDict') + b')}\x92', 'NEWOBJ_EX'),
  'PERSID': (b'P0\n', 'PERSID'),
  'dotted': (name('torch._utils._rebuild_tensor_v2.__globals__'), '__globals__'),
  'dotted 4': (DOTTED, 'collections.OrderedDict.__init__.__globals__'),
  'newline': (asm('os\n') + asm('system') + b'\x93', r'os\n.system'),
  'source run': (
    call('torch_utils.persistence._src_to_module', PYTHON),
    'torch_utils.persistence._src_to_module',
  ),
  'script class': (name('__torch__.M') + b')\x81' + asm({'a': 1}) + b'b', '__torch__.M'),
  'torch loads': (call('torch.storage._load_from_bytes', SHELL), '_load_from_bytes'),
  'torch hub': (call('torch.hub.load', SHELL, 'x'), 'torch.hub.load'),
  'numpy runs': (call('numpy.testing._private.utils.runstring', PYTHON, {}), 'runstring'),
  'numpy objects': (call('numpy.dtype', 'O8', False, True), "numpy dtype 'O8'"),
  'numpy records': (call('numpy.dtype', 'V8', False, True), "numpy dtype 'V8'"),
  'a module': (call('torch.nn.modules.linear.Linear'), 'torch.nn.modules.linear.Linear'),
  'our own': (name('hybrid_jax.weights.torch_file._Symbol'), '_Symbol'),
  'BUILD on a class': (
    name('collections.OrderedDict') + asm({'__setstate__': 1}) + b'b',
    '__setstate__',
  ),
  'slots on a class': (
    name('argparse.Namespace') + asm((None, {'__new__': name('torch.Size')})) + b'b',
    '__setstate__',
  ),
  'BUILD on a dict': (asm({'a': 1}) + asm({'b': 2}) + b'b', 'AttributeError'),
  'call of a value': (ORDERED + b')R', 'not callable'),
  'call of a storage type': (call('torch.FloatStorage', 10), 'torch.FloatStorage'),
  'a class as a value': (name('collections.OrderedDict'), 'collections.OrderedDict'),
  'persistent string': (asm('cpu') + b'Q', 'persistent id'),
  'persistent module': (asm(('module', name('torch.Size'), 'a.py', PYTHON)) + b'Q', 'persistent'),
  'persistent type': (storage(1, kind='torch.Size'), 'persistent id'),
  'persistent key': (storage(1, key=0), 'persistent id'),
  'persistent count': (storage(-1), 'persistent id'),
}
