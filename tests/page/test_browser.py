"""The page in Chromium, with the bundled model: preview, render, play, cancel, bad file."""

import os
import pathlib
import shutil
import threading
import time

import numpy as np
import pytest

from hybrid_jax import app
from hybrid_jax.page import examples, stages
from hybrid_jax.world import films

pytest.importorskip('gradio', reason="needs Gradio: pip install -e '.[browser]'")
playwright = pytest.importorskip(
  'playwright.sync_api', reason="needs Playwright: pip install -e '.[browser]'"
)
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
pytestmark = pytest.mark.skipif(not CHROMIUM, reason='needs Chromium: apt-get install chromium')
FRAMES = 10  # as in the test of the README, which compiles the same programs
PATIENCE = 300_000  # ms; a machine may be busy


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """A cache folder, in which the first visit will find what it draws: one person and one clip."""
  cache = tmp_path_factory.mktemp('cache')
  with pytest.MonkeyPatch.context() as patch:
    small = {'people': 1, 'clips': 1, 'size': 64, 'seconds': FRAMES / 25, 'fps': 25}
    patch.setattr(examples, 'WORLD', small)
    patch.setattr(examples.environment, 'cache_folder', lambda *parts: cache.joinpath(*parts))
    yield


@pytest.fixture(scope='module')
def address(world):
  """Where the command serves the page."""
  with app.opened(app.parse_args(['--max-seconds=1'])) as addresses:
    yield addresses[0]


@pytest.fixture(scope='module')
def browser():
  """Chromium without a window."""
  with playwright.sync_playwright() as driver:
    arguments = [
      '--no-sandbox', '--autoplay-policy=no-user-gesture-required',
      '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
    ]  # fmt: skip
    browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
    yield browser
    browser.close()


@pytest.fixture(scope='module')
def page(browser, address):
  """The page, after its examples were drawn, with a portrait and a clip."""
  page = browser.new_page()
  page.set_default_timeout(PATIENCE)
  page.goto(address)
  # An example is clicked, a file is uploaded.
  page.locator('#image_examples img').first.click()
  page.wait_for_selector('#video_examples video')
  upload(page, 'clip', examples.found().clips[0])
  page.wait_for_selector('#head img')
  page.wait_for_selector('#heads img')
  return page


def upload(page, role, path):
  """Uploads a file in place of the one before."""
  clear = page.locator(f'#{role} button[aria-label^="Remove"], #{role} button[aria-label="Clear"]')
  if clear.count():
    clear.first.click()
    page.wait_for_function(f'!document.querySelector("#{role}_line").innerText.trim()')
  page.set_input_files(f'#{role} input[type=file]', str(path))


def status(page, text):
  """Waits until the status contains a text."""
  page.locator('#status').filter(has_text=text).wait_for()


def test_render_play_and_download(page, tmp_path):
  page.click('#start')
  status(page, f'reenacted.mp4: {FRAMES} frames of 64x64')
  page.wait_for_function('document.querySelector("#result video")?.readyState == 4')
  # It plays, in a loop, with sound.
  played = 'document.querySelector("#result video").played.length > 0'
  page.wait_for_function(played)
  sound = 'document.querySelector("#result video").webkitAudioDecodedByteCount > 0'
  page.wait_for_function(sound)
  assert page.locator('#timeline img').count() and page.locator('#report li').count() >= 2
  page.get_by_role('tab', name='Provenance').click()
  assert 'person_0.png SHA-256' in page.inner_text('#provenance')
  page.get_by_role('tab', name='Download').click()
  with page.expect_download() as download:
    page.locator('#files a').first.click()
  download.value.save_as(tmp_path / 'a.mp4')
  assert (tmp_path / 'a.mp4').stat().st_size > 1000


def test_cancel_stops_the_work(page, monkeypatch):
  drawn, began, go = [], threading.Event(), threading.Event()
  given = stages.Stages.__call__

  def slowly(self, items, description, total):
    for item in given(self, items, description, total):
      drawn.append(item)
      began.set()
      go.wait(PATIENCE / 1000)  # until the button was clicked
      yield item

  monkeypatch.setattr(stages.Stages, '__call__', slowly)
  page.click('#start')
  assert began.wait(PATIENCE / 1000)
  page.click('#cancel')
  status(page, 'Stopping')
  go.set()
  status(page, 'Cancelled.')
  assert len(drawn) <= 2  # of 20: motion is read, then pictures are drawn
  page.wait_for_selector('#start:enabled')


@pytest.mark.parametrize(
  ('role', 'name', 'message'),
  [('portrait', 'no picture.png', 'no picture.png: is no picture of a known format'),
   ('clip', 'long.mp4', 'long.mp4: lasts 2.4 s, and this page takes 1 s')],
)  # fmt: skip
def test_an_unusable_file_is_one_line(page, tmp_path, role, name, message):
  if role == 'portrait':
    (tmp_path / name).write_text('text')
  else:
    films.write_film(tmp_path / name, np.zeros((60, 64, 64, 3), np.uint8), np.zeros((60, 16)), 25)
  upload(page, role, tmp_path / name)
  page.locator(f'#{role}_line .wrong').filter(has_text=message).wait_for()
  line = page.inner_text(f'#{role}_line')
  assert '\n' not in line.strip() and str(tmp_path.parent) not in line


def test_a_large_file_is_refused_before_it_is_sent(page, tmp_path):
  with open(tmp_path / 'large.mp4', 'wb') as file:
    file.truncate(2_000_000_000)  # a hole
  upload(page, 'clip', tmp_path / 'large.mp4')
  page.locator('.toast-body').filter(has_text='exceed the maximum allowed size').wait_for()


def test_a_picture_of_the_camera_arrives(page):
  # Chromium's own camera is not square, which the bundled model refuses.
  page.locator('#portrait button[aria-label*="Remove"]').click()
  page.click('#portrait button[aria-label="Capture from camera"]')
  page.locator('#portrait').get_by_text('Click to Access Webcam').click()
  # Before the camera's first frame the button takes no photo.
  page.wait_for_function("document.querySelector('#portrait video')?.videoWidth > 0")
  page.click('#portrait button[aria-label="capture photo"]')
  page.locator('#portrait_line .wrong').filter(has_text='is not square; crop the head').wait_for()


def test_a_page_that_is_closed_during_a_job_leaves_no_folder(page):
  root = pathlib.Path(os.environ['GRADIO_TEMP_DIR']).parent
  assert list(root.glob('visitor_*'))
  page.locator('#image_examples img').first.click()
  page.locator('#video_examples video').first.click()
  page.wait_for_selector('#heads img')
  page.click('#start')
  page.wait_for_selector('#cancel:visible')
  page.close()
  until = time.monotonic() + 60
  while list(root.glob('visitor_*')) and time.monotonic() < until:
    time.sleep(0.2)
  assert not list(root.glob('visitor_*'))
