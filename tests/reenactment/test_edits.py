"""Edits: their syntax, public FFHQ directions, what they add to the latents, and the sheet."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reenacting
from ml_collections import ConfigDict

from configs import common
from hybrid_jax import advise, edit_sheet
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import rendered
from hybrid_jax.media import composite, stills
from hybrid_jax.method import networks
from hybrid_jax.models import latents
from hybrid_jax.reenactment import edits
from hybrid_jax.reenactment import model as inference
from hybrid_jax.weights import torch_file
from hybrid_jax.world import clips, people
from hybrid_jax.world.parameters import IDENTITY

ROWS, WIDTH = 18, 512
NOW = np.zeros(1)


@pytest.fixture(scope='module')
def large():
  """The 1024 px model with random weights and without an encoder, which no edit uses."""
  config = ConfigDict(common.paper())
  nets = networks.build(config.model)
  generator, rng = nets.hybrid.generator, np.random.default_rng(0)
  shapes = jax.eval_shape(lambda k: generator.init(k, np.zeros((1, WIDTH))), jax.random.key(0))
  params = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes['params'])
  noise = tuple(np.zeros(shape, np.float32) for shape in latents.noise_shapes(generator.channels))
  G = {'params': params, 'noise_const': noise, 'w_avg': np.zeros(WIDTH, np.float32)}
  return inference.Model(config, nets, {}, G, ROWS, 'random, 1024 px')


@pytest.fixture(scope='module')
def W_S():
  return np.random.default_rng(0).normal(size=(1, ROWS, WIDTH)).astype(np.float32)


def added(model, text, folder, W_S, seconds=NOW):
  """(n, l, d) to W+ and one (n, s) for each layer."""
  found, generator = edits.resolve(text, str(folder), model), model.networks.hybrid.generator
  directions = edits.stack(found, generator.channels, generator.w_dim)
  return jax.tree.map(np.asarray, directions.times(edits.strengths(found, seconds, W_S)))


def test_strengths_and_curves_are_read():
  (age, constant), (smile, curve), (pose, last) = edits.parse('age=+2, smile=0@0s,3@4s,1@5,pose=-1')
  assert (age, smile, pose) == ('age', 'smile', 'pose')
  seconds = np.array([-1, 0, 2, 4, 4.5, 9])
  np.testing.assert_allclose(constant(seconds), 2)
  np.testing.assert_allclose(curve(seconds), [0, 0, 1.5, 3, 2, 1])
  np.testing.assert_allclose(last(seconds), -1)


@pytest.mark.parametrize(
  'text',
  [
    ',',
    'age',
    '3',
    'age=',
    'age=much',
    '=3',
    'age=1@0s,2',
    'age=1@2s,2@1s',
    'age=1.2.3',
    'age=1e400',
    'age=3@4s',
  ],
)
def test_wrong_syntax_is_refused(text):
  with pytest.raises(InputError, match='--edit: '):
    edits.parse(text)


def test_the_real_directions_edit_a_latent_of_the_1024_px_generator(shared, large, W_S):
  folder = shared('directions')
  dW, ds = added(large, 'age=2,pose=-1', folder, W_S)
  age, pose = (edits.read_direction(name, folder) for name in ('age', 'pose'))
  assert age.shape == (1, WIDTH) and pose.shape == (ROWS, WIDTH)
  np.testing.assert_allclose(dW[0], 2 * age - pose, rtol=1e-4, atol=1e-6)
  assert not any(x.any() for x in ds)
  # Every layer's style answers, by the layer's own affine map of what was added to its row.
  generator, variables = large.networks.hybrid.generator, {'params': large.G['params']}
  styles = jax.jit(lambda W: generator.apply(variables, W, method='to_style_space'))
  for k, (before, after) in enumerate(zip(styles(W_S), styles(W_S + dW), strict=True)):
    layer = latents.style_layers(generator.channels)[k]
    kernel = large.G['params'][f'affines_{k}']['kernel'] / np.sqrt(WIDTH)
    expected = dW[0, layer.w_row] @ kernel
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose((after - before)[0], expected, atol=2e-3)


def test_damaged_directions_are_refused(model, tmp_path):
  (tmp_path / 'cut.npz').write_bytes(b'PK\x03\x04 cut off')
  np.save(tmp_path / 'empty.npy', np.zeros(0, np.float32))
  for name in ('cut', 'empty'):
    with pytest.raises(InputError, match=name):
      edits.resolve(f'{name}=1', str(tmp_path), model)


def test_directions_that_do_not_fit_are_refused(shared, large, model, tmp_path):
  folder = str(shared('directions'))
  for text, of, where, why in (
    ('beard=1', large, folder, "no direction 'beard' in .*there are: age, ffhq_pca, pose"),
    ('age=1', model, folder, r'does not fit W\+ of \(8, 16\)'),
    ('ffhq_pca:0=1', model, folder, r'components of 512 do not fit W\+ of 16'),
    ('ffhq_pca:99999=1', large, folder, 'counted from 0'),
    ('ffhq_pca:0:4-18=1', large, folder, 'rows of this model are 0 to 17'),
    ('age:0=1', large, folder, 'age.pt: not a GANSpace file'),
    ('ganspace:0=1', large, folder, 'no file .*ganspace.pt'),
    ('ganspace:0=1', large, '', 'give --directions=FOLDER with the file ganspace.pt in it'),
    ('age=1', large, str(tmp_path / 'none'), 'no such folder'),
    ('glasses=1', model, '', 'give --directions'),
  ):
    with pytest.raises(InputError, match=why):
      edits.resolve(text, where, of)


def test_a_ganspace_strength_is_the_coordinate_after_the_edit(shared, large, W_S):
  """As in the public code: the coordinate of the first row, in standard deviations."""
  folder = shared('directions')
  dW, _ = added(large, 'ffhq_pca:3:2-6=1.5', folder, W_S)
  assert not dW[0, :2].any() and not dW[0, 7:].any()
  np.testing.assert_array_equal(dW[0, 2], dW[0, 6])
  content = torch_file.load(folder / 'ffhq_pca.pt')
  comp, std = content['comp'].reshape(content['std'].size, -1)[3], content['std'].reshape(-1)[3]
  mean = content['mean'].reshape(-1)
  assert (W_S[0, 0] + dW[0, 2] - mean) @ comp / std == pytest.approx(1.5, abs=1e-3)


def test_sefa_finds_what_changes_the_styles_most(model):
  rng = np.random.default_rng(1)
  channels = latents.config_f_channels(16, 256, 16)
  strong = rng.normal(size=16)
  strong /= np.linalg.norm(strong)
  G = {'params': {}}
  for i, layer in enumerate(latents.style_layers(channels)):
    kernel = np.outer(strong, rng.normal(size=layer.width)) + 0.05 * rng.normal(
      size=(16, layer.width)
    )
    G['params'][f'affines_{i}'] = {'kernel': kernel}
  directions = edits.sefa(G, channels, np.arange(6))
  assert directions.shape == (16, 16) and abs(directions[0] @ strong) > 0.99
  np.testing.assert_allclose(directions @ directions.T, np.eye(16), atol=1e-5)
  (edit,) = edits.resolve('sefa:0:1-2=2', '', model)
  np.testing.assert_array_equal(np.abs(edit.direction).sum(1) > 0, np.isin(np.arange(8), [1, 2]))


def test_a_style_channel_is_moved_alone(large, W_S):
  dW, ds = added(large, 'style:5:7=4@0s,0@2s', '', W_S, np.array([0.0, 1.0, 2.0]))
  np.testing.assert_allclose(ds[5][:, 7], [4, 2, 0])
  assert not dW.any() and [np.count_nonzero(x) for x in ds] == [2 * (k == 5) for k in range(26)]
  for text, why in (('style:99:0=1', 'layers are 0 to 25'), ('style:25:900=1', '32 channels')):
    with pytest.raises(InputError, match=why):
      edits.resolve(text, '', large)


def test_a_video_is_edited_over_time(model, inputs, tmp_path):
  """Each frame is eq. 4 by hand, at the time of the frame."""
  direction = np.random.default_rng(2).normal(size=(1, 16)).astype(np.float32)
  np.save(tmp_path / 'older.npy', direction)
  _, _, times = inputs
  seconds = np.array([float(t - times[0]) for t in times])
  reenacting.run(
    model, inputs, tmp_path / 'edited.mp4', directions=str(tmp_path), codec='ffv1', audio=False,
    edit=f'older=0@0s,3@{seconds[-1]:.6f}s,style:3:2=0@0s,5@{seconds[-1]:.6f}s',
  )  # fmt: skip
  result = reenacting.pixels(tmp_path / 'edited.mp4')
  hybrid, portrait = model.networks.hybrid, stills.read_image(inputs[0])
  W_S = model.identity(portrait)
  F = np.stack(list(model.deformations(reenacting.pixels(inputs[1]), 4)))
  edges = np.cumsum(model.widths)[:-1]

  @jax.jit
  def by_hand(W, F, a):
    s = list(hybrid.combine(model.G, W, tuple(jnp.split(F[None], edges, -1))))
    s[3] = s[3].at[:, 2].add(a)
    return hybrid.synthesize(model.G, tuple(s))[0]

  def expected(k, share):
    image = by_hand(W_S + 3 * share * direction, F[k], 5 * share)
    return np.clip(np.round(np.asarray(image) * 127.5 + 127.5), 0, 255)

  for k in (0, 11, 22):
    assert np.abs(result[k] - expected(k, seconds[k] / seconds[-1])).max() <= 1, k
  assert np.abs(result[22] - expected(22, 0)).mean() > 5


def test_edits_of_the_bundled_model():
  """On unseen people with another's motion, each edit changes the picture as ground truth does."""
  shipped, draw = inference.load_model(''), clips.Renderer(rendered.SIZE)
  traits = {'glasses': 1.0, 'beard': 0.6, 'skin': 0.8, 'hair_dark': 0.8}
  text = ','.join(f'{name}={value}' for name, value in traits.items())
  found = edits.resolve(text, '', shipped)
  generator = shipped.networks.hybrid.generator
  directions = edits.stack(found, generator.channels, generator.w_dim)
  strength = np.vstack([np.zeros(4), np.diag(list(traits.values()))]).astype(np.float32)
  wrong, change = np.zeros(4), np.zeros(4)
  moments = np.ones(4, np.float32)  # these shapes are compiled for other tests too
  for number in range(people.SPLITS['test'] + 500, people.SPLITS['test'] + 504):
    identity, motion, scene = clips.vectors(number, 0, moments)
    _, move, _ = clips.vectors(number + 50, 0, moments)
    looks = [np.array(identity) for _ in range(5)]
    for k, (name, value) in enumerate(traits.items()):
      low, high = IDENTITY[name]
      for look in looks:
        look[list(IDENTITY).index(name)] = 0.1 if low < 0 else 0
      looks[k + 1][list(IDENTITY).index(name)] = (value - low) / (high - low)
    truth = np.stack([draw(look, move[0], scene)[0] for look in looks])
    W_S = shipped.identity(draw(looks[0], motion[0], scene)[0])
    (F,) = shipped.deformations([truth[0]], 8)
    made = np.stack(list(shipped.images(W_S, [np.append(F, a) for a in strength], 5, directions)))
    made, truth = ((x[1:].astype(float) - x[0]) for x in (made, truth))
    wrong += np.square(made - truth).mean((1, 2, 3))
    change += np.square(truth).mean((1, 2, 3))
  share = dict(zip(traits, wrong / change, strict=True))
  assert max(share.values()) < 0.7 and max(share['skin'], share['hair_dark']) < 0.4, share
  with pytest.raises(InputError, match="no direction 'smile'; there are: glasses, beard"):
    edits.resolve('smile=1', '', shipped)


