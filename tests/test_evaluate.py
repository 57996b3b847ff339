"""The evaluation command: known answers through files, and folders in which something is wrong."""

import html.parser
import json
import re
import sys
import xml.etree.ElementTree
from fractions import Fraction

import jax
import numpy as np
import pytest
from conftest import GOLDEN

from hybrid_jax import evaluate
from hybrid_jax.evaluation import measure, networks, results
from hybrid_jax.evaluation.pairing import Pair
from hybrid_jax.media import video

SIZE = 32


def clips(seed, count=1, frames=20, size=SIZE):
  """Smooth noise that drifts, uint8, away from both ends of the range."""
  rng = np.random.default_rng(seed)
  for _ in range(count):
    ground = rng.integers(60, 190, (size // 4, size // 4, 3)).repeat(4, 0).repeat(4, 1)
    yield np.stack([np.roll(ground, k, 1) for k in range(frames)]).astype(np.uint8)


def write_clip(path, clip, fps=25):
  h, w = clip.shape[1:3]
  with video.VideoWriter(path, h, w, time_base=Fraction(1, fps), codec='ffv1') as writer:
    for k, rgb in enumerate(clip):
      writer.write(rgb, Fraction(k, fps))


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


def test_a_clip_that_breaks_off_leaves_nothing_in_the_sets(folders):
  folder, references = folders
  path = folder / 'generated' / 'a.mp4'
  write_clip(path, references[0])
  whole = path.read_bytes()
  evaluation = measure.Evaluation(
    networks.Networks(rendered=True, rows=4), measure.Protocol(SIZE, 500, 9)
  )
  pair = Pair('a', path, folder / 'reference' / 'a.mp4', None)
  path.write_bytes(whole[: len(whole) * 2 // 3])
  with pytest.raises(ValueError, match='a.mp4'):
    evaluation.measure(pair)
  assert not evaluation.sets
  path.write_bytes(whole)
  evaluation.measure(pair)
  assert evaluation.sets['fid_judge'][0].count == 20
  assert evaluation.sets['fvd_judge'][0].count == 2


def test_every_device_has_its_rows(tmp_path):
  (clip,) = clips(5, frames=21)
  for side in ('reference', 'generated'):
    np.save(tmp_path / f'{side}.npy', clip)
  nets = networks.Networks(rows=2)
  given, closeness = [], nets.closeness
  nets.closeness = lambda x, y: given.append(len(x)) or closeness(x, y)
  pair = Pair('a', tmp_path / 'generated.npy', tmp_path / 'reference.npy', None)
  measure.Evaluation(nets, measure.Protocol(SIZE)).measure(pair)
  assert jax.device_count() == 4 and given == [8, 8, 5]


def test_clips_of_fvd_have_no_holes(tmp_path):
  """A clip of 9 cannot be had of frames 0 to 5 and 7 to 14; of 7 to 15 it can."""
  (clip,) = clips(5, frames=16)
  clip = clip / np.float32(255)
  clip[6, 0, 0, 0] = np.nan
  np.save(tmp_path / 'reference.npy', clip)
  nets = networks.Networks(rendered=True, rows=4)
  for frames, count in ((15, 0), (16, 1)):
    np.save(tmp_path / f'{frames}.npy', clip[:frames])
    evaluation = measure.Evaluation(nets, measure.Protocol(SIZE, 500, 9))
    evaluation.measure(Pair('a', tmp_path / f'{frames}.npy', tmp_path / 'reference.npy', None))
    assert evaluation.sets['fid_judge'][0].count == frames - 1
    assert ('fvd_judge' in evaluation.sets) == bool(count)
  assert evaluation.sets['fvd_judge'][0].count == 1


@pytest.mark.slow
def test_clips_that_wait_for_all_devices_are_all_seen(tmp_path):
  (clip,) = clips(5, frames=6 * 9 + 2)
  for side, frames in (('reference', clip), ('generated', clip[::-1])):
    np.save(tmp_path / f'{side}.npy', frames)
  nets = networks.Networks(i3d=str(GOLDEN / 'i3d_reduced.pt'))
  evaluation = measure.Evaluation(nets, measure.Protocol(SIZE, 500, 9))
  assert 1 < jax.device_count() < 6
  evaluation.measure(Pair('a', tmp_path / 'generated.npy', tmp_path / 'reference.npy', None))
  reference, generated = evaluation.sets['fvd']
  alone = [nets.fvd(clip[None, 9 * k : 9 * k + 9]) for k in range(6)]
  assert reference.count == generated.count == 6
  np.testing.assert_allclose(reference.mean(), np.mean(alone, 0)[0], rtol=1e-4, atol=1e-5)


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
  assert 'no true answer' in result['not_available']['l1']
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
  drawings = re.findall(r'<svg.*?</svg>', page, re.DOTALL)
  assert len(drawings) == 3 + 4
  for drawing in drawings:
    xml.etree.ElementTree.fromstring(drawing)
    assert 'nan' not in drawing
  parser, stack = html.parser.HTMLParser(), []
  single = {'meta', 'img', 'circle', 'rect', 'path', 'polyline'}
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
    ([f'--inception={GOLDEN / "i3d_reduced.pt"}'], 'holds no inception'),
    (['--openface', 'nowhere', 'nowhere'], 'no folder of OpenFace'),
    (['--face-detector=nowhere.task'], 'no such file'),
    (['--source=nowhere'], 'no such folder'),
    ([], 'no videos'),
  ],
)
def test_mistakes_are_one_line(folders, monkeypatch, capsys, options, said):
  if options:
    write_clip(folders[0] / 'generated' / 'a.mp4', folders[1][0])
  _, printed, code = command(monkeypatch, capsys, folders[0], *options)
  assert code.startswith('error: ') and said in code and '\n' not in code and not printed
