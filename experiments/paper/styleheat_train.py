"""Trains and renders StyleHEAT, our reimplementation (`styleheat.py`), on the rendered world.

  python -m experiments.paper.styleheat_train train runs/styleheat --world world/ \\
      --signals read/world                                       # 9750 steps; resumable
  python -m experiments.paper.styleheat_train render runs/styleheat --kept kept/ \\
      --signals read/kept --output styleheat/                    # for --method of the tables

--signals is a folder that `experiments.paper.signals` read; without it the motion is the true one,
of the export or of the .npz beside a driving clip: the "oracle" rows.
"""

import argparse
import dataclasses
import functools
import pathlib
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.paper import baselines, resumable, signals, styleheat
from hybrid_jax.errors import InputError
from hybrid_jax.method.networks import Networks
from hybrid_jax.models.ops import from_uint8


@flax.struct.dataclass
class State:
  """Step, weights, their average, which renders, and the optimiser."""

  step: jax.Array
  params: Any
  average: Any
  opt: optax.OptState


class Training:
  """A run of `steps` on networks and weights of `styleheat.bundled`."""

  def __init__(self, config: styleheat.Config, steps: int, nets: Networks, weights: dict):
    self.config, self.alone = config, round(config.warping_alone * steps)
    self.nets, self.weights = nets, weights
    self.optimizer = optax.adam(config.rate, config.beta1, config.beta2)
    self.step = jax.jit(self._step, static_argnames='warping', donate_argnums=0)

  def first_state(self, seed: int) -> State:
    """Returns the state before the first step."""
    generator, size = self.nets.hybrid.generator, self.nets.frame_size
    params = styleheat.init(self.config, generator, jax.random.key(seed), size)
    average = jax.tree.map(jnp.copy, params)  # the step donates both
    return State(jnp.zeros((), jnp.int32), params, average, self.optimizer.init(params))

  def advance(self, state: State, k: int, batch: dict) -> tuple[State, dict]:
    """Returns the state after step `k`, and its losses."""
    return self.step(state, self.weights, batch, warping=k < self.alone)

  def _losses(self, params, weights, source, motion, target, warping):
    lpips = functools.partial(self.nets.lpips.apply, weights['lpips'])
    hybrid = self.nets.hybrid
    drawn, warped = styleheat.reenact(self.config, hybrid, weights, params, source, motion)
    terms = {'warped': lpips(warped, target).mean()}
    if not warping:  # stage 2
      terms |= {'perceptual': lpips(drawn, target).mean(), 'l1': jnp.abs(drawn - target).mean()}
    return sum(getattr(self.config, name) * term for name, term in terms.items()), terms

  def _step(self, state, weights, batch, *, warping):
    # Each frame of a pair is the other's source, as in PIRenderer: n 2 ... -> 2n ...
    fold = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    image = from_uint8(batch['image'].astype(jnp.float32))
    source, target, motion = map(fold, (image, image[:, ::-1], batch['motion'][:, ::-1]))
    grads, terms = jax.grad(self._losses, has_aux=True)(
      state.params, weights, source, motion, target, warping
    )
    updates, opt = self.optimizer.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    average = optax.incremental_update(params, state.average, 1 - self.config.average)
    return State(state.step + 1, params, average, opt), terms

  @functools.partial(jax.jit, static_argnums=0)
  def draw(self, params, weights, source, motion):
    """Returns re-enactments (n, s, s, 3) of sources in [-1, 1] with motion (n, 16)."""
    return styleheat.reenact(self.config, self.nets.hybrid, weights, params, source, motion)[0]


def train(args: argparse.Namespace) -> None:
  """Trains, or goes on."""
  budget, config = baselines.PROTOCOL['budget'], styleheat.Config(rate=args.rate)
  given, batch = args.signals or args.world, budget['batch']
  settings = {'steps': args.steps, 'batch': batch, 'seed': args.seed, 'oracle': not args.signals}
  resumable.begin(args.workdir, settings | dataclasses.asdict(config))
  data, held_out = (signals.load(args.world, given, split) for split in ('train', 'validation'))
  training = Training(config, args.steps, *styleheat.bundled())
  state = resumable.restore(args.workdir, training.first_state(args.seed))
  check = signals.batch_at(0, 1, 32, held_out)

  def advance(state, k):
    return training.advance(state, k, signals.batch_at(k, args.seed, batch, data))

  def report(state):
    image = from_uint8(check['image'].astype(np.float32))
    drawn = training.draw(state.average, training.weights, image[:, 0], check['motion'][:, 1])
    return {'held_out_l1': jnp.abs(jnp.clip(drawn, -1, 1) - image[:, 1]).mean()}

  resumable.run(args.workdir, state, args.steps, advance, report, args.checkpoint_steps)


def render(args: argparse.Namespace) -> None:
  """Renders every pair of a table."""
  given = resumable.settings_of(args.workdir)
  if given['oracle'] == bool(args.signals):
    kind = 'the true motion: leave out' if given['oracle'] else 'readings: give'
    raise InputError(f'{args.workdir}: was trained with {kind} --signals')
  config = styleheat.Config(rate=given['rate'])
  training = Training(config, given['steps'], *styleheat.bundled())
  params = resumable.trained(args.workdir, training.first_state(given['seed'])).average
  draw = functools.partial(training.draw, params, training.weights)
  signals.render(args.kept, args.signals, args.output, draw, training.nets.frame_size)


def parse_args() -> argparse.Namespace:
  steps, rate = baselines.PROTOCOL['budget']['steps'], styleheat.Config.rate
  parser = resumable.parser_of(__doc__, ('train', 'render'), steps, rate, every=250)
  add = parser.add_argument
  add('--world', type=pathlib.Path, help='to train: an export of the rendered world')
  add('--kept', type=pathlib.Path, help='to render: folder of --keep of a table')
  add('--signals', type=pathlib.Path, help='readings of that folder (default: the true motion)')
  add('--output', type=pathlib.Path, help='to render: folder of the videos')
  return parser.parse_args()


if __name__ == '__main__':
  resumable.command(parse_args(), train=(train, 'world'), render=(render, 'kept', 'output'))
