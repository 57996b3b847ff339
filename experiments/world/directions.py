"""Fits and measures the edits of the rendered world: directions in W+ of the shipped model.

  python -m experiments.world.directions WORKDIR --frames=FRAMES --output=experiments/results

Every person is rendered with a trait low and high, all else equal, so that both the wanted change
and everything that should stay are known. Three fits are compared by their error against the true
pictures on unseen people: the mean difference of the encoder's w_id, that of the mapping network's
w, and the former refined through the generator. The best becomes the bundled edits_64.npz.

Writes edits.json and edits.png: the readings of the wanted trait and of all others by a judge that
is in no fit (traits.py), on people of the test split, both without motion (the source's own) and
with another person's. WORKDIR keeps the judge and the rendered frames.
"""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from experiments import script
from experiments.world import limits, traits
from hybrid_jax.evaluation import rendered
from hybrid_jax.evaluation.judges import TRUSTED_MOTION
from hybrid_jax.media import composite, replacing, stills
from hybrid_jax.models.ops import from_uint8
from hybrid_jax.reenactment import edits, model
from hybrid_jax.weights import shipped
from hybrid_jax.world import clips, people
from hybrid_jax.world.parameters import IDENTITY, MOTION

# What counts as low and as high, in physical units (see `hybrid_jax.world.parameters`); strength is
# the difference. Glasses are present or absent, whatever the number.
TRAITS = {
  'glasses': ((0, 0), (1, 1)),
  'beard': ((0, 0.2), (0.4, 0.7)),
  'age': ((0, 0.3), (0.6, 1)),
  'skin': ((0, 0.4), (0.5, 1)),
  'hair_dark': ((0, 0.4), (0.5, 1)),
  'hair_length': ((0, 0.2), (0.4, 1)),
}  # fmt: skip
SPLITS = {'train': 320, 'validation': 64, 'test': 120}  # people of each trait
FRAMES = 3  # moments of the driver, of the test people
STEPS, BATCH, RATE = 240, 16, 0.01  # of the refinement
SHOWN = 3  # people of each trait on the sheet
assert tuple(TRAITS) == edits.NAMES


def with_trait(identity: np.ndarray, name: str, value: float) -> np.ndarray:
  """Returns the person with a trait of this physical value; 0 of a rare one is its absence."""
  low, high = IDENTITY[name]
  changed = np.array(identity)
  absent = low < 0 and value == 0
  changed[list(IDENTITY).index(name)] = 0.3 if absent else (value - low) / (high - low)
  return changed


def render(split: str, name: str, frames: int) -> dict[str, np.ndarray]:
  """Renders n people with a trait low and high; which of both is the source is random.

  Returns:
    'strength' (n,) from source to answer. 'still' (n, 2, 64, 64, 3): source and answer with the
    person's own motion. 'moved' (n, t, 2, ...): both with the motion of 'driving' (n, t, ...),
    which is another person's.
  """
  draw = clips.Renderer(rendered.SIZE)
  rng = np.random.default_rng([list(TRAITS).index(name), list(SPLITS).index(split)])
  count, first = SPLITS[split], people.SPLITS[split]
  numbers = first + 10_000 + rng.choice(100_000, 2 * count, replace=False)
  rows = []
  for k in tqdm(range(count), desc=f'{split} {name}', leave=False, mininterval=5):
    times = rng.uniform(0, people.CLIP_SECONDS, frames + 1).astype(np.float32)
    identity, motion, scene = clips.vectors(int(numbers[k]), 0, times)
    other, moves, other_scene = clips.vectors(int(numbers[count + k]), 0, times)
    values = [rng.uniform(*ends) for ends in TRAITS[name]]
    # Edits must work in both directions, so either end is the source.
    values = values[:: 1 if rng.random() < 0.5 else -1]
    pair = [with_trait(identity, name, value) for value in values]
    rows.append(
      {
        'strength': np.float32(values[1] - values[0]),
        'still': np.stack([draw(i, motion[0], scene)[0] for i in pair]),
        'moved': np.stack([[draw(i, m, scene)[0] for i in pair] for m in moves[1:]]),
        'driving': np.stack([draw(other, m, other_scene)[0] for m in moves[1:]]),
      }
    )
  return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def rendered_pairs(folder: pathlib.Path, split: str, name: str) -> dict[str, np.ndarray]:
  """Returns the pairs of `render`, which `folder` keeps."""
  path = folder / f'edits-{split}-{name}.npz'
  if not path.is_file():
    data = render(split, name, FRAMES if split == 'test' else 1)
    with replacing(path) as part, open(part, 'wb') as file:
      np.savez(file, **data)
  with np.load(path) as file:
    return {key: file[key] for key in file.files}


