"""The recipe of the 256 px networks runs what is missing, in order."""

import sys

from experiments.world import recipe_256
from hybrid_jax.weights import shipped


def test_what_is_exported_is_not_trained_again(monkeypatch, tmp_path):
  ran = []
  monkeypatch.setattr(recipe_256, 'run', lambda arguments: ran.append(arguments[0]))
  monkeypatch.setattr(shipped, 'FOLDER', tmp_path)
  monkeypatch.setattr(sys, 'argv', ['recipe_256', str(tmp_path / 'work')])
  (tmp_path / 'generator_256.npz').touch()
  recipe_256.main()
  inversion, encoder = 'experiments.world.large_inversion', 'experiments.world.encoder'
  assert ran == [inversion, inversion, 'hybrid_jax.main', encoder]
