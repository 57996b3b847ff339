"""The re-enactment command on a small random model: times, layouts, resuming, refused options."""

import csv
import dataclasses
import itertools
import json
import pathlib
import shutil
from fractions import Fraction

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from reenacting import frames_of, packets, pixels, run
from small import SIZE, write_clip

from configs import common
from hybrid_jax import reenact
from hybrid_jax.errors import InputError
from hybrid_jax.media import align, segments, stills, video
from hybrid_jax.media.composite import Paste
from hybrid_jax.method import networks
from hybrid_jax.reenactment import options as reenact_options
from hybrid_jax.reenactment import render
from hybrid_jax.reenactment.model import load_model
from hybrid_jax.reenactment.options import Options
from hybrid_jax.reenactment.output import work_folder
from hybrid_jax.reenactment.run import hash_files
from hybrid_jax.weights import shipped
from hybrid_jax.world.films import write_sound

SHIPPED = shipped.FOLDER


def test_ffv1_holds_the_frames_of_the_model(model, inputs, tmp_path):
  source, driving, times = inputs
  assert run(model, inputs, tmp_path / 'a.mkv', codec='ffv1') == len(times)
  W_S = model.identity(stills.read_image(source))
  heads = (frame.rgb for frame in video.read_frames(driving))
  expected = np.stack(list(model.images(W_S, model.deformations(heads, 4), 4)))
  made = pixels(tmp_path / 'a.mkv')
  np.testing.assert_array_equal(made, expected)
  assert np.abs(made[0].astype(int) - made[-1]).max() > 3  # the motion is seen
  left = sorted(path.name for path in tmp_path.iterdir())
  assert left == ['a.mkv', 'a.mkv.json']  # no other file remains


@pytest.mark.parametrize('suffix', ['mp4', 'mov', 'mkv', 'webm'])
def test_times_are_the_drivers(model, inputs, tmp_path, suffix, monkeypatch):
  monkeypatch.setattr(render, 'SEGMENT', 8)  # three joins
  run(model, inputs, tmp_path / f'a.{suffix}', codec='vp9' if suffix == 'webm' else 'h264')
  made = [frame.time for frame in frames_of(tmp_path / f'a.{suffix}')]
  if suffix in ('mkv', 'webm'):
    assert max(abs(a - b) for a, b in zip(made, inputs[2], strict=True)) <= Fraction(1, 2000)
  else:
    assert made == inputs[2]


def test_pictures_have_their_times_beside_them(model, inputs, tmp_path, monkeypatch):
  monkeypatch.setattr(render, 'SEGMENT', 8)
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1')
  run(model, inputs, tmp_path / 'pictures')
  table = list(csv.DictReader((tmp_path / 'pictures' / 'timestamps.csv').open()))
  assert [Fraction(row['exact']) for row in table] == inputs[2]
  made = [stills.read_image(tmp_path / 'pictures' / row['file']) for row in table]
  np.testing.assert_array_equal(made, pixels(tmp_path / 'a.mkv'))
  run(model, inputs, tmp_path / 'pictures', batch_size=3)  # as a video replaces a video
  assert len(list((tmp_path / 'pictures').iterdir())) == len(table) + 1
  (tmp_path / 'pictures' / 'timestamps.csv').unlink()
  with pytest.raises(InputError, match='is not a folder of pictures of hybrid_jax'):
    run(model, inputs, tmp_path / 'pictures')
  assert len(list((tmp_path / 'pictures').iterdir())) == len(table)


class Killed(Exception):
  pass


def kill_before_joining(model, inputs, path, monkeypatch, **options):
  """Runs until all segments are rendered."""

  def killed(*_):
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(segments.VideoTarget, 'finish', killed)
    with pytest.raises(Killed):
      run(model, inputs, path, **options)


