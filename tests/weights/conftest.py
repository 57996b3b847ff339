"""Fixtures that several tests of weight files share."""

import json

import pytest
from ml_collections import ConfigDict

from configs import common
from hybrid_jax.weights import convert, folders


@pytest.fixture
def config():
  """Config of the reduced files of tests/golden and shared/reference."""
  config = ConfigDict(common.tiny())
  config.model.update(
    frame_size=256,
    encoder_units=(3, 4, 14, 3),
    arcface_size=112,
    arcface_units=(3, 4, 14, 3),
  )
  return config


@pytest.fixture
def convert_to(tmp_path):
  """Converts a file; returns (manifest, tree) as read back."""

  def call(path, kind='auto', **options):
    output = tmp_path / 'converted'
    written = convert.convert(str(path), str(output), kind, **options)
    manifest, tree = folders.read(output)
    assert json.loads(json.dumps(written)) == manifest
    return manifest, tree

  return call
