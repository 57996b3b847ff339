"""Tables, the division of rows, marks and the report; the long run is in test_jobs_long.py."""

import csv
import dataclasses
import fcntl
import json

import numpy as np
import pytest

from hybrid_jax.errors import InputError
from hybrid_jax.jobs import report, shard, table, work
from hybrid_jax.provenance import sidecar
from hybrid_jax.reenactment import run
from hybrid_jax.reenactment.options import Options

HEADER = 'source,driving,output,options\n'


def write(path, text):
  path.write_text(text)
  return str(path)


def test_a_table_with_bad_rows(tmp_path):
  path = write(
    tmp_path / 'jobs.csv',
    HEADER
    + 'a.png,b.mp4,1.mp4,\n'
    + "a.png,b.mp4,2.mp4,--layout=grid --face='like=my face.png'\n"
    + 'a.png,b.mp4,3.mp4,--layout=both\n'
    + 'a.png,,4.mp4,\n'
    + 'a.png,b.mp4\n'
    + 'a.png,b.mp4,./1.mp4,\n'
    + "a.png,b.mp4,7.mp4,'\n"
    + 'a.png,b.mp4,8.mp4,--workdir=runs\n'
    + 'a.png, b.mp4,9.mp4,\n'
    + 'a.png,b.mp4,10.mp4,,hello\n',
  )
  jobs = table.read(path, '--gain=2 --layout=pasted')
  assert [job.number for job in jobs] == list(range(1, 11))
  first, second = jobs[0].options, jobs[1].options
  assert (first.layout, first.gain, first.output) == ('pasted', 2, '1.mp4')
  assert (second.layout, second.gain, second.face) == ('grid', 2, 'like=my face.png')
  errors = (
    'invalid choice',
    'has no driving',
    'has 2 cells, and the first line 4',
    'also that of row 1',
  )
  errors += ('No closing quotation', '--workdir is an option of the command')
  errors += ("its driving has spaces around it: ' b.mp4'", 'has 5 cells, and the first line 4')
  for job, error in zip(jobs[2:], errors, strict=True):
    assert job.options is None and error in job.error, job


def test_json_lines(tmp_path):
  rows = [
    {'source': 'a.png', 'driving': 'b.mp4', 'output': '1.mp4', 'options': {'gain': 1.5}},
    {'source': 'a.png', 'driving': 'b.mp4', 'output': '2.mp4', 'options': {'quality': True}},
    {'source': 'a.png', 'driving': 'b.mp4', 'output': '3.mp4', 'options': {'audio': False}},
    {'source': 'a.png', 'driving': 'b.mp4', 'output': 'off.mp4', 'options': {'cma': False}},
    {'source': 'a.png', 'driving': 'b.mp4', 'output': 'on.mp4', 'options': {'cma': True}},
    {'source': 'a.png', 'driving': 'b.mp4', 'output': 'no.mp4', 'options': {'fps': None}},
    {'source': 'a.png', 'driving': 3, 'output': '4.mp4'},
    {'source': 'a.png', 'driving': 'b.mp4', 'output': '5.mp4', 'gain': 2},
    {'source': 'a.png', 'driving': 'b.mp4', 'output': '6.mp4', 'options': 3},
    {'source': 'a.png', 'driving': 'b.mp4', 'output': '7.mp4', 'options': {'qualty': False}},
    {'source': 'a.png', 'driving': 'b.mp4', 'output': 'x/../b.mp4'},
  ]
  text = '\n'.join(map(json.dumps, rows)) + '\n{"source": \n[1]\n'
  jobs = table.read(write(tmp_path / 'jobs.jsonl', text))
  assert jobs[0].options.gain == 1.5 and jobs[1].options.quality and not jobs[2].options.audio
  assert [job.options.cma for job in jobs[3:6]] == ['', 'cma', '']
  errors = (
    'has no driving',
    'unknown: gain',
    'text or an object',
    'unrecognized arguments: --no-qualty',
    'also an input of row 1',
    'is not JSON (',
    'is not a JSON object',
  )
  for job, error in zip(jobs[6:], errors, strict=True):
    assert job.options is None and error in job.error, job


@pytest.mark.parametrize(
  'name, text, message',
  [
    ('a.csv', HEADER, 'has no rows'),
    ('a.csv', '', 'its columns must be'),
    ('a.csv', 'source,output\na,b\n', "line is 'source,output'; missing: 'driving'"),
    ('a.csv', 'source;driving;output\na;b;c\n', 'is separated by semicolons: write commas'),
    ('a.csv', 'source\tdriving\toutput\na\tb\tc\n', 'is separated by tabs: write commas'),
    ('a.csv', 'source driving output\na b c\n', 'is separated by spaces: write commas'),
    ('a.csv', 'source,driving,output,note\na,b,c,d\n', "output,note'; unknown: 'note'"),
    ('a.csv', 'Source, driving,output\na,b,c\n', "misspelled .* 'Source', ' driving', missing"),
    ('a.csv', 'source,driving,output,output\na,b,c,d\n', "twice: 'output'"),
    ('a.xlsx', 'x', '.csv or .jsonl'),
  ],
)
def test_no_table(tmp_path, name, text, message):
  with pytest.raises(InputError, match=message):
    table.read(write(tmp_path / name, text))
  with pytest.raises(InputError, match='cannot be read'):
    table.read(str(tmp_path / 'missing.csv'))


