"""The evaluation command: known answers through files, and folders in which something is wrong."""

import base64
import hashlib
import html.parser
import json
import pathlib
import re
import sys
import xml.etree.ElementTree

import numpy as np
import pytest
from evaluating import SIZE, clips, write_clip
from parity import GOLDEN

from hybrid_jax import evaluate
from hybrid_jax.evaluation import measure, report, results
from hybrid_jax.evaluation.pairing import Pair
from hybrid_jax.media import sequences


@pytest.fixture
def folders(tmp_path):
  """Four references as videos, and a folder for what is generated."""
  for name in ('reference', 'generated'):
    (tmp_path / name).mkdir()
  references = list(clips(0, 4))
  for name, clip in zip('abcd', references, strict=True):
    write_clip(tmp_path / 'reference' / f'{name}.mp4', clip)
  return tmp_path, references


def command(monkeypatch, capsys, folder, *options):
  """Runs it: the result, what was printed, what was complained about."""
  arguments = [f'--{name}={folder / name}' for name in ('reference', 'generated')]
  arguments += [f'--output={folder / "out"}', f'--size={SIZE}', '--batch-size=4', *options]
  monkeypatch.setattr(sys, 'argv', ['evaluate', *arguments])
  code = ''
  try:
    evaluate.main()
  except SystemExit as end:
    code = str(end)
  path = folder / 'out' / 'result.json'
  return json.loads(path.read_text()) if path.exists() else None, capsys.readouterr().out, code


def test_equal_clips(folders, monkeypatch, capsys):
  folder, references = folders
  for name, clip in zip('ab', references, strict=False):
    np.save(folder / 'generated' / f'{name}.npy', clip)
  options = [f'--i3d={GOLDEN / "i3d_reduced.pt"}', '--rendered', '--clip-length=9']
  result, said, code = command(monkeypatch, capsys, folder, *options)
  assert not code and len(result['problems']) == 1
  found = result['metrics']
  assert found['l1']['mean'] == found['l1']['high'] == 0
  assert found['psnr'] == {'mean': None, 'note': results.INFINITE, 'clips': 2}
  assert found['ssim']['mean'] == pytest.approx(1, abs=1e-6)
  assert found['identity_similarity_judge']['mean'] == pytest.approx(1, abs=1e-6)
  for name in ('fvd', 'fid_judge', 'fvd_judge', 'mouth_fvd_judge'):
    assert found[name]['mean'] == pytest.approx(0, abs=1e-6), name
  assert found['fvd']['samples'] == 4 and 'biased: 4 samples' in found['fvd']['note']
  assert result['clips'][0]['psnr'] is None and 'infinite' in result['clips'][0]['notes'][0]
  for name in ('fid', 'lpips', 'identity_loss', 'mouth_fvd', 'au_correlation'):
    assert name in result['not_available'] and name not in found
  how = result['protocol']
  assert how['frames'] == 40 and how['resolution'] == SIZE and how['clip_length'] == 9
  assert how['weights']['i3d']['file'] == 'i3d_reduced.pt'
  assert len(how['weights']['i3d']['sha256']) == 64
  assert set(how['data']['generated']) == {'a.npy', 'b.npy'}
  assert 'infinite' in said and 'not available' in said


@pytest.mark.slow
def test_every_network_finds_equal_clips_equal(folders, shared, monkeypatch, capsys):
  folder, references = folders
  for name, clip in zip('ab', references, strict=False):
    np.save(folder / 'generated' / f'{name}.npy', clip)
  files = {
    'inception': shared('reference/fid_inception_reduced.pt'),
    'arcface': GOLDEN / 'arcface_reduced.pt',
    'lpips': GOLDEN / 'lpips_alex_reduced.pt',
  }
  options = [f'--{name}={path}' for name, path in files.items()]
  result, _, code = command(monkeypatch, capsys, folder, *options, '--frames=8', '--size=64')
  assert not code
  wanted = {'fid': 0, 'lpips': 0, 'identity_loss': 0, 'identity_similarity': 1}
  for name, value in wanted.items():
    assert result['metrics'][name]['mean'] == pytest.approx(value, abs=1e-6), name
  assert result['metrics']['fid']['samples'] == 16


