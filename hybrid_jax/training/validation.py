"""Validation of a run: losses on held-out people, and the grid of samples."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hybrid_jax.method.networks import Networks
from hybrid_jax.method.objective import make_objective
from hybrid_jax.models.ops import adaptive_avg_pool, from_uint8, to_uint8
from hybrid_jax.training import parallel, steps, triplets

SAMPLE_COLUMNS = 'source, driver, self-reconstruction, re-enactment, anchor, cross re-enactment'
# Of the validation triplets, which are the same at every validation and in every run, so that their
# losses can be compared.
SEED = 1


def make_validator(
  networks: Networks, config: Any, clips: triplets.Clips, mesh: Mesh
) -> Callable[[Any, Mapping], dict[str, float]]:
  """Returns validate(state, frozen) -> mean of every loss term over `val_batches` fixed batches.

  Running statistics normalise, and the noise is fixed.
  """
  objective = make_objective(networks, config)
  rows_at = steps.active_rows
  process = (jax.process_index(), jax.process_count())
  weight = config.loss.weights.get('adversarial', 0.0)

  count = config.optim.micro_batches

  @functools.partial(jax.jit, out_shardings=parallel.shardings(mesh)[1])
  def losses(state, frozen, batch, k):
    rows = rows_at(state.step, config.progressive, networks.hybrid.encoder.num_ws)
    key = jax.random.fold_in(jax.random.key(SEED), k)
    encoder, critic = parallel.gather((state.encoder, state.critic), mesh)
    whole = encoder['params'], encoder['batch_stats'], critic, frozen

    def terms_of(inputs):
      _, (_, _, terms) = objective(*whole, inputs[0], rows, inputs[1], False)
      return terms

    if count == 1:
      terms = terms_of((batch, key))
    else:  # the memory of a batch is that of its parts, as in the step
      inputs = parallel.split(batch, count, mesh), jax.random.split(key, count)
      terms = jax.tree.map(jnp.mean, jax.lax.map(terms_of, inputs))
    # Without the critic's term: it measures the critic too, which changes from step to step.
    return terms | {'total': terms['total'] - weight * terms['adversarial']}

  def validate(state, frozen):
    batches = triplets.triplets(
      clips,
      batch_size=config.data.batch_size,
      seed=SEED,
      masks=config.stage == 'finetune',
      process=process,
    )
    sums: dict[str, float] = {}
    for k, batch in zip(range(config.train.val_batches), batches, strict=False):
      batch = parallel.put_batch(batch, mesh)
      for name, value in jax.device_get(losses(state, frozen, batch, k)).items():
        sums[name] = sums.get(name, 0.0) + float(value) / config.train.val_batches
    return sums

  return validate


def make_sampler(networks: Networks, mesh: Mesh) -> Any:
  """Returns sample(encoder, frozen, batch, rows) -> a grid of pictures, uint8 (n, 6, r, r, 3).

  Columns are SAMPLE_COLUMNS, n is at most 4, and r at most the size of the frames, also for a 1024
  px model. The grid is on every device.
  """
  hybrid = networks.hybrid

  @functools.partial(jax.jit, out_shardings=parallel.shardings(mesh)[1])
  def sample(E, frozen, batch, rows):
    E = parallel.gather(E, mesh)
    G = frozen['generator']
    S, D, D_other = (from_uint8(batch[role][:4]) for role in ('source', 'driving', 'other'))
    W_S, F_S = hybrid.encode(E, G, S, rows)
    F_D, F_other = hybrid.deformation(E, D), hybrid.deformation(E, D_other)
    decoded = [hybrid.reenact(G, W_S, F) for F in (F_S, F_D, None, F_other)]
    size = min(S.shape[1], decoded[0].shape[1])
    images = [adaptive_avg_pool(x, size) for x in (S, D, *decoded)]
    return to_uint8(jnp.stack(images, axis=1))  # n 6 h w c

  return sample
