"""Sources and terms of the public files."""

import pathlib

import pytest

import hybrid_jax.weights
from configs import common
from hybrid_jax.weights import public, public_formats

README = pathlib.Path(hybrid_jax.weights.__file__).with_name('README.md')


def test_every_kind_has_a_source_and_the_readme_lists_all():
  assert set(public_formats.KINDS) <= set(public.FILES)
  assert public.table() in README.read_text()


@pytest.mark.parametrize('net', public.LPIPS_BACKBONES)
def test_every_field_of_the_config_has_a_public_file(net):
  names = {field: public.file_of(field, net).name for field in common.paper()['weights']}
  assert names['lpips_linear'] == f'lpips/weights/v0.1/{net}.pth'
  if net == 'alex':  # the default paths are named after the public files
    for field in ('e4e', 'lpips_backbone', 'arcface'):
      assert common.paper()['weights'][field] == f'weights/{names[field]}'
