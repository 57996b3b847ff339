"""The persistent compilation cache: a program is compiled once per machine, not once per run."""

import os
import pathlib

import jax


def use_cache(path: str | None = None) -> None:
  """Keeps compiled programs in `path`; None is the user's cache folder, '' turns it off.

  JAX_COMPILATION_CACHE_DIR, where set, wins over the default.
  """
  if path is None:
    base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    path = os.environ.get('JAX_COMPILATION_CACHE_DIR') or str(pathlib.Path(base) / 'hybrid_jax')
  if path:
    jax.config.update('jax_compilation_cache_dir', path)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)