def test_known_noise_has_its_analytic_psnr(folders, monkeypatch, capsys):
  folder, references = folders
  rng = np.random.default_rng(1)
  for name, clip in zip('abcd', references, strict=True):
    noise = rng.choice([-6, 6], clip.shape)
    np.save(folder / 'generated' / f'{name}.npy', (clip + noise).astype(np.uint8))
  result, _, code = command(monkeypatch, capsys, folder)
  assert not code
  found = result['metrics']
  assert found['psnr']['mean'] == pytest.approx(20 * np.log10(255 / 6), abs=1e-3)
  assert found['l1']['mean'] == pytest.approx(6, abs=1e-4)
  assert found['l1']['deviation'] == pytest.approx(0, abs=1e-4)
  assert found['l1']['low'] <= found['l1']['mean'] <= found['l1']['high']
  rows = (folder / 'out' / 'clips.csv').read_text().splitlines()
  assert rows[0] == 'clip,frames,l1,psnr,ssim' and len(rows) == 5
  frames = (folder / 'out' / 'frames.csv').read_text().splitlines()
  assert len(frames) == 81 and frames[2].startswith('a,0.040000,6,')


def test_what_cannot_be_compared_is_told_and_the_rest_evaluated(folders, monkeypatch, capsys):
  folder, references = folders
  made = folder / 'generated'
  write_clip(made / 'a.mp4', references[0][:14])
  (made / 'b.mp4').write_bytes((folder / 'reference' / 'b.mp4').read_bytes()[:-3000])
  broken = references[2].astype(np.float32) / 255
  broken[5, 0, 0, 0] = np.nan
  np.save(made / 'c.npy', broken)
  write_clip(made / 'stray.mp4', references[0])
  result, said, code = command(monkeypatch, capsys, folder)
  assert not code
  problems = result['problems']
  assert len(problems) == 5 and all('\n' not in line for line in problems)
  for words in (
    r'generated: stray has no counterpart in .*reference',
    r'reference: d has no counterpart in .*generated',
    r'a\.mp4: ends before its reference: 14 frames compared',
    r'b is left out: .*b\.mp4: ',
    r'c\.npy: 1 frames are not finite',
  ):
    assert any(re.search(words, line) for line in problems), words
  assert [clip['name'] for clip in result['clips']] == ['a', 'c']
  assert [clip['frames'] for clip in result['clips']] == [14, 19]
  assert set(result['protocol']['data']['reference']) == {'a.mp4', 'c.mp4'}
  assert all(line in said for line in problems)


def test_across_identities_pixels_are_not_compared(folders, monkeypatch, capsys):
  folder, references = folders
  (folder / 'source').mkdir()
  np.save(folder / 'source' / 'x.npy', references[3][:1])
  for name in 'ab':
    write_clip(folder / 'generated' / f'x_as_{name}.mp4', references[3])
  options = [f'--source={folder / "source"}', '--rendered']
  result, _, code = command(monkeypatch, capsys, folder, *options)
  assert not code
  assert not {'l1', 'psnr', 'ssim'} & set(result['metrics'])
  assert 'no ground truth' in result['not_available']['l1']
  first = (folder / 'out' / 'frames.csv').read_text().splitlines()[1].split(',')
  assert float(first[2]) == pytest.approx(1, abs=1e-5)  # the source itself
  result, _, _ = command(monkeypatch, capsys, folder, *options, '--reference-is=answer')
  assert 'l1' in result['metrics']