class Machine:
  """The bundled model in batches: frames are uint8, latents and images float32.

  W is the identity latent (n, l, d) of frames, F the deformation latent (n, d') of frames, `draw`
  the images of both.
  """

  def __init__(self):
    self.model = model.load_model('')
    self.hybrid, self.E, self.G = self.model.networks.hybrid, self.model.E, self.model.G
    widths = np.cumsum(self.model.widths)[:-1]
    hybrid, E, G = self.hybrid, self.E, self.G
    self.W = self._batched(lambda x: hybrid.identity(E, G, from_uint8(x)))
    self.F = self._batched(lambda x: jnp.concatenate(hybrid.deformation(E, from_uint8(x)), -1))
    self.split = lambda F: tuple(jnp.split(F, widths, axis=-1))
    self.draw = self._batched(lambda W, F: hybrid.reenact(G, W, self.split(F)))

  def _batched(self, function):
    run = jax.jit(function)
    return lambda *x: rendered.in_batches(run, *x)


def mapped(name: str) -> np.ndarray:
  """Returns (1, d): the mean difference of the mapping network's w per unit of strength."""
  frozen, rng, count = shipped.generator(), np.random.default_rng(0), 1000
  identity, motion, scene = jax.vmap(people.moment, (0, None))(jnp.arange(count), 0)
  values = np.stack([rng.uniform(*ends, count) for ends in TRAITS[name]])
  low, high = (
    limits.true_w(
      frozen,
      np.stack([with_trait(i, name, v) for i, v in zip(identity, value, strict=True)]),
      motion,
      scene,
    )
    for value in values
  )
  strength = values[1] - values[0]
  return np.asarray((strength @ (high - low) / (strength @ strength))[None])


def refine(machine: Machine, data: dict, W: np.ndarray, start: np.ndarray) -> np.ndarray:
  """Returns the direction (l, d) whose change of the picture is nearest to the true change."""
  strength, F = data['strength'], machine.F(data['moved'][:, 0, 0])
  # Changes are compared and not pictures: the model's own errors are in both and cancel.
  plain = machine.draw(W, F)
  truth = from_uint8(data['moved'][:, 0].astype(np.float32))
  wanted = np.asarray(plain + truth[:, 1] - truth[:, 0])
  lpips, critic = machine.model.networks.lpips, shipped.load('perceptual')
  hybrid, G = machine.hybrid, machine.G

  def loss(V, W, F, a, wanted):
    edited = hybrid.reenact(G, W + a[:, None, None] * V, machine.split(F))
    near = jnp.square(edited - wanted).mean()
    return near + 0.25 * lpips.apply(critic, edited, jnp.clip(wanted, -1, 1)).mean()

  optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS, 0.02))

  @jax.jit
  def step(V, opt, *batch):
    updates, opt = optimizer.update(jax.grad(loss)(V, *batch), opt)
    return optax.apply_updates(V, updates), opt

  V, rng = jnp.asarray(start), np.random.default_rng(0)
  opt = optimizer.init(V)
  for _ in tqdm(range(STEPS), desc='refining', leave=False, mininterval=10):
    rows = rng.choice(len(W), BATCH, replace=False)
    V, opt = step(V, opt, W[rows], F[rows], strength[rows], wanted[rows])
  return np.asarray(V)


def nearness(machine: Machine, data: dict, V: np.ndarray) -> float:
  """Returns the error of the edited pictures' change: 0 for the true change, 1 for none."""
  W, F = machine.W(data['still'][:, 0]), machine.F(data['moved'][:, 0, 0])
  plain = machine.draw(W, F)
  change = machine.draw(W + data['strength'][:, None, None] * V, F) - plain
  truth = from_uint8(data['moved'][:, 0].astype(np.float32))
  truth = np.asarray(truth[:, 1] - truth[:, 0])
  return float(np.square(change - truth).sum() / np.square(truth).sum())