def test_pictures_killed_after_they_were_moved(model, inputs, tmp_path, monkeypatch):
  """The parts are still there: the next run finishes, and a deleted output is rendered again."""
  finish = segments.PictureTarget.finish

  def killed(*arguments):
    finish(*arguments)
    raise Killed

  output = tmp_path / 'pictures'
  with monkeypatch.context() as patch:
    patch.setattr(segments.PictureTarget, 'finish', killed)
    with pytest.raises(Killed):
      run(model, inputs, output)
  assert (tmp_path / '.pictures.parts').is_dir() and not (tmp_path / 'pictures.json').exists()
  run(model, inputs, output)
  assert len(list(output.glob('*.png'))) == len(inputs[2])
  assert (tmp_path / 'pictures.json').is_file()
  with monkeypatch.context() as patch:
    patch.setattr(segments.PictureTarget, 'finish', killed)
    with pytest.raises(Killed):
      run(model, inputs, output)
  shutil.rmtree(output)
  run(model, inputs, output)
  assert len(list(output.glob('*.png'))) == len(inputs[2])
  assert not (tmp_path / '.pictures.parts').exists()


def kill_and_resume(model, inputs, tmp_path, after, monkeypatch):
  """Renders once without interruption, and once killed after `after` frames; returns both."""
  monkeypatch.setattr(render, 'SEGMENT', 8)
  options = {'layout': 'grid', 'edit': 'sefa:0=0@0s,9@1s'}  # a curve goes on where it was
  run(model, inputs, tmp_path / 'whole.mp4', **options)
  real = video.VideoWriter.write
  written = itertools.count()

  def write(self, rgb, time):
    if next(written) == after:
      raise Killed
    real(self, rgb, time)

  with monkeypatch.context() as patch:
    patch.setattr(video.VideoWriter, 'write', write)
    with pytest.raises(Killed):
      run(model, inputs, tmp_path / 'killed.mp4', **options)
  assert not (tmp_path / 'killed.mp4').exists()
  run(model, inputs, tmp_path / 'killed.mp4', **options)
  return frames_of(tmp_path / 'whole.mp4'), frames_of(tmp_path / 'killed.mp4')


def assert_equal(a, b):
  assert [frame.time for frame in a] == [frame.time for frame in b]
  for one, other in zip(a, b, strict=True):
    np.testing.assert_array_equal(one.rgb, other.rgb)


def test_a_killed_render_resumes(model, inputs, tmp_path, monkeypatch, capsys):
  assert_equal(*kill_and_resume(model, inputs, tmp_path, 19, monkeypatch))
  assert '16 of them were rendered by an earlier run' in capsys.readouterr().out


def test_a_render_killed_while_joining_resumes(model, inputs, tmp_path, monkeypatch):
  run(model, inputs, tmp_path / 'whole.mp4', layout='grid')
  kill_before_joining(model, inputs, tmp_path / 'killed.mp4', monkeypatch, layout='grid')
  assert run(model, inputs, tmp_path / 'killed.mp4', layout='grid') == len(inputs[2])
  assert_equal(frames_of(tmp_path / 'whole.mp4'), frames_of(tmp_path / 'killed.mp4'))


def test_parts_of_another_job_are_not_used(tmp_path):
  hashes, output = {'a.png': '1', 'b.mp4': '2'}, str(tmp_path / 'a.mp4')
  folder = work_folder(output, hashes, 'one job', 'model')
  (folder / '00000.mp4').write_text('a segment')
  assert work_folder(output, hashes, 'one job', 'model') == folder
  assert (folder / '00000.mp4').exists()
  work_folder(output, hashes, 'another', 'model')
  assert not (folder / '00000.mp4').exists()


def test_what_chooses_the_face_is_part_of_the_job(tmp_path):
  """A detector, or a picture to look like, of the same name and with other bytes."""
  given = {name: str(tmp_path / name) for name in ('source', 'driving', 'detector', 'alike')}
  for path in given.values():
    pathlib.Path(path).write_text('old')
  options = Options(
    given['source'], given['driving'], 'out.mp4', face_detector=given['detector'],
    face=f'like={given["alike"]}',
  )  # fmt: skip
  before = hash_files(options)
  assert set(before) == set(given.values())
  for path in given.values():
    pathlib.Path(path).write_text('new')
    assert hash_files(options)[path] != before[path]


