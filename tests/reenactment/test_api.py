"""The Python API: equal to the command, arrays equal to files, one clear line for wrong inputs."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from reenacting import frames_of, packets, pixels, run

import hybrid_jax
from hybrid_jax import extract_motion
from hybrid_jax.media import stills, video
from hybrid_jax.world import films

ROOT = pathlib.Path(__file__).resolve().parents[2]


def reenact(model, source, driving, **options):
  return model.reenact(source, driving, progress=None, **{'batch_size': 4, **options})


def test_frames_and_times_are_those_of_the_command(model, inputs, tmp_path):
  run(model, inputs, tmp_path / 'a.mkv', codec='ffv1', layout='grid')
  result = reenact(model, hybrid_jax.crop(inputs[0]), inputs[1], layout='grid')
  np.testing.assert_array_equal(result.frames, pixels(tmp_path / 'a.mkv'))
  np.testing.assert_allclose(result.times, [float(time) for time in inputs[2]])
  assert result.quality.by.startswith('not available')
  assert len(result.quality.columns['jitter']) == len(result.frames)


def test_arrays_give_what_files_give(model, inputs):
  frames = np.stack([frame.rgb for frame in frames_of(inputs[1])])
  portrait = stills.read_image(inputs[0])
  expected = reenact(model, inputs[0], inputs[1])
  for source in (portrait, hybrid_jax.crop(portrait)):
    result = reenact(model, source, frames, driving_fps=Fraction(30000, 1001))
    np.testing.assert_array_equal(result.frames, expected.frames)
    np.testing.assert_allclose(np.diff(result.times), 1001 / 30000)


@pytest.mark.parametrize(
  ('name', 'codec'), [('a.mp4', 'h264'), ('a.mkv', 'ffv1'), ('a.webm', ''), ('pictures', '')]
)
def test_save(model, inputs, tmp_path, name, codec):
  result = reenact(model, *inputs[:2])
  path = result.save(tmp_path / name, codec=codec)
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted((name, f'{name}.json'))
  if name == 'pictures':
    files = sorted(path.glob('*.png'))
    np.testing.assert_array_equal([stills.read_image(p) for p in files], result.frames)
    return
  saved = frames_of(path)
  tolerance = Fraction(1, 2000) if name.endswith(('.mkv', '.webm')) else 0
  assert max(abs(f.time - t) for f, t in zip(saved, inputs[2], strict=True)) <= tolerance
  error = np.abs(np.stack([f.rgb for f in saved]).astype(int) - result.frames).mean()
  assert error == 0 if codec == 'ffv1' else error < 20  # noise, which a lossy codec blurs


def test_the_record_is_that_of_the_command(model, inputs, tmp_path):
  reenact(model, *inputs[:2]).save(tmp_path / 'a.mp4')
  run(model, inputs, tmp_path / 'command_a.mp4')
  records = [
    json.loads((tmp_path / f'{stem}.json').read_text())['record']
    for stem in ('a.mp4', 'command_a.mp4')
  ]
  # A record names its options, of which the API measures quality by default.
  for record in records:
    record['options'].pop('quality')
  assert records[0] == records[1]


def test_sound_is_saved(model, inputs, tmp_path):
  films.write_sound(tmp_path / 'hum.m4a', np.arange(16_000, dtype=np.int16))
  spoken = tmp_path / 'spoken.mp4'
  frames = frames_of(inputs[1])
  h, w = frames[0].rgb.shape[:2]
  with video.VideoWriter(
    spoken, h, w, time_base=Fraction(1, 600), audio_from=tmp_path / 'hum.m4a'
  ) as writer:
    for frame in frames:
      writer.write(frame.rgb, frame.time)
  path = reenact(model, inputs[0], spoken).save(tmp_path / 'a.mp4')
  assert packets(path, 'audio') == packets(spoken, 'audio')
  with pytest.raises(hybrid_jax.InputError, match='is an input'):
    reenact(model, inputs[0], spoken).save(spoken)


def test_show_outside_of_a_notebook_writes_a_file(model, inputs, tmp_path, monkeypatch):
  for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
    monkeypatch.delenv(name, raising=False)
  result = reenact(model, *inputs[:2])
  path = pathlib.Path(result.show())
  assert len(frames_of(path)) == len(result.frames)
  path.unlink()
  # A motion file has no sound to play.
  talk = tmp_path / 'talk.safetensors'
  arguments = extract_motion.parse_args([f'--driving={inputs[1]}', f'--output={talk}'])
  extract_motion.extract_motion(model, arguments)
  path = pathlib.Path(reenact(model, inputs[0], talk).show())
  assert len(frames_of(path)) == len(result.frames)
  path.unlink()
  assert result._repr_html_().startswith('<video') and 'base64' in result._repr_html_()
  assert hybrid_jax.crop(inputs[0])._repr_png_().startswith(b'\x89PNG')


GREY = np.zeros((40, 40, 3), np.uint8)


@pytest.mark.parametrize(
  ('source', 'driving', 'options', 'message'),
  [
    (GREY[..., 0], None, {}, r'source: an array \(40, 40\) of uint8; give \(h, w, 3\) of uint8'),
    (GREY / 255, None, {}, r'source: an array \(40, 40, 3\) of float64'),
    (3, None, {}, 'source: a int; give a path or an array'),
    ('missing.png', None, {}, 'missing.png: no such file'),
    (GREY[:20], None, {}, 'array: 40x20 is not square; crop the head'),
    (None, GREY, {}, r'driving: an array \(40, 40, 3\) of uint8; give \(t, h, w, 3\)'),
    (None, GREY[None, :20], {}, '^driving.mp4: 40x20 is not square'),
    (None, None, {'layuot': 'grid'}, 'layuot: not an option; options are .*layout'),
    (None, None, {'layout': 'both'}, "layout='both': choose from 'result', 'pasted'"),
    (None, None, {'output': 'a.mp4'}, 'output: not an option'),
    (None, None, {'fps': 0}, 'fps=0: 0: must be above 0'),
    (None, None, {'gain': float('nan')}, 'gain=nan: must be a finite number'),
    (None, None, {'gain': 'much'}, "gain='much': could not convert"),
    (None, None, {'batch_size': 4.0}, 'batch_size=4.0: invalid literal'),
    (None, None, {'edit': 3}, 'edit=3: give text or a path'),
    (None, None, {'audio': 'no'}, "audio='no': give True or False"),
    (None, None, {'edit': 'hat=1'}, 'hat'),
  ],
)
def test_wrong_inputs_are_one_line(model, inputs, source, driving, options, message):
  source, driving = (
    fallback if given is None else given
    for given, fallback in zip((source, driving), inputs, strict=False)
  )
  with pytest.raises(hybrid_jax.InputError, match=message) as caught:
    reenact(model, source, driving, **options)
  assert '\n' not in str(caught.value)


def test_a_crop_is_of_the_kind_that_the_model_was_trained_on(model, inputs, tmp_path):
  """Where none is asked for; a folder of videos is cropped in upright boxes."""
  points = np.array([[(8, 12), (20, 14), (14, 18), (10, 22), (18, 23)]], float)
  np.savez(tmp_path / 'face.npz', landmarks=points)
  config = model.config.copy_and_resolve_references()
  config.data.videos = 'videos'
  options = {'source_landmarks': str(tmp_path / 'face.npz')}
  for other in (model, dataclasses.replace(model, config=config)):
    expected = reenact(other, inputs[0], inputs[1], **options).frames
    source = hybrid_jax.crop(inputs[0], landmarks=tmp_path / 'face.npz')
    np.testing.assert_array_equal(reenact(other, source, inputs[1]).frames, expected)
  fixed = hybrid_jax.crop(inputs[0], landmarks=tmp_path / 'face.npz', kind='ffhq')
  assert (reenact(other, fixed, inputs[1]).frames != expected).any()
  with pytest.raises(
    hybrid_jax.InputError, match="kind='oval': choose from 'clip', 'fomm', 'ffhq'"
  ):
    hybrid_jax.crop(inputs[0], kind='oval')


def test_options_take_paths_and_numbers(model, inputs, tmp_path):
  options = {'save_crops': tmp_path / 'seen.png', 'fps': 25, 'crf': 20}
  result = reenact(model, pathlib.Path(inputs[0]), pathlib.Path(inputs[1]), **options)
  assert (tmp_path / 'seen.png').is_file() and np.diff(result.times) == pytest.approx(1 / 25)


def test_latents_of_wrong_arrays_are_refused(model):
  with pytest.raises(
    hybrid_jax.InputError, match=r'a frame has shape \(40, 40, 3\); .*\(32, 32, 3\)'
  ):
    model.identity(GREY)
  with pytest.raises(hybrid_jax.InputError, match='a frame is float64'):
    list(model.deformations([np.zeros((32, 32, 3))], 2))


def test_the_package_imports_without_its_dependencies():
  """Data worker processes and `--help` import the package; the API is loaded on first use."""
  code = 'import sys, hybrid_jax; sys.exit("jax" in sys.modules or "av" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0
  assert {'load', 'crop', 'Video', 'Model', 'InputError'} <= set(dir(hybrid_jax))


def test_the_commands_are_listed():
  command = [sys.executable, '-m', 'hybrid_jax']
  lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
  folder = ROOT / 'hybrid_jax'
  modules = [
    path.stem for path in folder.glob('*.py') if "__name__ == '__main__'" in path.read_text()
  ]
  for name in {*modules, 'jobs', 'world'} - {'__main__'}:
    assert f'\n  {name} ' in lines, name
