"""The bundled model on unseen people: the film, the sheet and the figures."""

import json
import subprocess
import sys

import numpy as np
import outcomes
import pytest

from hybrid_jax.evaluation import rendered
from hybrid_jax.media import stills, video
from hybrid_jax.reenactment import model, showcase


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shown')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(showcase, 'PEOPLE', 10)
    patch.setattr(showcase, 'FRAMES', 3)
    patch.setattr(showcase, 'SECONDS', 1)
    return folder, showcase.show('', str(folder))


@pytest.mark.slow
def test_the_bundled_model_beats_copies_of_its_inputs(shown):
  folder, result = shown
  assert json.loads((folder / 'reenacted.json').read_text()) == result
  mean = lambda name, metric: result[name][metric]['mean']  # noqa: E731
  for copy in ('copy_source', 'copy_driving'):
    for metric in ('l1', 'l1_face'):
      assert mean('ours', metric) < mean(copy, metric), (copy, metric)
  for metric in ('expression_error', 'pose_error'):
    assert mean('ours', metric) < 0.7 * mean('copy_source', metric)
  assert mean('ours', 'identity_score') > 0.6
  assert abs(mean('copy_driving', 'identity_score')) < 0.3
  outcomes.write(ours={k: v['mean'] for k, v in result['ours'].items()})


@pytest.mark.slow
def test_the_sheet_and_the_film_show_source_driver_answer_and_truth(shown):
  folder, _ = shown
  sheet = stills.read_image(folder / 'reenacted.png')
  assert sheet.std() > 20 and sheet.shape[0] >= 4 * rendered.SIZE
  frames = list(video.read_frames(folder / 'reenacted.mp4'))
  side = showcase.SCALE * rendered.SIZE
  assert len(frames) == 25 and frames[0].rgb.shape == (side, 4 * side, 3)
  film = np.stack([frame.rgb for frame in frames]).astype(float)
  source, driving, made, truth = np.split(film, 4, axis=2)
  moves = lambda panel: panel.std(0).mean()  # noqa: E731
  assert moves(source) < 1 < min(moves(driving), moves(made), moves(truth))
  assert np.abs(made - truth).mean() < np.abs(driving - truth).mean() / 2
  outcomes.write(result_to_truth=float(np.abs(made - truth).mean()), frames=len(frames))


@pytest.mark.slow
def test_reenact_needs_no_workdir(tmp_path):
  """The second and third command of the README: rendered files, then the shipped model."""
  run = lambda *args: subprocess.run(  # noqa: E731
    [sys.executable, '-m', *map(str, args)], capture_output=True, text=True
  )
  out = tmp_path / 'out'
  made = run('hybrid_jax.world', out, '--people=1', '--clips=1', '--size=64', '--seconds=0.4')
  assert made.returncode == 0, made.stderr
  portrait, driving = out / 'portraits' / 'person_0.png', out / 'driving' / 'clip_0.mp4'
  made = run(
    'hybrid_jax.reenact', f'--source={portrait}', f'--driving={driving}',
    f'--output={tmp_path}/me.mp4', '--codec=ffv1',
  )  # fmt: skip
  assert made.returncode == 0, made.stderr
  frames, driver = list(video.read_frames(tmp_path / 'me.mp4')), list(video.read_frames(driving))
  assert [f.time for f in frames] == [f.time for f in driver]
  expected = showcase.reenacted(
    model.load_model(''), stills.read_image(portrait), [f.rgb for f in driver]
  )
  for frame, image in zip(frames, expected, strict=True):
    assert np.abs(frame.rgb.astype(int) - image).max() <= 1
  outcomes.write(frames=len(frames))
