"""The whole path on small real video files: train, resume, re-enact; devices; bad input."""

import csv
import functools
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import outcomes
import pytest
from parity import SHARED
from small import SIZE, random_batch, small_config, start, write_clip

from configs import common, pretrain
from hybrid_jax.errors import InputError
from hybrid_jax.media import stills, video
from hybrid_jax.method import networks
from hybrid_jax.reenactment.model import load_model
from hybrid_jax.reenactment.options import Options
from hybrid_jax.reenactment.run import reenact
from hybrid_jax.training import checkpoint, loop, parallel, steps, triplets
from hybrid_jax.training.logs import check_finite
from hybrid_jax.weights import load, shipped


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  for seed in range(3):
    write_clip(folder / f'person{seed}.mp4', seed)
  return folder


def config_for(videos, **train_fields):
  config = small_config(**train_fields)
  config.data.videos = str(videos)
  return config


def rows(workdir):
  return list(csv.DictReader((workdir / 'metrics.csv').open()))


@pytest.fixture(scope='module')
def trained(videos, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  loop.train(config_for(videos), str(workdir))
  return workdir


def test_training_writes_what_it_says(trained):
  table = rows(trained)
  assert [int(row['step']) for row in table] == [1, 2, 3, 4]
  assert [int(float(row['pretrain/active_rows'])) for row in table] == [1, 1, 2, 3]
  a, b, c, d = (float(row['pretrain/r1']) for row in table)
  assert a == b != c == d  # computed every second step, and logged at every one
  grid = stills.read_image(trained / 'samples' / '0000004.png')
  assert grid.shape == (4 * SIZE, 6 * SIZE, 3)
  assert sorted(p.name for p in (trained / 'samples').iterdir()) == ['0000002.png', '0000004.png']
  assert checkpoint.manager(str(trained)).all_steps() == [2, 4]


def test_resumed_run_equals_an_uninterrupted_one(trained, videos, tmp_path):
  """From a checkpoint in the middle of a run, with a last line of the log cut off."""
  for name in ('checkpoints', 'config.json', 'metrics.csv'):
    copy = shutil.copytree if name == 'checkpoints' else shutil.copy
    copy(trained / name, tmp_path / name)
  shutil.rmtree(tmp_path / 'checkpoints' / '4')
  with (tmp_path / 'metrics.csv').open('a') as file:
    file.write('5,0.1')
  loop.train(config_for(videos), str(tmp_path))
  ignored = 'pretrain/steps_per_second'
  for a, b in zip(rows(trained), rows(tmp_path), strict=True):
    assert a | {ignored: 0} == b | {ignored: 0}  # every digit, the order of the data included


def test_training_starts_from_a_workdir_or_a_shipped_tree(trained, videos, tmp_path):
  nets = networks.build(config_for(videos).model)
  shapes = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  _, encoder = checkpoint.restore_encoder(str(trained), shapes)
  path = tmp_path / 'encoder.npz'
  shipped.save(path, encoder)
  begin = lambda source: loop.load_start(  # noqa: E731
    nets, config_for(videos, init_from=str(source)), loop.ignore
  )[1]
  jax.tree.map(np.testing.assert_array_equal, begin(trained), encoder)
  float16 = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
  jax.tree.map(float16, begin(path), encoder)

  config = config_for(videos)
  config.model.head_width *= 2
  with pytest.raises(InputError, match=r'encoder\.npz: .* the model of this config has'):
    load.load_encoder(networks.build(config.model), str(path))
  path.write_bytes(b'no tree')
  with pytest.raises(InputError, match='not an .npz file of weights'):
    load.load_encoder(nets, str(path))


def test_reenactment_keeps_the_times_of_the_driver(trained, videos, tmp_path):
  times = write_clip(tmp_path / 'driver.mp4', 5, frames=11)
  first = next(video.read_frames(videos / 'person0.mp4'))
  stills.write_image(tmp_path / 'portrait.png', first.rgb)
  output = tmp_path / 'out.mp4'
  options = Options(
    str(tmp_path / 'portrait.png'), str(tmp_path / 'driver.mp4'), str(output), batch_size=4
  )
  count = reenact(load_model(str(trained)), options).frames
  frames = list(video.read_frames(output))
  assert count == len(frames) == 11
  assert [frame.time for frame in frames] == times
  assert frames[0].rgb.shape == (SIZE, SIZE, 3)


def test_trained_on_four_devices_reenacts_on_one(trained, videos, tmp_path):
  clip = str(videos / 'person0.mp4')
  stills.write_image(tmp_path / 'portrait.png', next(video.read_frames(clip)).rgb)
  flags = os.environ['XLA_FLAGS'].replace('device_count=4', 'device_count=1')
  environment = os.environ | {'XLA_FLAGS': flags}
  code, message = run(
    'hybrid_jax.reenact',
    f'--workdir={trained}',
    f'--source={tmp_path}/portrait.png',
    f'--driving={clip}',
    f'--output={tmp_path}/out.mp4',
    env=environment,
  )
  assert code == 0, message
  assert len(list(video.read_frames(tmp_path / 'out.mp4'))) == 6


def test_batches_do_not_change_the_images_and_nan_is_reported(trained, videos):
  model = load_model(str(trained))
  assert model.rows == 4  # of the step that comes next
  frames = [frame.rgb for frame in video.read_frames(videos / 'person1.mp4')]
  W_S = model.identity(frames[0])
  one, four = (
    np.stack(list(model.images(W_S, model.deformations(frames, n), n))).astype(int) for n in (1, 4)
  )
  assert len(one) == len(frames)
  assert np.abs(one - four).max() <= 1

  with pytest.raises(FloatingPointError, match='frames 0 to 3'):
    list(model.images(W_S * np.nan, model.deformations(frames, 4), 4))


def weighed(compiled, frozen, batch, devices):
  """Bytes of state and FLOPs of a device."""
  # The arguments are the state, the frozen networks, which every device holds, and the batch.
  arguments = compiled.memory_analysis().argument_size_in_bytes
  others = parallel.bytes_per_device(frozen) + sum(x.nbytes for x in batch.values()) // devices
  return arguments - others, compiled.cost_analysis()['flops']


@pytest.mark.parametrize('devices', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_fewer_devices_give_the_losses_of_four_and_each_holds_more(devices):
  assert jax.device_count() >= 4
  begin, mesh, traces, batch = start(), parallel.make_mesh(devices), [], random_batch(4)
  inner = steps.make_step(begin.networks, begin.config, mesh)

  def counted(*args):
    traces.append(1)
    return inner(*args)

  # A copy: the step donates its state, and on the first device a moved array is the same memory.
  state, frozen = jax.tree.map(jnp.copy, (begin.state, begin.frozen))
  few = jax.device_put(state, parallel.of(parallel.sharded(state, mesh)))
  frozen, of_mesh = parallel.put_whole(frozen, mesh), parallel.put_batch(batch, mesh)
  step = parallel.jit_step(counted, few, mesh).lower(few, frozen, of_mesh).compile()
  four = begin.state
  for _ in range(4):
    four, of_four = begin.step(four, batch)
    few, of_few = step(few, frozen, of_mesh)
    for name, value in jax.device_get(of_few).items():
      np.testing.assert_allclose(value, of_four[name], rtol=1e-5, atol=1e-7, err_msg=name)
  assert len(traces) == 1  # the progressive schedule and lazy R1 recompile nothing

  held, operations = weighed(step, frozen, batch, devices)
  held_of_four, operations_of_four = weighed(begin.compiled, begin.frozen, batch, 4)
  assert held_of_four < 1.4 * devices / 4 * held
  # Parameters are gathered: each device computes whole layers of its part of the batch.
  assert operations_of_four < 1.1 * devices / 4 * operations
  if devices == 2:
    ratios = [held_of_four / held, operations_of_four / operations]
    outcomes.write(
      devices=devices, state_and_operations_of_a_device_of_four=np.round(ratios, 3).tolist()
    )


@pytest.mark.slow
def test_paper_step_lowers_with_abstract_arrays():
  """1024 px, batch 8, bfloat16, no array made. That it also compiles takes a minute and is shown by
  experiments/cost/accelerator.py --parts=compile_paper.
  """
  config = pretrain.get_config()
  nets = networks.build(config.model)
  key = jax.random.key(0)
  state = jax.eval_shape(lambda key: steps.init_state(nets, config, key), key)
  frozen = jax.eval_shape(lambda key: networks.random_frozen(nets, key), key)
  size = config.model.frame_size
  image = jax.ShapeDtypeStruct((config.data.batch_size, size, size, 3), np.uint8)
  batch = {role: image for role in ('source', 'driving', 'other')}
  mesh = parallel.make_mesh(1)
  lowered = parallel.jit_step(steps.make_step(nets, config, mesh), state, mesh).lower(
    state, frozen, batch
  )
  assert lowered.in_tree
  outcomes.write(
    frame_size=size, resolution=config.model.resolution, triplets=config.data.batch_size,
    encoder_parameters=sum(x.size for x in jax.tree.leaves(state.encoder['params'])),
    megabytes_of_program=round(len(lowered.as_text()) / 1e6, 1),
  )  # fmt: skip


def test_triplets_pair_frames_as_they_must(videos):
  clips, skipped = triplets.read_folder(
    str(videos), size=SIZE, frames_per_clip=4, face_detector='', kind='clip'
  )
  assert not skipped and [len(clip.frames) for clip in clips] == [4, 4, 4]
  owner = {frame.tobytes(): clip.identity for clip in clips for frame in clip.frames}
  batches = iter(triplets.triplets(triplets.MemoryClips(clips), batch_size=5, seed=3))
  seen = set()
  for _ in range(6):
    batch = next(batches)
    for S, D, D_other in zip(batch['source'], batch['driving'], batch['other'], strict=True):
      assert owner[S.tobytes()] == owner[D.tobytes()] != owner[D_other.tobytes()]
      assert S.tobytes() != D.tobytes()
      seen.add(owner[S.tobytes()])
  assert seen == {'person0', 'person1', 'person2'}


def test_flips_mirror_whole_triplets():
  rng = np.random.default_rng(0)
  masks = rng.integers(0, 255, (2, 3, 4, 4, 4), dtype=np.uint8)
  frames = rng.integers(0, 255, (2, 3, 4, 4, 3), dtype=np.uint8)
  clips = triplets.MemoryClips(
    [triplets.Clip(str(k), str(k), frames[k], masks[k]) for k in range(2)]
  )
  plain, flipped = (
    iter(triplets.triplets(clips, batch_size=8, seed=3, masks=True, flip=flip))
    for flip in (False, True)
  )
  mirrored = []
  for _ in range(4):
    before, after = next(plain), next(flipped)
    for k in range(8):
      one = not np.array_equal(before['source'][k], after['source'][k])
      for name in before:
        image = before[name][k]
        np.testing.assert_array_equal(after[name][k], image[:, ::-1] if one else image)
      mirrored.append(one)
  assert 8 < sum(mirrored) < 24


# --- Bad input: one line each --------------------------------------------------------------------


def read(folder):
  return triplets.read_folder(
    str(folder), size=SIZE, frames_per_clip=4, face_detector='', kind='clip'
  )


def test_corrupt_and_unsquare_clips_are_skipped_and_named(videos, tmp_path):
  for path in videos.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / 'broken.mp4').write_bytes(b'no video at all')
  write_clip(tmp_path / 'wide.mp4', 0, shape=(32, 48))
  write_clip(tmp_path / 'still.mp4', 0, frames=1)
  clips, skipped = read(tmp_path)
  assert len(clips) == 3
  assert len(skipped) == 3 and all('\n' not in line for line in skipped)
  for name, line in zip(('broken.mp4', 'still.mp4', 'wide.mp4'), skipped, strict=True):
    assert name in line


def test_folders_that_cannot_be_used(videos, tmp_path):
  with pytest.raises(InputError, match='no folder of videos'):
    read(tmp_path / 'nowhere')
  with pytest.raises(InputError, match='no video in it'):
    read(tmp_path)
  one = tmp_path / 'videos' / 'one_person'
  one.mkdir(parents=True)
  for path in videos.iterdir():
    (one / path.name).write_bytes(path.read_bytes())
  with pytest.raises(InputError, match='one_person.*second person'):
    read(one.parent)


def test_workdir_of_another_model_is_refused(trained, videos):
  config = config_for(videos)
  config.model.w_dim = 32
  with pytest.raises(InputError, match='another model.*w_dim 16 -> 32'):
    loop.train(config, str(trained))


def test_a_term_that_is_not_finite_stops_the_run_by_name():
  with pytest.raises(FloatingPointError, match='step 7: lpips, total not finite'):
    check_finite(7, {'l2': 1.0, 'lpips': float('nan'), 'total': float('inf')})


def run(*command, env=None):
  result = subprocess.run(
    [sys.executable, '-m', *command], capture_output=True, text=True, timeout=300, env=env
  )
  assert 'Traceback' not in result.stderr, result.stderr
  return result.returncode, result.stderr


def test_commands_fail_with_one_message(videos, tmp_path):
  def main(config, *options):
    fields = (f'--workdir={tmp_path}/run', f'--config.data.videos={videos}')
    return run('hybrid_jax.main', f'--config=configs/pretrain.py{config}', *fields, *options)

  code, message = main('')
  assert code == 1 and '4 weight files are missing' in message
  for field in common.paper()['weights']:
    assert message.count(f'config.weights.{field}=') == 1
  code, message = main(':tiny', '--config.train.num_stepz=3')
  assert code and 'num_stepz' in message
  code, message = main(':huge')
  assert code and 'huge' in message
  code, message = run(
    'hybrid_jax.reenact', f'--workdir={tmp_path}', '--source=a.png', '--driving=b.mp4',
    f'--output={tmp_path}/out.mp4',
  )  # fmt: skip
  assert code == 1 and 'nothing was trained there' in message


@pytest.mark.slow
def test_real_clips_train_and_reenact(tmp_path):
  """Two real clips, YuNet crops, a real portrait; nothing of them is kept."""
  if not (SHARED / 'faces').exists():
    pytest.skip('the real clips are not beside this checkout: no shared/faces')
  detector = str(SHARED / 'models' / 'yunet_n_dynamic.onnx')
  names = ('drive_06_head_turn.gif', 'drive_07_man_expressive_11.988fps.mp4')
  for name in names:
    (tmp_path / name).symlink_to(SHARED / 'faces' / 'driving' / name)
  config = config_for(tmp_path, num_steps=2)
  config.data.face_detector = detector
  loop.train(config, str(tmp_path / 'run'))
  output = tmp_path / 'out.mp4'
  driving = tmp_path / names[1]
  portrait = SHARED / 'faces' / 'portraits' / 'src_03_tom_cruise.jpg'
  options = Options(str(portrait), str(driving), str(output), face_detector=detector)
  reenact(load_model(str(tmp_path / 'run')), options)
  times = [frame.time for frame in video.read_frames(driving)]
  assert [frame.time for frame in video.read_frames(output)] == times
  assert video.probe(output).audio == video.probe(driving).audio
  outcomes.write(clips=len(names), frames=len(times))
