"""The re-enactment tool on a small random model: options, motion files, kills, real clips."""

import contextlib
import csv
import dataclasses
import itertools
import json
import pathlib
from fractions import Fraction

import av
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from small import SIZE, small_config, write_clip

from configs import common
from hybrid_jax import extract_motion, inference, motion_file, networks, pipeline, reenact
from hybrid_jax.errors import InputError
from hybrid_jax.heads.__main__ import write_sound
from hybrid_jax.media import align, segments, stills, video
from hybrid_jax.media.composite import Paste, even, fit
from hybrid_jax.media.faces import FaceDetector
from hybrid_jax.reenact import Options
from hybrid_jax.weights import shipped as shipped_weights

SHIPPED = shipped_weights.FOLDER


@pytest.fixture(scope='module')
def model():
  """Random, with deformation heads that answer to the frame; nothing is compiled for it."""
  config = ConfigDict(small_config())
  nets = networks.build(config.model)
  rng = np.random.default_rng(0)

  def fill(path, x, spread):
    noise = spread * rng.standard_normal(x.shape).astype(np.float32)
    return 1 + noise if path[-1].key in ('var', 'scale') else noise

  E = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  E = jax.tree_util.tree_map_with_path(lambda path, x: fill(path, x, 0.1), E)
  G = jax.eval_shape(lambda key: networks.random_frozen(nets, key), jax.random.key(0))['generator']
  G = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), G)
  return inference.Model(config, nets, E, G, nets.hybrid.encoder.num_ws, 'small')


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  """(portrait, driving clip, its times)"""
  folder = tmp_path_factory.mktemp('inputs')
  times = write_clip(folder / 'driver.mp4', 5, frames=23)
  write_clip(folder / 'person.mp4', 1, frames=2)
  rgb = next(video.read_frames(folder / 'person.mp4')).rgb
  stills.write_image(folder / 'portrait.png', rgb)
  return str(folder / 'portrait.png'), str(folder / 'driver.mp4'), times


def frames_of(path):
  return list(video.read_frames(path))


def pixels(path):
  return np.stack([frame.rgb for frame in frames_of(path)])


def packets(path, kind):
  with av.open(str(path)) as container:
    found = [p for p in container.demux(**{kind: 0}) if p.pts is not None]
    return sorted((p.pts * p.time_base, bytes(p)) for p in found)


def run(model, inputs, output, **options):
  source, driving, _ = inputs
  given = {'source': source, 'driving': driving, 'output': str(output), 'batch_size': 4, **options}
  return reenact.reenact(model, Options(**given))


def test_ffv1_is_what_the_model_makes(model, inputs, tmp_path):
  source, driving, times = inputs
  assert run(model, inputs, tmp_path / 'a.mkv', codec='ffv1') == len(times)
  W_S = model.identity(stills.read_image(source))
  heads = (frame.rgb for frame in video.read_frames(driving))
  expected = np.stack(list(model.images(W_S, model.deformations(heads, 4), 4)))
  made = pixels(tmp_path / 'a.mkv')
  np.testing.assert_array_equal(made, expected)
  assert np.abs(made[0].astype(int) - made[-1]).max() > 3  # the motion is seen
  assert [path.name for path in tmp_path.iterdir()] == ['a.mkv']  # nothing is left behind


@pytest.mark.parametrize('suffix', ['mp4', 'mov', 'mkv'])
def test_times_are_the_drivers(model, inputs, tmp_path, suffix, monkeypatch):
  monkeypatch.setattr(pipeline, 'SEGMENT', 8)  # three joins
  run(model, inputs, tmp_path / f'a.{suffix}')
  made = [frame.time for frame in frames_of(tmp_path / f'a.{suffix}')]
  if suffix == 'mkv':
    assert max(abs(a - b) for a, b in zip(made, inputs[2], strict=True)) <= Fraction(1, 2000)
  else:
    assert made == inputs[2]