def fit(machine: Machine, folder: pathlib.Path, name: str) -> tuple[np.ndarray, dict]:
  """Returns the best direction (l, d) on the validation people, and the error of each fit."""
  data, unseen = (rendered_pairs(folder, split, name) for split in ('train', 'validation'))
  strength = data['strength']
  before, after = (machine.W(data['still'][:, k]) for k in (0, 1))
  difference = np.einsum('n,nld->ld', strength, after - before) / (strength @ strength)
  found = {
    'encoder_difference': difference,
    'mapping_difference': np.repeat(mapped(name), len(difference), 0),
    'refined': refine(machine, data, before, difference),
  }
  errors = {kind: nearness(machine, unseen, V) for kind, V in found.items()}
  best = min(errors, key=errors.get)
  print(f'{name}: ' + ', '.join(f'{kind} {error:.3f}' for kind, error in errors.items()))
  return found[best], {'error_on_validation': errors, 'shipped': best}


def readings(
  judge: traits.TraitJudge, judges: rendered.Judges, pictures: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns 'traits' (n, 76), 'motion' (n, 16) and 'embedding' of images in [-1, 1]."""
  pictures = np.clip(pictures, -1, 1)
  return {
    'traits': judge(pictures),
    'motion': judges.read(pictures),
    'embedding': judges.embed(pictures),
  }


def change(
  name: str,
  judge: traits.TraitJudge,
  before: dict,
  after: dict,
  strength: np.ndarray,
  person: np.ndarray,
) -> dict:
  """Returns the change of the readings: the wanted trait by strength, all others by deviation."""
  k = traits.NAMES.index(name)
  moved = (after['traits'] - before['traits']) / judge.spread
  summary = lambda x: script.interval(x, person)  # noqa: E731
  trusted = [traits.NAMES.index(n) for n in judge.trusted if n not in (name, *MOTION)]
  own = [i for i in trusted if traits.NAMES[i] in IDENTITY]
  scene = [i for i in trusted if i not in own]
  motion = np.abs(after['motion'] - before['motion']) / rendered.spread()
  motion = motion[:, [list(MOTION).index(n) for n in TRUSTED_MOTION]]
  leaks = {traits.NAMES[i]: float(np.abs(moved[:, i]).mean()) for i in own}
  return {
    'effect': summary((after['traits'] - before['traits'])[:, k] / strength),
    'effect_spread': summary(np.abs(moved[:, k])),
    'leak_traits': summary(np.abs(moved[:, own]).mean(1)),
    'leak_scene': summary(np.abs(moved[:, scene]).mean(1)),
    'leak_motion': summary(motion.mean(1)),
    'worst_leaks': dict(sorted(leaks.items(), key=lambda x: -x[1])[:3]),
    'identity_cosine': summary((after['embedding'] * before['embedding']).sum(-1)),
  }


def measure(machine: Machine, data: dict, name: str, V: np.ndarray, judge, judges) -> dict:
  """Returns the change by an edit on test people, and by the true answers, for both motions."""
  strength, result = data['strength'], {}
  W = machine.W(data['still'][:, 0])
  n, t = data['moved'].shape[:2]
  fold = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
  for kind in ('without_motion', 'with_motion'):
    if kind == 'without_motion':
      person, truth = np.arange(n), data['still']
      F = machine.F(truth[:, 0])
    else:
      person, truth = np.arange(n).repeat(t), fold(data['moved'])
      F = machine.F(fold(data['driving']))
    a, w = strength[person], W[person]
    plain, edited = machine.draw(w, F), machine.draw(w + a[:, None, None] * V, F)
    truth = np.asarray(from_uint8(truth.astype(np.float32)))
    read = [readings(judge, judges, x) for x in (plain, edited, truth[:, 0], truth[:, 1])]
    l1 = lambda x, y: float(np.abs(np.clip(x, -1, 1) - y).mean() * 127.5)  # noqa: E731
    result[kind] = {
      'edit': change(name, judge, *read[:2], a, person),
      'truth': change(name, judge, *read[2:], a, person),
      'grey_levels_from_the_true_answer': {
        'edited': l1(edited, truth[:, 1]),
        'not_edited': l1(plain, truth[:, 1]),
        'the_model_alone': l1(plain, truth[:, 0]),
      },
    }
    if kind == 'with_motion':
      k = traits.NAMES.index(name)
      effect = (read[1]['traits'] - read[0]['traits'])[:, k] / a
      result[kind]['effect_deviation_over_frames'] = float(effect.reshape(n, t).std(1).mean())
  return result


def sheet(machine: Machine, tests: dict[str, dict], directions: dict) -> np.ndarray:
  """Returns a sheet, for each trait rows of people in the columns listed below."""
  rows, names = [], []
  for name, data in tests.items():
    chosen = np.flatnonzero(data['strength'] > 0)[: SHOWN - 1].tolist()
    chosen += np.flatnonzero(data['strength'] < 0)[:1].tolist()
    W, F = machine.W(data['still'][chosen, 0]), machine.F(data['driving'][chosen, 0])
    own, a = machine.F(data['still'][chosen, 0]), data['strength'][chosen, None, None]
    drawn = [
      np.round(np.clip(x * 127.5 + 127.5, 0, 255)).astype(np.uint8)
      for x in (
        machine.draw(W + a * directions[name], own),
        machine.draw(W, F),
        machine.draw(W + a * directions[name], F),
      )
    ]
    for k, row in enumerate(chosen):
      seen = data['still'][row, 0], drawn[0][k], data['still'][row, 1], data['driving'][row, 0]
      rows.append([*seen, drawn[1][k], drawn[2][k], data['moved'][row, 0, 1]])
      names.append(f'{name}\n{data["strength"][row]:+.2f}')
  columns = ['source', 'edited', 'true', 'driver', 'moved', 'moved, edited', 'true']
  return composite.labelled(rows, names, columns, 96)


def fit_all(machine: Machine, folder: pathlib.Path) -> dict[str, dict]:
  """Fits a direction for each trait and writes the bundled file; returns the errors of the fits."""
  directions, fits = {}, {}
  for name in TRAITS:
    directions[name], fits[name] = fit(machine, folder, name)
  path = shipped.FOLDER / 'edits_64.npz'
  with replacing(path) as part:
    shipped.save(part, directions)
  print(f'{path.name}: {path.stat().st_size / 1e3:.0f} kB')
  return fits


def measure_all(
  machine: Machine, tests: dict[str, dict], directions: dict, judge: traits.TraitJudge, fits: dict
) -> dict[str, dict]:
  """Measures and prints every trait; returns the entries of the result."""
  judges, rows = rendered.Judges(), {}
  for name in TRAITS:
    row = measure(machine, tests[name], name, np.asarray(directions[name]), judge, judges)
    rows[name] = {'fit': fits[name], 'judge_r2': judge.r2[name], **row}
    for kind in ('without_motion', 'with_motion'):
      edit, truth = row[kind]['edit'], row[kind]['truth']
      figures = ', '.join(
        f'{key} {edit[key]["mean"]:.3f} (true {truth[key]["mean"]:.3f})'
        for key in ('effect', 'leak_traits', 'leak_motion', 'identity_cosine')
      )
      print(f'{name} {kind}: {figures}')
  return rows


def parse_args() -> argparse.Namespace:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('workdir', type=pathlib.Path, help='folder of the judge and of rendered pairs')
  add('--frames', help="folder of the judge's shards (WORKDIR/frames)")
  add('--output', type=pathlib.Path, required=True, help='folder of the results')
  add('--fitted', action='store_true', help='only measure the bundled directions again')
  return parser.parse_args()


def main() -> None:
  args = parse_args()
  record = script.record()
  args.workdir.mkdir(parents=True, exist_ok=True)
  machine, output = Machine(), args.output / 'edits.json'
  if args.fitted:
    known = json.loads(output.read_text())
    fits = {name: row['fit'] for name, row in known['traits'].items()}
    fitted = known['fitted']
  else:
    fits, fitted = fit_all(machine, args.workdir), record
  # Of the file and not of the fit: float16 rounds them.
  directions = shipped.load('edits_64')
  judge = traits.TraitJudge(args.workdir, args.frames or str(args.workdir / 'frames'))
  tests = {name: rendered_pairs(args.workdir, 'test', name) for name in TRAITS}
  result = {
    'what': 'effect: change of the reading a unit of strength; leaks: mean |change| in deviations',
    'traits': measure_all(machine, tests, directions, judge, fits),
    'people': SPLITS,
    'driving_frames': FRAMES,
    'trusted': {
      'traits': [n for n in judge.trusted if n not in MOTION],
      'motion': list(TRUSTED_MOTION),
    },
    'fitted': fitted,
    'measured': record,
  }
  script.write_json(output, result)
  stills.write_image(args.output / 'edits.png', sheet(machine, tests, directions))


if __name__ == '__main__':
  main()
