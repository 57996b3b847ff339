"""Outputs that cannot be written are refused before any work; batches are as long as the clip."""

import dataclasses

import jax
import numpy as np
import pytest
from reenacting import run
from small import write_clip

from hybrid_jax import advise, edit_sheet, extract_motion
from hybrid_jax.errors import InputError
from hybrid_jax.media import video
from hybrid_jax.reenactment import motion, motion_file, render
from hybrid_jax.reenactment.options import Options


def name_of(length, suffix):
  return 'n' * (length - len(suffix)) + suffix


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'output': 'folder.mp4'}, 'folder.mp4: is a folder; give the name of a file'),
    ({'output': 'folder'}, 'folder: exists, and is not a folder of pictures'),
    ({'output': 'beside.mp4'}, 'beside.mp4.json: is a folder'),
    ({'output': name_of(245, '.mp4')}, 'its name is too long; shorten it by'),
    ({'output': name_of(245, '')}, 'its name is too long; shorten it by'),
    ({'output': '名' * 80 + '.mp4'}, 'its name is too long; shorten it by'),
    ({'output': name_of(236, '.mp4'), 'quality': True}, 'quality.csv: its name is too long'),
    ({'output': 'no/a.mp4'}, 'no does not exist; make it first'),
    ({'save_crops': 'crops.txt'}, "crops.txt: no picture is written as '.txt'; give .png"),
    ({'save_crops': 'crops'}, "crops: no picture is written as ''; give .png"),
    ({'save_crops': 'folder'}, 'folder: is a folder'),
    ({'save_crops': 'no/crops.png'}, 'no does not exist; make it first'),
    ({'save_crops': 'a.mp4.quality.png', 'quality': True}, 'is a file of --output too'),
    ({'crf': 99}, '--crf=99: h264 takes 0 to 51'),
    ({'crf': 64, 'codec': 'vp9'}, '--crf=64: vp9 takes 0 to 63'),
  ],
)
def test_outputs_are_refused_before_any_work(
  model, inputs, tmp_path, monkeypatch, options, message
):
  for name in ('folder.mp4', 'folder/of', 'beside.mp4.json'):
    (tmp_path / name).mkdir(parents=True)
  before = sorted(tmp_path.rglob('*'))
  monkeypatch.setattr('hybrid_jax.reenactment.run.hash_files', None)  # the first work
  given = {'output': 'a.mp4', **options}
  paths = {k: str(tmp_path / v) for k, v in given.items() if k in ('output', 'save_crops')}
  with pytest.raises(InputError, match=message):
    run(model, inputs, **{**given, **paths})
  assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize('name', ['', '/a.txt', '/a', '/no/a.png'])
def test_pictures_of_other_commands_are_refused_before_any_work(inputs, tmp_path, name):
  with pytest.raises(InputError, match=str(tmp_path)):
    arguments = [inputs[0], f'--output={tmp_path}/b.png', f'--best={tmp_path}{name}']
    advise.advise(None, advise.parse_args(arguments))
  with pytest.raises(InputError, match=str(tmp_path)):
    arguments = [f'--source={inputs[0]}', f'--output={tmp_path}{name}']
    edit_sheet.edit_sheet(None, edit_sheet.parse_args(arguments))
  with pytest.raises(InputError, match='too long'):
    arguments = [f'--driving={inputs[1]}', f'--output={tmp_path}/{name_of(250, ".safetensors")}']
    extract_motion.extract_motion(None, extract_motion.parse_args(arguments))


def test_memory_that_runs_out_is_one_line_and_keeps_the_parts(model, inputs, tmp_path, monkeypatch):
  def exhausted(*args):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

  monkeypatch.setattr(render.Scene, 'images', exhausted)
  for batch, message in ((4, 'lower --batch-size .now 4.'), (1, 'take a device with more')):
    with pytest.raises(InputError, match=f'out of memory: {message}'):
      run(model, inputs, tmp_path / 'a.mp4', batch_size=batch)
  assert (tmp_path / '.a.mp4.parts' / 'motion.safetensors').is_file()
  with pytest.raises(InputError, match='out of memory: lower --batch-size .now 8.'):
    model.reenact(inputs[0], inputs[1], progress=False)


def test_a_batch_is_not_padded_beyond_the_clip(model, inputs, tmp_path, monkeypatch):
  write_clip(tmp_path / 'short.mp4', 2, frames=3)
  sizes, fast = [], model.fast
  count = lambda step: lambda *args: (sizes.append(len(args[-2])), step(*args))[1]  # noqa: E731

  class Counting:
    identity = staticmethod(fast.identity)
    deformation = staticmethod(lambda E, x: (sizes.append(len(x)), fast.deformation(E, x))[1])
    synthesis = staticmethod(count(fast.synthesis))

  monkeypatch.setitem(vars(model), 'fast', Counting)
  for options in ({}, {'motion': 'relative'}):
    run(model, inputs, tmp_path / 'a.mp4', driving=str(tmp_path / 'short.mp4'), **options)
  assert set(sizes) == {3}


def test_the_reference_is_a_frame_of_the_clip_also_with_frames_skipped(model, inputs, tmp_path):
  motion_file.write(
    tmp_path / 'm.safetensors', [np.full(2, k, np.float32) for k in range(3)],
    np.array([0, 2, 3]), time_base=video.probe(inputs[1]).time_base, widths=(2,), starts=(0,),
    model='m', driving='d',
  )  # fmt: skip
  missing = np.array([False, True, False, False])
  rows = motion_file.read(tmp_path / 'm.safetensors')
  driven = motion.DrivingMotion(rows, np.flatnonzero(~missing), missing)
  options = Options('a.png', 'b.mp4', 'c.mp4', motion='relative', on_missing='skip', reference=2)

  class Still:
    deformations = staticmethod(lambda crops, batch: iter([np.zeros(2, np.float32)]))

  _, k = motion.adapt(Still, options, driven, None)
  assert k == 1
  for frame, message in ((1, 'no face in this frame'), (4, 'has frames 0 to 3'), (-1, '0 to 3')):
    with pytest.raises(InputError, match=message):
      motion.adapt(Still, dataclasses.replace(options, reference=frame), driven, None)


def test_the_suffix_of_a_motion_file_may_be_capital():
  assert motion_file.is_motion('A.SAFETENSORS') and not motion_file.is_motion('a.mp4')