def test_pictures_have_their_times_beside_them(model, inputs, tmp_path, monkeypatch):
  monkeypatch.setattr(pipeline, 'SEGMENT', 8)
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1')
  run(model, inputs, tmp_path / 'pictures')
  table = list(csv.DictReader((tmp_path / 'pictures' / 'timestamps.csv').open()))
  assert [Fraction(row['exact']) for row in table] == inputs[2]
  made = [stills.read_image(tmp_path / 'pictures' / row['file']) for row in table]
  np.testing.assert_array_equal(made, pixels(tmp_path / 'a.mkv'))
  with pytest.raises(InputError, match='exists'):
    run(model, inputs, tmp_path / 'pictures')


def test_a_new_rate_shows_what_the_driver_shows_then(model, inputs, tmp_path):
  rate = Fraction(30000, 1001)
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1')
  run(model, inputs, tmp_path / 'b.mp4', codec='ffv1', fps=rate)
  whole, made = frames_of(tmp_path / 'a.mkv'), frames_of(tmp_path / 'b.mp4')
  times = inputs[2]
  assert [frame.time for frame in made] == [k / rate for k in range(len(made))]
  end = 2 * times[-1] - times[-2]
  assert made[-1].time < end <= made[-1].time + 1 / rate
  for frame in made:
    shown = max(k for k, time in enumerate(times) if time <= frame.time)
    np.testing.assert_array_equal(frame.rgb, whole[shown].rgb)


class Killed(Exception):
  pass


def kill_and_resume(model, inputs, tmp_path, after, monkeypatch):
  """Renders once in one go, and once killed after so many frames; returns both."""
  monkeypatch.setattr(pipeline, 'SEGMENT', 8)
  run(model, inputs, tmp_path / 'whole.mp4', layout='grid')
  real = video.VideoWriter.write
  written = itertools.count()

  def write(self, rgb, time):
    if next(written) == after:
      raise Killed
    real(self, rgb, time)

  with monkeypatch.context() as patch:
    patch.setattr(video.VideoWriter, 'write', write)
    with pytest.raises(Killed):
      run(model, inputs, tmp_path / 'killed.mp4', layout='grid')
  assert not (tmp_path / 'killed.mp4').exists()
  run(model, inputs, tmp_path / 'killed.mp4', layout='grid')
  return frames_of(tmp_path / 'whole.mp4'), frames_of(tmp_path / 'killed.mp4')


def assert_equal(a, b):
  assert [frame.time for frame in a] == [frame.time for frame in b]
  for one, other in zip(a, b, strict=True):
    np.testing.assert_array_equal(one.rgb, other.rgb)


def test_a_killed_render_goes_on(model, inputs, tmp_path, monkeypatch, capsys):
  assert_equal(*kill_and_resume(model, inputs, tmp_path, 19, monkeypatch))
  assert '16 of them were rendered by an earlier run' in capsys.readouterr().out


def test_a_render_killed_while_it_was_joined_goes_on(model, inputs, tmp_path, monkeypatch):
  run(model, inputs, tmp_path / 'whole.mp4', layout='grid')

  def killed(*_):
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(segments.VideoTarget, 'finish', killed)
    with pytest.raises(Killed):
      run(model, inputs, tmp_path / 'killed.mp4', layout='grid')
  assert run(model, inputs, tmp_path / 'killed.mp4', layout='grid') == len(inputs[2])
  assert_equal(frames_of(tmp_path / 'whole.mp4'), frames_of(tmp_path / 'killed.mp4'))


def test_parts_of_another_job_are_not_used(model, inputs, tmp_path):
  folder = pipeline.work_folder(str(tmp_path / 'a.mp4'), inputs[:2], 'one job', 'model')
  (folder / '00000.mp4').write_text('a segment')
  assert pipeline.work_folder(str(tmp_path / 'a.mp4'), inputs[:2], 'one job', 'model') == folder
  assert (folder / '00000.mp4').exists()
  pipeline.work_folder(str(tmp_path / 'a.mp4'), inputs[:2], 'another', 'model')
  assert not (folder / '00000.mp4').exists()