def test_openface_files_are_correlated(folders, monkeypatch, capsys):
  folder, references = folders
  columns = 'frame, timestamp, confidence, success, gaze_angle_x, pose_Rx, AU01_r, AU02_r'
  signal = np.sin(np.arange(20))
  for side, lag in (('reference', 0), ('generated', 1)):
    (folder / f'{side}_csv').mkdir()
    moved = np.sin(np.arange(20) - lag)
    rows = [
      f'{k + 1}, {k / 25}, 0.9, {int(k != 4)}, {signal[k]}, {moved[k]}, {moved[k] + 1}, 0.5'
      for k in range(20)
    ]
    (folder / f'{side}_csv' / 'a.csv').write_text('\n'.join([columns, *rows]))
  write_clip(folder / 'generated' / 'a.mp4', references[0])
  options = ['--openface', str(folder / 'reference_csv'), str(folder / 'generated_csv')]
  result, _, code = command(monkeypatch, capsys, folder, *options)
  assert not code
  kept = np.arange(20) != 4
  lagged = np.corrcoef(signal[kept], np.sin(np.arange(20) - 1)[kept])[0, 1]
  found = result['metrics']
  assert found['au_correlation']['mean'] == pytest.approx(lagged)  # AU02 is constant
  assert found['pose_correlation']['mean'] == pytest.approx(lagged)
  assert found['gaze_correlation']['mean'] == pytest.approx(1)
  assert result['channels']['au_correlation'] == {
    'AU01_r': {'mean': pytest.approx(lagged), 'clips': 1}
  }
  data = result['protocol']['data']
  for side in ('reference', 'generated'):
    csv = folder / f'{side}_csv' / 'a.csv'
    assert data[f'openface_of_{side}'] == {'a.csv': hashlib.sha256(csv.read_bytes()).hexdigest()}
  write_clip(folder / 'generated' / 'b.mp4', references[1])
  for side in ('reference', 'generated'):
    (folder / f'{side}_csv' / 'c.csv').write_text('nothing of OpenFace\n')
  write_clip(folder / 'generated' / 'c.mp4', references[2])
  result, _, _ = command(monkeypatch, capsys, folder, *options)
  assert result['metrics']['au_correlation'] == found['au_correlation']
  assert [clip['name'] for clip in result['clips']] == ['a', 'b', 'c']
  told = [line for line in result['problems'] if 'no action units' in line]
  assert 'b: no action units: no b.csv of the reference clip' in told
  assert len(told) == 2 and re.search(r'c: no action units: .*c\.csv: no column', told[1])


def test_a_clip_beside_a_foreign_file_of_motion_is_measured(folders, monkeypatch, capsys):
  folder, references = folders
  write_clip(folder / 'generated' / 'a.mp4', references[0])
  (folder / 'reference' / 'a.npz').write_bytes(b'no zip')
  result, _, code = command(monkeypatch, capsys, folder, '--rendered')
  assert not code and result['metrics']['l1']['mean'] == 0
  assert any(re.match(r'a: no true motion: .*a\.npz: ', line) for line in result['problems'])
  assert 'NAME.npz' in result['not_available']['pose_correlation_truth']
  assert 'give --face-detector' in result['not_available']['pose_correlation_mediapipe']


def test_two_names_are_no_true_answer(folders, monkeypatch, capsys):
  folder, references = folders
  write_clip(folder / 'generated' / 'b_as_a.mp4', references[0])
  result, _, code = command(monkeypatch, capsys, folder)
  assert result is None and 'a.mp4 drives another person; give --source' in code
  result, _, code = command(monkeypatch, capsys, folder, '--reference-is=answer')
  assert not code and result['metrics']['l1']['mean'] == 0


def test_a_folder_that_cannot_be_read_is_named(folders, monkeypatch, capsys):
  folder, references = folders
  write_clip(folder / 'generated' / 'a.mp4', references[0])
  find = sequences.find

  def refuse(path, **options):
    if pathlib.Path(path).name == 'reference':
      raise PermissionError(13, 'Permission denied', str(path))
    return find(path, **options)

  monkeypatch.setattr(sequences, 'find', refuse)  # a test may run as root, who can read all
  _, _, code = command(monkeypatch, capsys, folder)
  assert code == f'error: {folder / "reference"}: cannot be used (Permission denied)'
  monkeypatch.undo()
  (folder / 'out').write_text('a file')
  monkeypatch.chdir(folder)
  _, _, code = command(monkeypatch, capsys, folder)
  assert re.fullmatch(r'error: .*out: cannot be written \(.*\)', code)


