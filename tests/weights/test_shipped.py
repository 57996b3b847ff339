"""The shipped networks of the rendered world, on people that none of them has seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import pretrain
from hybrid_jax.errors import InputError
from hybrid_jax.evaluation import judges
from hybrid_jax.method import networks
from hybrid_jax.models.perceptual import LPIPS, ArcFace
from hybrid_jax.models.stylegan2 import Generator
from hybrid_jax.weights import load, shipped
from hybrid_jax.world import clips, latent, people
from hybrid_jax.world.parameters import MOTION

PEOPLE, MOMENTS = 12, 4
WEAK = ('brow_frown',)  # what the generator follows least of what the judge reads well


@pytest.fixture(scope='module')
def world():
  """(people, moments) vectors and images in [-1, 1] of the test split, each moment a clip."""
  renderer = clips.Renderer(64)
  numbers = people.SPLITS['test'] + 5000 + np.arange(PEOPLE)
  drawn = []
  for number in numbers:
    for clip in range(MOMENTS):
      vectors = jax.device_get(people.moment(number, clip))
      drawn.append((*vectors, renderer(*vectors)[0] / 127.5 - 1))
  return [
    np.stack(part).reshape(PEOPLE, MOMENTS, *part[0].shape).astype(np.float32)
    for part in zip(*drawn, strict=True)
  ]


@pytest.fixture(scope='module')
def generate():
  tree = shipped.generator()
  generator = Generator(
    shipped.CHANNELS, shipped.GENERATOR['w_dim'], shipped.GENERATOR['mapping_layers']
  )

  def draw(identity, motion, scene):
    z = latent.z(identity, motion, scene, shipped.GENERATOR['w_dim'])
    return generator.apply({'params': tree['params']}, z)

  return jax.jit(draw)


def flat(x):
  return x.reshape(-1, *x.shape[2:])


def test_files_are_as_small_as_promised():
  sizes = {path.stem: path.stat().st_size for path in shipped.FOLDER.glob('*.npz')}
  assert sizes.pop('generator_64') <= 8e6
  assert sizes.pop('encoder_64') + sizes.pop('inversion_64') <= 20e6
  assert sizes.pop('edits_64') <= 30e3
  assert set(sizes) == {'perceptual', 'identity', 'judge_motion', 'judge_identity'}
  assert max(sizes.values()) <= 1.3e6


def test_the_generator_draws_the_people_that_it_is_given(world, generate):
  identity, motion, scene, image = map(flat, world)
  fake = jnp.clip(generate(identity, motion, scene), -1, 1)
  l1 = float(jnp.abs(fake - image).mean())
  mean = float(np.abs(image - image.mean(0)).mean())
  assert l1 < 0.4 * mean and l1 < 0.11
  # And not from the scene alone: other people's identity vectors make it worse.
  shifted = generate(np.roll(identity, MOMENTS, 0), motion, scene)
  assert float(jnp.abs(jnp.clip(shifted, -1, 1) - image).mean()) > 1.2 * l1


def test_the_generator_follows_the_motion_that_it_is_given(world, generate):
  """Judged by a network that took no part in its training."""
  identity, motion, scene, _ = map(flat, world)
  fake = generate(identity, motion, scene)
  judge = judges.Judge(len(MOTION))
  read = np.asarray(judge.apply(shipped.load('judge_motion'), fake))
  for name in judges.TRUSTED_MOTION:
    k = list(MOTION).index(name)
    assert np.corrcoef(read[:, k], motion[:, k])[0, 1] > (0.5 if name in WEAK else 0.85), name


def test_the_generator_without_noise_is_w_plus_synthesis_around_w_avg(generate, world):
  tree = shipped.generator()
  assert tree['w_avg'].shape == (shipped.GENERATOR['w_dim'],)
  strengths = [x for x in jax.tree.leaves(tree['noise_const'])]
  assert len(strengths) == 9 and all(float(jnp.abs(x).max()) == 0 for x in strengths)


def test_judge_motion_reads_the_renders(world):
  _, motion, _, image = map(flat, world)
  read = np.asarray(judges.Judge(len(MOTION)).apply(shipped.load('judge_motion'), image))
  for name in ('yaw', 'pitch', 'roll', 'jaw_open', 'smile', 'blink_left', 'gaze_yaw'):
    k = list(MOTION).index(name)
    assert np.corrcoef(read[:, k], motion[:, k])[0, 1] > 0.9, name


@pytest.mark.parametrize('name', ['identity', 'judge_identity'])
def test_embedders_distinguish_people(world, name):
  image = flat(world[3])
  if name == 'identity':
    embedding = ArcFace(**shipped.ARCFACE).apply(shipped.load(name), image)
  else:
    embedding = judges.unit(judges.Judge(shipped.JUDGE_EMBEDDING).apply(shipped.load(name), image))
  scores = np.array(embedding @ embedding.T)
  person = np.arange(len(image)) // MOMENTS
  same = person[:, None] == person[None]
  np.fill_diagonal(scores, np.nan)
  genuine, impostor = scores[same], scores[~same]
  assert np.nanmedian(genuine) > np.nanpercentile(impostor, 97)


def test_perceptual_distance_grows_with_what_differs(world):
  image = world[3]
  net, variables = LPIPS(**shipped.LPIPS), shipped.load('perceptual')
  distance = jax.jit(lambda a, b: net.apply(variables, a, b).mean())
  one, other_moment, other_person = image[:-1, 0], image[:-1, 1], image[1:, 0]
  assert float(distance(one, one)) < 1e-9
  near = float(distance(one, np.clip(one + 0.05, -1, 1)))
  assert 0 < near < float(distance(one, other_moment)) < float(distance(one, other_person))
  assert float(distance(one, other_person)) == pytest.approx(0.5, abs=0.25)


def test_an_unknown_network_is_reported():
  with pytest.raises(InputError, match='lacks these weights'):
    shipped.load('none')


def test_loss_networks_do_without_the_generator():
  """A model of another size, whose generator need not be bundled, has the same ones."""
  config = pretrain.get_config('heads_256')
  found = load.load_losses(networks.build(config.model), config.weights, 0)
  assert set(found) == {'lpips', 'arcface'}
