"""The work behind the page, without a browser: limits, stages, sessions, previews, renders."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
from small import write_clip

from hybrid_jax import app
from hybrid_jax.errors import InputError
from hybrid_jax.page import examples, temporary
from hybrid_jax.page.limits import Limits, extent
from hybrid_jax.page.session import Sessions
from hybrid_jax.page.stages import Stages, Stopped, left
from hybrid_jax.page.turns import Turns
from hybrid_jax.page.work import Work
from hybrid_jax.world import films


def ignore(fraction, text):
  """Takes the place of a bar."""


@pytest.fixture
def visitor(tmp_path):
  """A visitor of a server."""
  return Sessions(tmp_path)['key']


def test_long_and_large_clips_are_refused(tmp_path):
  times = write_clip(tmp_path / 'a.mkv', 0, frames=23)
  frames, seconds = extent(str(tmp_path / 'a.mkv'))
  assert frames == 23 and seconds == pytest.approx(float(times[-1] - times[0]), abs=0.01)
  Limits().check(str(tmp_path / 'a.mkv'))
  for limits, message in (
    (Limits(seconds=0.5), 'a.mkv: lasts 1.5 s, and this page takes 0.5 s'),
    (Limits(megabytes=0), 'is larger than 0 MB'),
  ):
    with pytest.raises(InputError, match=message):
      limits.check(str(tmp_path / 'a.mkv'))
  (tmp_path / 'b.mp4').write_text('no clip')
  with pytest.raises(InputError, match='b.mp4: '):
    Limits().check(str(tmp_path / 'b.mp4'))


def test_a_stage_shows_how_far_it_is_and_ends_when_stopped():
  shown, stop, closed = [], threading.Event(), []

  def items():
    try:
      yield from range(5)
    finally:
      closed.append(True)

  stages = Stages(lambda fraction, text: shown.append((fraction, text)), stop)
  assert list(stages(items(), 're-enacting', 5)) == list(range(5))
  assert shown[1] == (0.2, 'Drawing: 1 of 5')
  assert shown[-2] == (1.0, 'Drawing: 5 of 5, under a second left')
  done = []
  with pytest.raises(Stopped):
    for item in stages(items(), 'tracking', None):
      done.append(item)
      if item == 2:
        stop.set()
  assert done == [0, 1, 2] and len(closed) == 2


@pytest.mark.parametrize(
  ('seconds', 'words'),
  [(0.2, 'under a second'), (4, 'about 4 s'), (43, 'about 45 s'), (200, 'about 3 min'),
   (9000, 'about 2.5 h')],
)  # fmt: skip
def test_durations_in_words(seconds, words):
  assert left(seconds) == words


def test_a_visitor_leaves_nothing(tmp_path):
  sessions = Sessions(tmp_path)
  folder = sessions['../x'].folder
  (sessions['../x'].result_folder() / 'a').touch()
  assert folder.parent == tmp_path and sessions['../x'].folder == folder
  sessions.close('../x')
  assert not folder.exists()
  sessions.close('never seen')


def test_a_closed_page_takes_no_more_work(tmp_path):
  sessions = Sessions(tmp_path)
  session, closing = sessions['key'], threading.Thread(target=sessions.close, args=['key'])
  with session.working():
    closing.start()
    assert session.closed.wait(60)
    # A late call of the page finds the session that is being closed, whose folder stays until then.
    with pytest.raises(Stopped), sessions['key'].working():
      pass
    assert session.folder.exists()
  closing.join()
  assert not list(tmp_path.iterdir())


def test_jobs_run_one_at_a_time_and_can_be_cancelled_while_they_wait():
  turns, ran, texts = Turns(most=1), [], queue.SimpleQueue()
  go, cancelled = threading.Event(), threading.Event()

  def job(name, *stop):
    stages = Stages(lambda fraction, text: texts.put(text), *stop)
    with contextlib.suppress(Stopped), turns.turn(stages):
      ran.append(name)
      go.wait(60)

  first, second = (threading.Thread(target=job, args=args) for args in (('a',), ('b', cancelled)))
  with turns.turn(Stages(ignore)):
    first.start()
    assert texts.get(timeout=60) == 'Waiting for 1 other job'
    with pytest.raises(InputError, match='1 other jobs are waiting'), turns.turn(Stages(ignore)):
      pass
    assert not ran
  first_began = time.monotonic()
  while not ran and time.monotonic() < first_began + 60:
    time.sleep(0.01)
  second.start()
  assert texts.get(timeout=60) == 'Waiting for 1 other job'
  cancelled.set()
  second.join(60)
  assert ran == ['a'] and not second.is_alive()
  go.set()
  first.join(60)


def test_a_terminated_server_removes_what_it_and_killed_ones_left(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  for name in ('hybrid_jax_page_killed', 'other'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'lock').touch()
  code = (
    'import threading; from hybrid_jax import app; from hybrid_jax.page import temporary; '
    'app.end_by_signals(); page = temporary.folder(); '
    'page.__enter__(); print("open", flush=True); '
    'exec("try: threading.Event().wait()\\nfinally: page.__exit__(None, None, None)")'
  )
  environ = {**os.environ, 'TMPDIR': str(tmp_path)}
  with subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ
  ) as process:
    assert process.stdout.readline() == b'open\n'
    # The folder of a server that runs stays.
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 2 and 'hybrid_jax_page_killed' not in names
    with temporary.folder() as folder:
      assert len(list(tmp_path.iterdir())) == 3 and folder.parent == tmp_path
    process.send_signal(signal.SIGTERM)
    assert process.wait(60)
  assert [path.name for path in tmp_path.iterdir()] == ['other']


def test_previews_and_a_result(model, inputs, visitor):
  work = Work(model)
  head = work.preview_source(visitor, inputs[0], 'largest', ignore)
  heads = work.preview_driving(visitor, inputs[1], 'largest', ignore)
  assert head.picture.shape[0] >= 192 and heads.picture.shape[1] > 5 * head.picture.shape[1]
  assert 'frames in' in heads.line and inputs[1] not in heads.line
  texts = []
  result = work.reenact(
    visitor, lambda fraction, text: texts.append(text), source=inputs[0], driving=inputs[1],
    layout='side-by-side',
  )  # fmt: skip
  # The clip was tracked for the preview, and is not tracked again.
  assert not any('Finding the head' in text for text in texts)
  assert any(text.startswith('Drawing: 23 of 23') for text in texts)
  assert result.record['record']['source']['name'] == 'portrait.png'
  assert result.lines[0].startswith('reenacted.mp4: 23 frames of ')
  assert work.edits == ()  # those of the bundled model fit no other
  work.preview_driving(visitor, inputs[1], 'left', ignore)


def test_a_cancelled_render_stops_and_leaves_nothing(model, inputs, visitor):
  drawn = []

  def cancel(fraction, text):
    if text.startswith('Drawing: '):
      drawn.append(text)
      visitor.cancelled.set()

  with pytest.raises(Stopped):
    Work(model).reenact(visitor, cancel, source=inputs[0], driving=inputs[1])
  assert len(drawn) == 1 and not (visitor.folder / 'result').exists()


def test_missing_inputs_are_one_line(model, inputs, visitor):
  with pytest.raises(InputError, match='give a driving clip first'):
    Work(model).reenact(visitor, ignore, source=inputs[0], driving=None)


def test_examples_are_drawn_once(tmp_path, monkeypatch):
  drawn = []
  monkeypatch.setattr(
    examples.environment, 'cache_folder', lambda *parts: tmp_path.joinpath(*parts)
  )

  def write_world(out, *, progress, **world):
    drawn.append(world)
    if len(drawn) == 1:
      stop.set()
    for name in ('portraits/a.png', 'driving/a.mp4'):
      (out / name).parent.mkdir()
      (out / name).touch()
    progress('', films.frames_of_world(**{k: v for k, v in world.items() if k != 'size'}))

  monkeypatch.setattr(films, 'write_world', write_world)
  stop = threading.Event()
  with pytest.raises(Stopped):
    examples.draw(Stages(ignore, stop))
  assert not examples.found()
  for _ in range(2):
    found = examples.draw(Stages(ignore, threading.Event()))
    assert [path.endswith('a.png') for path in found.portraits] == [True] and len(found.clips) == 1
  assert len(drawn) == 2  # the first was stopped


def test_the_time_of_cma_is_estimated(model):
  assert np.isfinite(Work(model).cma_seconds) and Work(model).cma_seconds > 0


def test_a_missing_gradio_is_one_line(monkeypatch):
  monkeypatch.setitem(sys.modules, 'gradio', None)
  monkeypatch.setattr('hybrid_jax.reenactment.model.load_model', lambda workdir: None)
  with pytest.raises(InputError, match='needs Gradio'), app.opened(app.parse_args([])):
    pass