def test_the_figures_are_of_the_shipped_directions():
  root = pathlib.Path(__file__).parents[2]
  result = json.loads((root / 'experiments/results/edits.json').read_text())
  assert tuple(result['traits']) == edits.NAMES
  for name, row in result['traits'].items():
    for kind in ('without_motion', 'with_motion'):
      levels = row[kind]['grey_levels_from_the_true_answer']
      assert levels['edited'] < levels['not_edited'], (name, kind)


def test_the_sheet_shows_strength_against_edit(model, inputs, tmp_path, monkeypatch):
  output = tmp_path / 'sheet.png'
  args = edit_sheet.parse_args(
    [f'--source={inputs[0]}', f'--output={output}', '--edits=sefa:0,style:3:2', '--side=64']
    + ['--strengths=-9,0,9']
  )
  edit_sheet.edit_sheet(model, args)
  sheet = stills.read_image(output).astype(int)
  assert sheet.shape[0] == 26 + 2 * 64
  cells = sheet[26:, -4 * 64 :].reshape(2, 64, 4, 64, 3).swapaxes(1, 2)
  for row in cells:  # the source, then the strengths
    np.testing.assert_array_equal(row[0], composite.fit(stills.read_image(inputs[0]), (64, 64)))
    for k in (1, 3):
      assert np.abs(row[k] - row[2]).mean() > 2
  np.testing.assert_array_equal(cells[0, 2], cells[1, 2])  # 0 is the person, whatever the edit
  with pytest.raises(InputError, match='style:99:0'):
    edit_sheet.edit_sheet(
      model, edit_sheet.parse_args(['--source', inputs[0], '--output=x.png', '--edits=style:99:0'])
    )
  with pytest.raises(InputError, match='is an input'):
    edit_sheet.edit_sheet(
      model, edit_sheet.parse_args([f'--source={inputs[0]}', f'--output={inputs[0]}'])
    )
  for wrong in ('--edits=age=3', '--strengths=1,b', '--side=0', '--side=-5'):
    with pytest.raises(SystemExit):
      edit_sheet.parse_args(['--source=a', '--output=b', wrong])


@pytest.mark.slow
def test_the_real_directions_change_a_picture_of_the_1024_px_generator(shared, large, W_S):
  generator, folder = large.networks.hybrid.generator, shared('directions')
  F = np.zeros(sum(large.widths), np.float32)
  pictures = [
    next(edits.images(large, W_S, [F], 1, edits.resolve(text, str(folder), large), NOW))
    for text in ('', 'age=3', 'smile=3', 'pose=3', 'ffhq_pca:0:0-8=4', 'sefa:0=3', 'style:5:7=20')
  ]
  assert (
    pictures[0].shape == (1024, 1024, 3) and len(latents.style_layers(generator.channels)) == 26
  )
  for picture in pictures[1:]:
    assert np.abs(picture.astype(int) - pictures[0]).mean() > 0.01


def test_help_has_examples(capsys):
  for command in (edit_sheet, advise):
    with pytest.raises(SystemExit):
      command.parse_args(['--help'])
    assert f'python -m {command.__name__} ' in capsys.readouterr().out