def test_segments_of_another_generator_are_not_used(model, inputs, tmp_path, monkeypatch):
  monkeypatch.setattr(render, 'SEGMENT', 8)
  other = model.with_generator(jax.tree.map(lambda x: 1.5 * x, model.G), 'other')
  run(other, inputs, tmp_path / 'whole.mkv', codec='ffv1')
  kill_before_joining(model, inputs, tmp_path / 'killed.mkv', monkeypatch, codec='ffv1')
  run(other, inputs, tmp_path / 'killed.mkv', codec='ffv1')
  np.testing.assert_array_equal(pixels(tmp_path / 'killed.mkv'), pixels(tmp_path / 'whole.mkv'))


def test_the_seam_in_the_summary(model, inputs, tmp_path, capsys):
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1')
  run(model, inputs, tmp_path / 'b.mkv', codec='ffv1', layout='pasted')
  rgb = stills.read_image(inputs[0])
  paste = Paste(align.upright((0, 0, SIZE, SIZE)), (SIZE, SIZE))
  seams = [paste(rgb, head)[1] for head in pixels(tmp_path / 'a.mkv')]
  line = f'seam: {np.mean(seams):.1f} grey levels across the border on average, {max(seams):.1f} at'
  assert line in capsys.readouterr().out


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
  """Without its two files there is one line of error; with them the model is loaded."""
  monkeypatch.setattr(shipped, 'FOLDER', tmp_path)
  with pytest.raises(InputError, match='has no bundled encoder: give --workdir'):
    load_model('')
  config = common.heads()
  nets = networks.build(ConfigDict(config).model)
  E = jax.eval_shape(lambda key: networks.init_encoder(nets, key), jax.random.key(0))
  E = jax.tree.map(lambda x: np.ones(x.shape, np.float32), E)
  shipped.save(tmp_path / 'encoder_64.npz', E)
  (tmp_path / 'encoder_64.json').write_text(json.dumps(config))
  (tmp_path / 'generator_64.npz').symlink_to(SHIPPED / 'generator_64.npz')
  model = load_model('')
  assert (model.size, model.resolution) == (64, 64) and 'bundled' in model.name
  jax.tree.map(np.testing.assert_array_equal, model.E, E)


def test_layouts(model, inputs, tmp_path):
  sources = {}
  for layout in reenact_options.LAYOUTS:
    run(model, inputs, tmp_path / 'a.mkv', codec='ffv1', layout=layout)
    sources[layout] = pixels(tmp_path / 'a.mkv')
  result, pasted, beside, grid = (sources[layout] for layout in reenact_options.LAYOUTS)
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


def test_a_batch_that_overflows_half_precision_is_computed_again(model, inputs):
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


@pytest.mark.parametrize(
  'options, message',
  [
    ({'source': 'missing.png'}, 'missing.png: no such file'),
    ({'driving': 'missing.mp4'}, 'missing.mp4: no such file'),
    ({'output': 'missing/a.mp4'}, 'the folder .* does not exist'),
    ({'output': 'a.gif'}, 'a.gif: h264 goes into'),
    ({'output': 'a.mov', 'codec': 'ffv1'}, 'ffv1 goes into'),
    ({'output': 'a.webm'}, 'webm takes vp9'),
    ({'crop': 'ffhq'}, 'needs --face-detector'),
    ({'face_detector': 'missing.onnx'}, 'missing.onnx: no such face detector'),
    ({'face_detector': 'missing.task'}, 'missing.task: no such file'),
    ({'face': 'like=me.png'}, 'like=me.png: needs --face-detector'),
    ({'face': 'tallest'}, '--face=tallest: give largest'),
  ],
)
def test_wrong_options_are_refused(model, inputs, tmp_path, monkeypatch, options, message):
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
  with pytest.raises(InputError, match='is an input'):
    run(model, inputs, tmp_path / 'a.mp4', driving=str(path), save_crops=str(path))
  assert path.read_bytes() == pathlib.Path(inputs[1]).read_bytes()