def test_a_motion_file_drives_as_the_clip_does(model, inputs, tmp_path):
  path = tmp_path / 'motion.safetensors'
  arguments = ['--driving', inputs[1], '--output', str(path), '--batch-size', '4']
  count = extract_motion.extract_motion(model, extract_motion.parse_args(arguments))
  motion = motion_file.read(path)
  assert count == len(motion) == len(inputs[2])
  assert [motion.time(k) for k in range(count)] == inputs[2]
  assert motion.driving == pipeline.sha256(inputs[1]) and motion.model == model.digest()
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1')
  run(model, inputs, tmp_path / 'b.mkv', codec='ffv1', driving=str(path))
  np.testing.assert_array_equal(pixels(tmp_path / 'a.mkv'), pixels(tmp_path / 'b.mkv'))

  with pytest.raises(InputError, match='shows the driving video'):
    run(model, inputs, tmp_path / 'c.mkv', driving=str(path), layout='grid')
  other = dataclasses.replace(model, E=jax.tree.map(lambda x: x + 1, model.E))
  with pytest.raises(InputError, match='another model'):
    run(other, inputs, tmp_path / 'c.mkv', driving=str(path))
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(InputError, match='damaged'):
    run(model, inputs, tmp_path / 'c.mkv', driving=str(path))


def test_relative_motion_begins_at_the_sources_own(model, inputs, tmp_path):
  source, driving, _ = inputs
  options = {'codec': 'ffv1', 'motion': 'relative'}
  run(model, inputs, tmp_path / 'a.mkv', reference=7, **options)
  run(model, inputs, tmp_path / 'still.mkv', gain=0.0, **options)
  head = stills.read_image(source)
  W_S, own = model.identity(head), next(model.deformations([head], 4))
  F = list(model.deformations((frame.rgb for frame in video.read_frames(driving)), 4))
  expected = list(model.images(W_S, [own + (row - F[7]) for row in F], 4))
  np.testing.assert_array_equal(pixels(tmp_path / 'a.mkv'), expected)
  alone = next(model.images(W_S, [own], 4))
  assert (pixels(tmp_path / 'still.mkv') == alone).all()
  with pytest.raises(InputError, match='frames 0 to 22'):
    run(model, inputs, tmp_path / 'c.mkv', motion='relative', reference=23)


def test_relative_motion_begins_at_the_most_neutral_frame(model, inputs, tmp_path, capsys):
  heads = (frame.rgb for frame in video.read_frames(inputs[1]))
  calmest = int(np.argmin(np.linalg.norm(list(model.deformations(heads, 4)), axis=1)))
  options = {'codec': 'ffv1', 'motion': 'relative', 'gain': 1.5}
  run(model, inputs, tmp_path / 'a.mkv', **options)
  assert f'relative to frame {calmest} at' in capsys.readouterr().out
  run(model, inputs, tmp_path / 'b.mkv', reference=calmest, **options)
  np.testing.assert_array_equal(pixels(tmp_path / 'a.mkv'), pixels(tmp_path / 'b.mkv'))


def test_smoothed_motion_and_its_jitter(model, inputs, tmp_path, capsys):
  source, driving, times = inputs
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1', smooth_motion=0.2)
  F = np.stack(list(model.deformations((f.rgb for f in video.read_frames(driving)), 4)))
  rows = list(align.smoothed(F, np.array([float(t) for t in times]), 0.2))
  W_S = model.identity(stills.read_image(source))
  made = np.stack(list(model.images(W_S, [row.astype(np.float32) for row in rows], 4)))
  assert np.abs(pixels(tmp_path / 'a.mkv').astype(int) - made).max() <= 1
  jitter = lambda x: (np.square(np.diff(x, 2, 0)).sum() / np.square(np.diff(x, 1, 0)).sum()) ** 0.5  # noqa: E731
  told = (
    f'jitter of the motion: {jitter(np.stack(rows)):.2f}, {jitter(F):.2f} before it was smoothed'
  )
  assert told in capsys.readouterr().out
  assert jitter(np.stack(rows)) < 0.8 * jitter(F)