def test_shards_cover_every_row_once():
  rows = list(range(23))
  for count in (1, 2, 3, 23, 30):
    parts = [shard.parse(f'{k}/{count}').of(rows) for k in range(count)]
    assert sorted(sum(parts, [])) == rows
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
  for bad in ('3/3', '1', '0/0', '-1/2', 'a/b'):
    with pytest.raises(InputError, match='give i/n'):
      shard.parse(bad)


def test_slurm():
  assert shard.from_slurm({}) is None
  assert shard.from_slurm({'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}) is None  # a batch script
  tasks = {'SLURM_STEP_NUM_TASKS': '4', 'SLURM_PROCID': '3'}
  assert shard.from_slurm(tasks) == shard.Shard(3, 4, 'SLURM')
  array = {f'SLURM_ARRAY_TASK_{k}': v for k, v in (('ID', '14'), ('MIN', '10'), ('COUNT', '3'))}
  array['SLURM_ARRAY_TASK_STEP'] = '2'
  assert shard.from_slurm(array) == shard.Shard(2, 3, 'SLURM')
  assert shard.from_slurm(array | tasks) == shard.Shard(11, 12, 'SLURM')
  with pytest.raises(InputError, match='gaps'):
    shard.from_slurm(array | {'SLURM_ARRAY_TASK_ID': '13'})
  assert shard.choose('1/2', tasks) == shard.Shard(1, 2, '--shard')
  assert shard.choose('', tasks) == shard.Shard(3, 4, 'SLURM')
  assert shard.choose('', {}).of([1, 2, 3]) == [1, 2, 3]


@pytest.fixture(scope='module')
def first(model, inputs, tmp_path_factory):
  """Two good rows, one with a name that HTML must escape, and a bad row, all of them run."""
  tmp_path = tmp_path_factory.mktemp('jobs')
  rows = [(inputs[0], inputs[1], tmp_path / name, '--batch-size=4') for name in ('1.mp4', '<2>')]
  rows.append((tmp_path / 'missing & lost.png', inputs[1], tmp_path / '3.mp4', ''))
  with (tmp_path / 'jobs.csv').open('w', newline='') as file:
    csv.writer(file).writerows([('source', 'driving', 'output', 'options'), *rows])
  jobs, lines = table.read(str(tmp_path / 'jobs.csv')), []
  counts = work.run_rows(jobs, lambda: model, tmp_path / 'report', lines.append)
  assert counts == {'done': 2, 'skipped': 0, 'low quality': 0, 'failed': 1} and len(lines) == 3
  return jobs, tmp_path


@pytest.fixture
def done(first):
  """The same; marks are restored afterwards, with the outputs whose bytes they hold."""
  jobs, folder = first
  files = [*(folder / 'report' / 'rows').glob('*.json'), *folder.glob('1.mp4*')]
  before = {path: path.read_bytes() for path in files}
  yield jobs, folder
  for path, data in before.items():
    path.write_bytes(data)


def test_finished_rows_are_skipped_and_others_run(done, model):
  jobs, folder = done
  again = lambda: work.run_rows(jobs, lambda: model, folder / 'report', lambda line: None)  # noqa: E731
  assert again() == {'done': 0, 'skipped': 2, 'low quality': 0, 'failed': 1}
  (folder / '1.mp4').write_bytes(b'damaged')
  assert again()['done'] == 1 and len((folder / '1.mp4').read_bytes()) > 1000
  work.mark_of(folder / 'report', jobs[0]).write_text('{"sta')  # a mark that a crash left
  assert again()['done'] == 1
  assert again()['skipped'] == 2
  whole = sidecar.digests(folder / '1.mp4')
  mark = work.read_mark(folder / 'report', jobs[0])
  assert mark['sha256'] == whole and work.is_finished(
    jobs[0], mark, work.key(run.check(model, jobs[0].options))
  )


def test_rows_that_move_in_the_table_keep_their_marks(done, model):
  jobs, folder = done
  moved = [dataclasses.replace(job, number=job.number + 1) for job in jobs]
  new = dataclasses.replace(jobs[0].options, output=str(folder / 'new.mp4'))
  first = table.Job(1, new.source, new.driving, new.output, new)
  assert report.write([first, *moved], folder / 'report')['waiting'] == 1
  lines = []
  counts = work.run_rows(moved, lambda: model, folder / 'report', lines.append)
  assert counts == {'done': 0, 'skipped': 2, 'low quality': 0, 'failed': 1}, lines


def test_a_row_with_a_damaged_direction_stops_no_other(done, model, tmp_path):
  jobs, folder = done
  (tmp_path / 'cut.npz').write_bytes(b'PK\x03\x04 cut off')
  options = dataclasses.replace(jobs[0].options, edit='cut=1', directions=str(tmp_path))
  options = dataclasses.replace(options, output=str(tmp_path / 'x.mp4'))
  bad = table.Job(1, options.source, options.driving, options.output, options)
  counts = work.run_rows([bad, *jobs], lambda: model, folder / 'report', lambda line: None)
  assert counts == {'done': 0, 'skipped': 2, 'low quality': 0, 'failed': 2}
  assert 'cut.npz' in work.read_mark(folder / 'report', bad)['error']


def test_low_quality_is_reported_again(model, inputs, tmp_path):
  options = Options(*inputs[:2], str(tmp_path / 'a.mp4'), quality=True, batch_size=4)
  job = table.Job(1, options.source, options.driving, options.output, options)
  again = lambda: work.run_rows([job], lambda: model, tmp_path / 'report', lambda line: None)  # noqa: E731
  assert again()['done'] == 1
  place = work.mark_of(tmp_path / 'report', job)
  place.write_text(json.dumps(work.read_mark(tmp_path / 'report', job) | {'status': 'low quality'}))
  assert again() == {'done': 0, 'skipped': 0, 'low quality': 1, 'failed': 0}
  (tmp_path / 'a.mp4.quality.png').unlink()
  assert again()['done'] == 1


def test_tables_of_a_smallest_identity_must_exist_too(tmp_path):
  output = tmp_path / 'a.mp4'
  options = Options('a.png', 'b.mp4', str(output), min_identity=0.5)
  job = table.Job(1, 'a.png', 'b.mp4', str(output), options)
  for name in ('a.mp4', 'a.mp4.json', 'a.mp4.quality.csv', 'a.mp4.quality.png'):
    (tmp_path / name).write_text(name)
  mark = {'status': 'done', 'key': 'k', 'sha256': sidecar.digests(output)}
  assert work.is_finished(job, mark, 'k')
  (tmp_path / 'a.mp4.quality.csv').unlink()
  assert not work.is_finished(job, mark, 'k')


def test_a_row_of_another_process_is_left_to_it(done, model):
  jobs, folder = done
  with work.mark_of(folder / 'report', jobs[0]).with_suffix('.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    lines = []
    work.run_rows(jobs[:1], lambda: model, folder / 'report', lines.append)
  assert 'another process runs it' in lines[0]


def test_another_direction_under_the_same_name_is_another_job(done, model, tmp_path):
  options = dataclasses.replace(done[0][0].options, edit='age=1', directions=str(tmp_path))
  job, keys = dataclasses.replace(done[0][0], options=options), []
  for value in (0, 1, 0):
    np.save(tmp_path / 'age.npy', np.full(model.config.model.w_dim, value, np.float32))
    keys.append(work.key(run.check(model, job.options)))
  assert keys[0] == keys[2] != keys[1]


def test_nothing_to_do_loads_no_model(done):
  jobs, folder = done

  def load():
    raise AssertionError('loaded')

  assert work.run_rows(jobs[:0], load, folder / 'report', print) == dict.fromkeys(
    ('done', 'skipped', 'low quality', 'failed'), 0
  )
  bad = [table.Job(9, '', '', '', None, 'bad')]
  assert work.run_rows(bad, load, folder / 'report', print)['failed'] == 1


def test_the_report(done):
  jobs, folder = done
  waiting = table.Job(4, 'a', 'b', 'c', jobs[0].options)
  counts = report.write([*jobs, waiting], folder / 'report')
  assert counts == {'done': 2, 'failed': 1, 'waiting': 1}
  rows = list(csv.DictReader((folder / 'report' / 'report.csv').open()))
  assert [row['status'] for row in rows] == ['done', 'done', 'failed', 'waiting']
  assert rows[0]['frames'] == '23' and 'no such file' in rows[2]['error']
  page = (folder / 'report' / 'index.html').read_text()
  assert page.count('src="data:image/jpeg;base64,') == 2
  assert '&lt;2&gt;' in page and '<2>' not in page and 'missing &amp; lost.png' in page
  assert not any(text in page for text in ('http', '<script', '<link', 'url('))


def test_a_bug_stops_one_row(done, model):
  """An error other than InputError fails the row, with a traceback in its log."""
  jobs, folder = done

  class Broken:
    digests = model.digests | {'encoder': 'another'}

    def digest(self):
      return 'another'

  counts = work.run_rows(jobs, Broken, folder / 'report', lambda line: None)
  assert counts['failed'] == 3
  mark = work.read_mark(folder / 'report', jobs[0])
  assert mark['error'].startswith('AttributeError') and '.log' in mark['error']
  assert 'Traceback' in work.mark_of(folder / 'report', jobs[0]).with_suffix('.log').read_text()
  assert np.isfinite(mark['took'])
