"""The source advisor: its figures by hand, what it writes, and files that it cannot use."""

import csv

import numpy as np
import pytest

from hybrid_jax import advise
from hybrid_jax.errors import InputError
from hybrid_jax.media import stills, video


@pytest.fixture(scope='module')
def given(model, inputs, tmp_path_factory):
  """Returns advice on a picture, a clip and a bad file: ranked, sheet, table, best picture."""
  folder = tmp_path_factory.mktemp('advice')
  (folder / 'bad.png').write_bytes(b'no picture')
  files = [inputs[0], str(folder / 'bad.png'), inputs[1]]
  options = [f'--output={folder}/a.png', f'--best={folder}/best.png', '--count=4', '--shown=3']
  ranked = advise.advise(model, advise.parse_args([*files, *options]))
  with open(folder / 'a.csv') as file:
    table = list(csv.DictReader(file))
  return ranked, stills.read_image(folder / 'a.png'), table, folder / 'best.png'


def test_figures_are_those_of_the_model(model, inputs, given):
  ranked = given[0]
  frames = [frame.rgb for frame in video.read_frames(inputs[1])]
  for advice in ranked:
    crop = frames[advice.frame] if advice.source.moving else stills.read_image(inputs[0])
    (F,) = model.deformations([crop], 1)
    images = list(model.images(model.identity(crop), [F, F * 0], 2))
    levels = [np.abs(x.astype(float) - crop).mean() for x in images]
    np.testing.assert_allclose([advice.reconstruction, advice.anchor], levels, atol=0.05)
    assert advice.score == advice.reconstruction + advice.anchor


def test_all_are_ranked_in_the_table_and_the_first_on_the_sheet(inputs, given):
  ranked, sheet, table, best = given
  assert len(ranked) == len(table) == 5  # four frames and a picture
  scores = [float(row['score']) for row in table]
  assert scores == sorted(scores) and scores[0] < scores[-1]
  assert [row['rank'] for row in table] == list('12345')
  assert {int(row['frame']) for row in table if row['file'] == inputs[1]} == {0, 7, 15, 22}
  assert sheet.shape[0] == 26 + 3 * 160
  shown = sheet[26 : 26 + 160, -3 * 160 : -2 * 160].astype(float)
  crop = ranked[0].pictures[0].astype(float)
  np.testing.assert_allclose(shown.mean((0, 1)), crop.mean((0, 1)), atol=2)
  np.testing.assert_array_equal(stills.read_image(best), ranked[0].pictures[0])


def test_unusable_files_are_reported(model, tmp_path):
  (tmp_path / 'bad.png').write_bytes(b'no picture')
  with pytest.raises(InputError, match='bad.png'):
    advise.advise(model, advise.parse_args([str(tmp_path / 'bad.png'), '--output=x.png']))
  with pytest.raises(InputError, match='give a picture'):
    advise.advise(model, advise.parse_args(['a.png', '--output=x.csv']))
  for wrong in ('--output=bad.png', '--best=bad.png'):
    args = advise.parse_args(['bad.png', '--output=x.png', wrong])
    with pytest.raises(InputError, match='is an input'):
      advise.advise(model, args)
  with pytest.raises(InputError, match='the folder .*missing does not exist'):
    advise.advise(model, advise.parse_args(['a.png', f'--output={tmp_path}/missing/x.png']))
  with pytest.raises(SystemExit):
    advise.parse_args(['a.png', '--count=0'])
