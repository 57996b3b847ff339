"""The rehearsal at full size: the README's commands, its weight files, and a small run."""

import argparse
import json
import math
import re

import jax
import numpy as np
import outcomes
import pytest
from ml_collections import ConfigDict
from small import small_config

from configs import common
from data.face_clips import packing
from experiments import script
from experiments.cost import rehearsal, rehearsal_inputs
from hybrid_jax.method import networks
from hybrid_jax.weights import load, public_formats, torch_file

README = (script.ROOT / 'README.md').read_text()


def test_the_commands_are_the_readmes_and_cover_the_road():
  steps = rehearsal.steps(small=False)
  section = README[README.index('## Train at 1024 px') : README.index('## Results')]
  plain = ' '.join(section.replace('\\\n', ' ').split())
  assert all(step.command in plain for step in steps[1:])
  assert [step.name for step in steps] == [
    'inputs', 'pack CelebV-HQ', 'pack HDTF', 'doctor', 'pretrain, interrupted', 'pretrain, resumed',
    'finetune', 'export', 'convert', 'mkdir', 'reenact', 'reenact --cma', 'evaluate',
  ]  # fmt: skip
  # The same command resumes, and doctor checks the run that follows.
  doctor, begun, resumed = steps[3:6]
  assert (begun.command, begun.added) == (resumed.command, resumed.added)
  assert doctor.command.replace('doctor', 'main') == begun.command and doctor.added == begun.added
  assert f'`{rehearsal.SMALL_MACHINE}`' in section
  packed = set(re.findall(r'--config\.data\.packed=(\S+)', plain))
  names = re.findall(r'--name (\w+)', plain)
  assert packed == {f'packed/{packing.NAME}/{name}/{packing.VERSION}' for name in names}


def test_the_added_options_are_fields_of_the_config_and_only_shorten_and_shrink():
  config = ConfigDict(common.paper())
  for small in (False, True):
    for step in rehearsal.steps(small):
      for name in re.findall(r'--config\.([\w.]+)=', step.added):
        section, field = name.split('.')
        assert field in config[section], name
        allowed = {'train', 'weights', 'data', 'model'} | ({'loss'} if small else set())
        assert section in allowed, name
  added = rehearsal.added('python -m hybrid_jax.main --config=configs/pretrain.py', False)
  assert set(re.findall(r'--config\.model\.(\w+)', added)) == {'remat_from', 'half_dtype'}


def test_every_tensor_of_the_public_files_has_a_rule():
  for kind, shapes in rehearsal_inputs.public_shapes().items():
    for name in shapes:
      found = rehearsal_inputs.role(name, shapes)
      assert any(re.search(pattern, found) for pattern, _ in rehearsal_inputs.RULES), (kind, name)


def test_the_files_are_recognised_and_loaded(tmp_path):
  config = small_config()
  rehearsal_inputs.write_weights(tmp_path, rehearsal_inputs.shapes_of(config.model))
  names = {
    'e4e': 'e4e_ffhq_encode.pt', 'arcface': 'model_ir_se50.pth', 'lpips_backbone': 'alexnet.pth',
    'lpips_linear': 'lpips_alex.pth',
  }  # fmt: skip
  paths = {field: str(tmp_path / name) for field, name in names.items()}
  kinds = {k: public_formats.recognise(torch_file.load(p), p) for k, p in paths.items()}
  assert list(kinds.values()) == ['e4e', 'arcface', 'alexnet', 'lpips']
  nets = networks.build(config.model)
  assert set(load.load_losses(nets, paths, 0)) == {'lpips', 'arcface'}
  assert set(load.load_generator(nets, paths, 0)) == {'params', 'noise_const', 'w_avg'}
  _, trees, _ = load.parts(paths['e4e'], 'encoder', expected='e4e')
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(trees))
  state = torch_file.load(paths['e4e'])['state_dict']
  assert (state['encoder.input_layer.1.weight'] == 1).all()  # of normalisation
  assert (state['encoder.input_layer.2.weight'] == 0.25).all()  # of PReLU
  assert (state['decoder.conv1.conv.modulation.bias'] == 1).all()
  assert state['decoder.convs.0.conv.blur.kernel'].sum() == 4
  assert state['decoder.style.1.weight'].std() > 50


def test_finished_commands_are_skipped_until_one_differs():
  todo = rehearsal.steps(small=True)
  done = [{'command': step.command, 'added': step.added} for step in todo[:5]]
  assert rehearsal.finished(todo, done) == done
  assert rehearsal.finished(todo, []) == []
  done[2]['added'] = '--size=128'
  assert rehearsal.finished(todo, done) == done[:2]


@pytest.mark.slow
def test_a_small_rehearsal_runs_to_its_end(tmp_path, shared):
  """All commands, in processes of their own: minutes."""
  detector = shared('models/yunet_n_dynamic.onnx')
  options = argparse.Namespace(
    work=tmp_path / 'work', output=tmp_path / 'out.json', face_detector=detector, small=True
  )
  rehearsal.rehearse(options)
  result = json.loads(options.output.read_text())
  assert len(result['losses']['pretrain']) == rehearsal.STEPS
  assert all(math.isfinite(x) for losses in result['losses'].values() for x in losses)
  assert all(x['peak_gib'] < 4 for x in result['commands'])
  seconds = {x['name']: x['seconds'] for x in result['commands']}
  rehearsal.rehearse(options)  # nothing is left to do
  assert json.loads(options.output.read_text())['commands'] == result['commands']
  outcomes.write(seconds=seconds, peak_gib=result['peak_gib'], losses=result['losses'])