def test_report_without_metrics_of_frames(folders, monkeypatch, capsys):
  """Ranked by a correlation, or by nothing, there are still pictures."""
  folder, references = folders
  for name, clip in zip('abcd', references, strict=True):
    write_clip(folder / 'generated' / f'{name}.mp4', clip)
  result, _, code = command(monkeypatch, capsys, folder, '--reference-is=driver')
  assert not code and not result['metrics']
  page = (folder / 'out' / 'report.html').read_text()
  assert page.count('data:image/webp;base64,') == 4 and 'First: a' in page
  assert 'from its first frame on' in page and 'Over time' not in page
  path, none = folder / 'reference' / 'a.mp4', np.zeros(0)
  clips = [
    measure.Measured(Pair(name, path, path, None), 1, {'au_correlation': value}, none, {}, [])
    for name, value in (('a', 0.5), ('b', 0.25))
  ]
  result['metrics']['au_correlation'] = results.summary(clips, 'au_correlation')
  page = report.page(result, clips)
  assert 'Worst: b, action units 0.25' in page and page.count('data:image/webp') == 2


def test_infinity_is_said_in_the_table_of_clips(folders, monkeypatch, capsys):
  folder, references = folders
  write_clip(folder / 'generated' / 'a.mp4', references[0])
  command(monkeypatch, capsys, folder)
  assert '<td>infinite</td>' in (folder / 'out' / 'report.html').read_text()


def test_report_stands_alone(folders, monkeypatch, capsys):
  folder, references = folders
  for name, clip in zip('abcd', references, strict=True):
    write_clip(folder / 'generated' / f'{name}.mp4', np.roll(clip, ord(name), 2))
  # A name that is markup must arrive as text.
  (folder / 'reference' / 'a.mp4').rename(folder / 'reference' / 'a<b>&.mp4')
  (folder / 'generated' / 'a.mp4').rename(folder / 'generated' / 'a<b>&.mp4')
  command(monkeypatch, capsys, folder)
  page = (folder / 'out' / 'report.html').read_text()
  assert '<script' not in page and not re.search(r'(src|href)="(?!data:)', page)
  assert 'a&lt;b&gt;&amp;' in page and 'a<b>' not in page
  assert page.count('data:image/webp;base64,') == 4
  drawings = re.findall('src="data:image/svg.xml;base64,(.*?)"', page)
  assert len(drawings) == 3 + 4
  for k, drawing in enumerate(base64.b64decode(drawing).decode() for drawing in drawings):
    texts = [*xml.etree.ElementTree.fromstring(drawing).itertext()]
    assert 'nan' not in texts
    if k >= 3:
      assert {'L1', 'PSNR', 'SSIM'} <= {*texts}
  parser, stack = html.parser.HTMLParser(), []
  single = {'meta', 'img'}
  parser.handle_starttag = lambda tag, _: tag in single or stack.append(tag)
  parser.handle_startendtag = lambda *_: None
  parser.handle_endtag = lambda tag: stack.pop() == tag or pytest.fail(tag)
  parser.feed(page)
  assert not stack


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    (['--clip-length=4'], 'I3D takes 9 frames'),
    (['--size=4'], '--size=4: at least 11'),
    ([f'--inception={GOLDEN / "i3d_reduced.pt"}'], 'which hold i3d and no inception'),
    (['--openface', 'nowhere', 'nowhere'], 'not a folder of OpenFace'),
    (['--face-detector=nowhere.task'], 'no such file'),
    (['--source=nowhere'], 'no such folder'),
    ([], 'no videos'),
    (['--face-detector=fake.task'], 'fake.task: is not a FaceLandmarker model'),
  ],
)
def test_mistakes_are_one_line(folders, monkeypatch, capsys, options, said):
  if 'fake.task' in ''.join(options):
    pytest.importorskip('mediapipe')
    (folders[0] / 'fake.task').write_bytes(b'no model')
    options = [f'--face-detector={folders[0] / "fake.task"}']
  if options:
    write_clip(folders[0] / 'generated' / 'a.mp4', folders[1][0])
  _, printed, code = command(monkeypatch, capsys, folders[0], *options)
  assert code.startswith('error: ') and said in code and '\n' not in code and not printed