def test_jitter_of_known_motion():
  noise = np.random.default_rng(0).standard_normal((4000, 3))
  for rows, expected in (
    (np.arange(12.0)[:, None], 0),
    (noise.cumsum(0), 2**0.5),
    (noise, 3**0.5),
    (np.ones((5, 2)), 0),
  ):
    measured = motion_file.Jitter()
    assert len(list(measured(rows))) == len(rows)
    assert measured.value == pytest.approx(expected, abs=0.03)


def test_the_seam_in_the_summary(model, inputs, tmp_path, capsys):
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1')
  run(model, inputs, tmp_path / 'b.mkv', codec='ffv1', layout='pasted')
  rgb = stills.read_image(inputs[0])
  paste = Paste(align.upright((0, 0, SIZE, SIZE)), (SIZE, SIZE))
  seams = [paste(rgb, head)[1] for head in pixels(tmp_path / 'a.mkv')]
  told = f'seam: {np.mean(seams):.1f} grey levels across the border on average, {max(seams):.1f} at'
  assert told in capsys.readouterr().out


def test_a_sheet_of_what_the_model_sees(model, inputs, tmp_path):
  run(model, inputs, tmp_path / 'a.mp4', save_crops=str(tmp_path / 'seen.png'))
  sheet, driver = stills.read_image(tmp_path / 'seen.png'), pixels(inputs[1])
  assert sheet.shape == (5 * SIZE, 6 * SIZE, 3)  # the source; 23 frames by six
  np.testing.assert_array_equal(sheet[:SIZE, :SIZE], stills.read_image(inputs[0]))
  for k in range(23):
    row, column = (1 + k // 6) * SIZE, k % 6 * SIZE
    np.testing.assert_array_equal(sheet[row : row + SIZE, column : column + SIZE], driver[k])


def test_sound_is_copied_or_left_out(model, inputs, tmp_path):
  write_sound(tmp_path / 'hum.m4a', np.arange(16_000, dtype=np.int16))
  frames, times = frames_of(inputs[1]), inputs[2]
  with video.VideoWriter(
    tmp_path / 'spoken.mp4', SIZE, SIZE, time_base=Fraction(1, 600), audio_from=tmp_path / 'hum.m4a'
  ) as writer:
    for frame, time in zip(frames, times, strict=True):
      writer.write(frame.rgb, time)
  driving = str(tmp_path / 'spoken.mp4')
  run(model, inputs, tmp_path / 'a.mp4', driving=driving)
  assert packets(tmp_path / 'a.mp4', 'audio') == packets(driving, 'audio')
  run(model, inputs, tmp_path / 'b.mp4', driving=driving, audio=False)
  assert video.probe(tmp_path / 'b.mp4').audio is None


def test_every_option_of_the_command_reaches_the_job(capsys):
  """Each field of `Options` can be given, and none is left over."""
  arguments = ['--source=a.png', '--driving=b.mp4', '--output=c.mp4']
  assert reenact.parse_args(arguments) == Options('a.png', 'b.mp4', 'c.mp4')
  given = reenact.parse_args(
    [*arguments, '--layout=grid', '--fps=30000/1001', '--no-audio', '--on-missing=skip', '--crf=23']
    + [
      '--face=like=me.png',
      '--source-face=left',
      '--motion=relative',
      '--gain=1.2',
      '--codec=ffv1',
    ]
  )
  assert given.fps == Fraction(30000, 1001) and given.audio is False and given.gain == 1.2
  assert (given.face, given.source_face) == ('like=me.png', 'left')
  for bad in ('--fps=0', '--fps=ten', '--layout=both', '--smooth=-1', '--on-missing=stop'):
    with pytest.raises(SystemExit):
      reenact.parse_args([*arguments, bad])
    assert bad.split('=')[1] in capsys.readouterr().err


def test_the_shipped_model(monkeypatch, tmp_path):
  """The line where there is none yet, and that it is taken once its two files are there."""
  monkeypatch.setattr(shipped_weights, 'FOLDER', tmp_path)
  with pytest.raises(InputError, match='no encoder comes .* give --workdir'):
    inference.load_model('')
  config = common.heads()
  nets = networks.build(ConfigDict(config).model)
  E = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  E = jax.tree.map(lambda x: np.ones(x.shape, np.float32), E)
  shipped_weights.save(tmp_path / 'encoder_64.npz', E)
  (tmp_path / 'encoder_64.json').write_text(json.dumps(config))
  (tmp_path / 'generator_64.npz').symlink_to(SHIPPED / 'generator_64.npz')
  model = inference.load_model('')
  assert (model.size, model.resolution) == (64, 64) and 'shipped' in model.name
  jax.tree.map(np.testing.assert_array_equal, model.E, E)


def test_layouts(model, inputs, tmp_path):
  sources = {}
  for layout in pipeline.LAYOUTS:
    run(model, inputs, tmp_path / 'a.mkv', codec='ffv1', layout=layout)
    sources[layout] = pixels(tmp_path / 'a.mkv')
  result, pasted, beside, grid = (sources[layout] for layout in pipeline.LAYOUTS)
  driver, portrait = pixels(inputs[1]), stills.read_image(inputs[0])
  np.testing.assert_array_equal(beside, np.concatenate((driver, result), 2))
  rows = (portrait + 0 * driver, driver), (result, pasted)
  np.testing.assert_array_equal(grid, np.concatenate([np.concatenate(row, 2) for row in rows], 1))
  middle = slice(SIZE // 4, -SIZE // 4)
  np.testing.assert_array_equal(pasted[:, middle, middle], result[:, middle, middle])
  assert (
    np.abs(pasted[:, 0].astype(int) - portrait[0]).max()
    < np.abs(result[:, 0].astype(int) - portrait[0]).max()
  )


def test_a_moving_source_keeps_moving(model, inputs, tmp_path):
  """Beside the head, which is all of the picture only within the mask's reach."""
  wide = tmp_path / 'wide.mp4'
  write_clip(wide, 2, frames=5, shape=(SIZE, 2 * SIZE))
  points = np.full((5, 5, 2), np.nan)
  points[:] = [(10, 12), (18, 12), (14, 16), (11, 20), (17, 20)]
  np.savez(tmp_path / 'wide.npz', landmarks=points)
  run(
    model,
    inputs,
    tmp_path / 'a.mkv',
    source=str(wide),
    source_landmarks=str(tmp_path / 'wide.npz'),
    layout='pasted',
    codec='ffv1',
  )
  made, source = frames_of(tmp_path / 'a.mkv'), frames_of(wide)
  assert len(made) == len(inputs[2])
  for frame in made:
    back = [s for s in source if s.time <= frame.time + Fraction(1, 1000)][-1]
    np.testing.assert_array_equal(frame.rgb[:, SIZE:], back.rgb[:, SIZE:])
    assert (frame.rgb[12:20, 10:18] != back.rgb[12:20, 10:18]).any()


def missing_clip(tmp_path, inputs):
  """Landmarks of the driver's blob, but for frames 0, 5, 6 and 7."""
  points = np.array([(10, 12), (22, 12), (16, 16), (11, 22), (21, 22)], float)
  points = np.stack([points + 0.2 * k for k in range(len(inputs[2]))])
  points[[0, 5, 6, 7]] = np.nan
  np.savez(tmp_path / 'points.npz', landmarks=points)
  return {'driving_landmarks': str(tmp_path / 'points.npz'), 'codec': 'ffv1', 'crop': 'ffhq'}


def test_frames_without_a_face(model, inputs, tmp_path, capsys):
  options = missing_clip(tmp_path, inputs)
  made = {}
  for how in ('hold', 'interpolate', 'skip'):
    run(model, inputs, tmp_path / 'a.mp4', on_missing=how, **options)
    made[how] = frames_of(tmp_path / 'a.mp4')
    assert f'no face in 4 of 23 frames (0, 5-7): {how}' in capsys.readouterr().out
  times = [frame.time for frame in made['hold']]
  assert times == [frame.time for frame in made['interpolate']] == inputs[2]
  kept = [k for k in range(23) if k not in (0, 5, 6, 7)]
  assert [frame.time for frame in made['skip']] == [inputs[2][k] for k in kept]
  held, between = (np.stack([f.rgb for f in made[how]]) for how in ('hold', 'interpolate'))
  np.testing.assert_array_equal(held[kept], np.stack([f.rgb for f in made['skip']]))
  np.testing.assert_array_equal(held[kept], between[kept])
  for frames in (held, between):
    np.testing.assert_array_equal(frames[0], frames[1])
  assert (held[5:8] == held[4]).all() and (between[6] != held[4]).any()
  with pytest.raises(InputError, match='no face in frame 0 .0.00 s. and 3 more'):
    run(model, inputs, tmp_path / 'b.mp4', on_missing='fail', **options)
  assert not (tmp_path / 'b.mp4').exists()


def test_a_batch_that_half_precision_cannot_hold_is_done_again(model, inputs):
  """Latents whose styles are beyond float16: not finite there, finite in float32."""
  config = model.config.copy_and_resolve_references()
  config.model.update(half_dtype='float16', half_from=8)
  half = dataclasses.replace(model, config=config, networks=networks.build(config.model))
  head = stills.read_image(inputs[0])
  W_S = model.identity(head)
  large = [np.full(sum(model.widths), 3e7, np.float32)] * 4
  _, finite = half.fast.synthesis(half.G, W_S, np.stack(large))
  assert not finite
  np.testing.assert_array_equal(
    np.stack(list(half.images(W_S, large, 4))), np.stack(list(model.images(W_S, large, 4)))
  )


def test_work_ahead_is_in_order_and_tells_of_errors():
  assert list(inference.ahead(range(100), 3)) == list(range(100))

  def broken():
    yield 1
    raise KeyError('midway')

  items = inference.ahead(broken(), 3)
  assert next(items) == 1
  with pytest.raises(KeyError, match='midway'):
    next(items)
  with contextlib.closing(inference.ahead(itertools.count(), 3)) as items:
    assert next(items) == 0  # and the thread ends, or closing would wait for ever


@pytest.mark.parametrize(
  'options, message',
  [
    ({'source': 'gone.png'}, 'gone.png: no such file'),
    ({'driving': 'gone.mp4'}, 'gone.mp4: no such file'),
    ({'output': 'gone/a.mp4'}, 'the folder .* does not exist'),
    ({'output': 'a.gif'}, 'a.gif: h264 goes into'),
    ({'output': 'a.mov', 'codec': 'ffv1'}, 'ffv1 goes into'),
    ({'crop': 'ffhq'}, 'needs --face-detector'),
    ({'face_detector': 'gone.onnx'}, 'gone.onnx: no such face detector'),
    ({'face_detector': 'gone.task'}, 'gone.task: no such file'),
    ({'face': 'like=me.png'}, 'like=me.png: needs --face-detector'),
    ({'face': 'tallest'}, '--face=tallest: give largest'),
  ],
)
def test_what_is_refused(model, inputs, tmp_path, monkeypatch, options, message):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=message) as caught:
    run(model, inputs, **{'output': 'a.mp4', **options})
  assert '\n' not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_an_input_is_not_overwritten(model, inputs, tmp_path):
  path = tmp_path / 'clip.mp4'
  path.write_bytes(pathlib.Path(inputs[1]).read_bytes())
  with pytest.raises(InputError, match='is an input'):
    run(model, inputs, path, driving=str(path))
  assert path.read_bytes() == pathlib.Path(inputs[1]).read_bytes()


# --- Real clips ----------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['drive_01_conan_obrien.mp4', 'drive_02_vfr_man_suit.mp4'])
def test_times_and_sound_of_real_clips_come_through(model, inputs, shared, tmp_path, name):
  """29.97 frames a second, and a variable rate; the face is found once, to save time."""
  driving = shared(f'faces/driving/{name}')
  times = [time for time, _ in packets(driving, 'video')]
  detector = FaceDetector(shared('models/yunet_n_dynamic.onnx'))
  face = detector.detect(next(video.read_frames(driving)).rgb)[0]
  np.savez(tmp_path / 'face.npz', landmarks=np.tile(face.landmarks, (len(times), 1, 1)))
  options = {'driving': str(driving), 'driving_landmarks': str(tmp_path / 'face.npz')}
  run(model, inputs, tmp_path / 'a.mp4', **options)
  assert [time for time, _ in packets(tmp_path / 'a.mp4', 'video')] == times
  assert packets(tmp_path / 'a.mp4', 'audio') == packets(driving, 'audio')


def test_a_detector_finds_both_faces(model, inputs, shared, tmp_path, capsys):
  """Photographs with a detector, a moving background, ten frames without a face."""
  detector = str(shared('models/yunet_n_dynamic.onnx'))
  clip = str(shared('faces/hostile/black_start.mp4'))
  portrait = str(shared('faces/portraits/src_05_neutral_woman.jpeg'))
  options = {'driving': clip, 'source': portrait, 'face_detector': detector, 'layout': 'pasted'}
  assert run(model, inputs, tmp_path / 'a.mp4', **options) == 40
  said = capsys.readouterr().out
  assert said.count('crop ffhq') == 2 and said.count('no face in 10 of 40 frames (0-9): hold') == 2
  assert pixels(tmp_path / 'a.mp4')[0].shape[:2] == even(stills.read_image(portrait)).shape[:2]


def test_the_face_that_looks_like_a_picture(shared, tmp_path):
  """The shipped embedder chooses between two people side by side, whoever is left."""
  paths = [
    shared(f'faces/portraits/{n}') for n in ('src_03_tom_cruise.jpg', 'src_05_neutral_woman.jpeg')
  ]
  detector = str(shared('models/yunet_n_dynamic.onnx'))
  heads = [fit(stills.read_image(path), (256, 256)) for path in paths]
  config = ConfigDict(common.heads())
  shipped = inference.Model(config, networks.build(config.model), {}, {}, 0, 'shipped')
  for order in ((0, 1), (1, 0)):
    stills.write_image(tmp_path / 'both.png', np.hstack([heads[k] for k in order]))
    for k, path in enumerate(paths):
      how = pipeline.Cropping(detector, face=f'like={path}')
      found = pipeline.open_picture(str(tmp_path / 'both.png'), how, shipped)
      assert (found.squares[0, 0] < 256) == (order[0] == k)


def test_a_clip_that_breaks_off_is_rendered_that_far(model, inputs, shared, tmp_path, capsys):
  driving = str(shared('faces/hostile/truncated_mid.mp4'))
  assert run(model, inputs, tmp_path / 'a.mp4', driving=driving) == 30
  assert 'breaks off after 30 frames' in capsys.readouterr().out.splitlines()[-2]
  assert len(frames_of(tmp_path / 'a.mp4')) == 30
