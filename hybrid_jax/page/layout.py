"""The page itself: its components, and what each of them calls."""

import html
from collections.abc import Iterator
from typing import Any

import gradio as gr

from hybrid_jax.errors import InputError
from hybrid_jax.page import examples
from hybrid_jax.page.session import Session, Sessions
from hybrid_jax.page.stages import Show, Stages, Stopped, left
from hybrid_jax.page.texts import guarded, origin
from hybrid_jax.page.work import Work

LAYOUTS = (
  ('The new face alone', 'result'),
  ('Put back into the portrait', 'pasted'),
  ('Beside the driver', 'side-by-side'),
  ('All four pictures', 'grid'),
)
MOTIONS = (
  ("Copy the driver's expressions and pose", 'absolute'),
  ("Keep the portrait's own expression, and add what changes in the clip", 'relative'),
)
FACES = (('The largest', 'largest'), ('The leftmost', 'left'), ('The rightmost', 'right'))
EDITS = {
  'glasses': 'Glasses',
  'beard': 'Beard',
  'age': 'Age',
  'skin': 'Skin tone',
  'hair_dark': 'Dark hair',
  'hair_length': 'Hair length',
}
# Fields of `Options` in the order of the components that give them; edits follow.
GIVEN = (
  'source', 'driving', 'source_face', 'face', 'motion', 'gain', 'smooth_motion', 'layout', 'audio',
  'cma',
)  # fmt: skip
# Of a recording: the browser encodes it while it is taken. Heads are larger than the models see.
CAMERA = {'video': {'width': {'ideal': 1280}, 'height': {'ideal': 720}}}
STRONGEST = 1.0, 5.0  # of a slider: for the bundled model's edits, for public directions
BAR = gr.Progress()  # as a default, it asks Gradio for the bar of the call
PRIVATE = {'api_visibility': 'private'}  # the page has no interface for programs
# Gradio reports an upload that the browser cannot play as an error, although `media` may read it:
# its player never hears of it. Capturing, since errors of media do not bubble.
SCRIPT = """() => document.addEventListener('error', (event) => {
  if (event.target.closest?.('#clip')) event.stopImmediatePropagation();
}, true)"""


def as_uploaded(component: Any) -> Any:
  """Returns the component of Gradio, which now gives the path of an upload and does not open it."""
  # It would open a picture by Pillow and a clip by FFmpeg first, which read fewer formats than
  # `media`, convert colours, and end with errors of their own. On the instance: Gradio writes a
  # file beside the source of each class of components.
  component.preprocess = lambda payload: payload.path if payload else None
  return component


def shower(bar: gr.Progress) -> Show:
  """Returns what shows the stages of a job in Gradio's bar."""
  # Without a fraction, Gradio would show nothing.
  return lambda fraction, text: bar(fraction or 0.0, desc=text)


class Page:
  """Builds the page of a model.

  Args:
    work: does what visitors ask for.
    sessions: of the visitors.
  """

  def __init__(self, work: Work, sessions: Sessions):
    self.work, self.sessions = work, sessions

  def build(self) -> gr.Blocks:
    """Returns the page."""
    # Uploads are looked at each quarter of an hour, and removed two hours after they were made.
    with gr.Blocks(title='hybrid_jax', delete_cache=(900, 7200), analytics_enabled=False) as page:
      gr.Markdown(self._title(), elem_id='title')
      with gr.Row():
        with gr.Column(scale=6):
          self._inputs()
          self._crops()
          self._options()
        with gr.Column(scale=5):
          self._results()
      self._connect(page)
    return page

  def _title(self) -> str:
    size = f'{self.work.model.resolution} px'
    takes = (
      'The face is found in portraits and clips.'
      if self.work.face_detector
      else 'Portraits and clips must be square and show one head, as the examples do.'
    )
    return (
      '# One portrait, any motion\n'
      'The person of the portrait makes the motion of the clip. Re-enact people only with their '
      'consent, and label the result as synthetic.\n\n'
      f'Model: {html.escape(self.work.model.name)}, {size}. {takes}'
    )

  # --- Components ---------------------------------------------------------------------------------

  def _inputs(self) -> None:
    with gr.Row():
      with gr.Column(min_width=240):
        self.portrait = as_uploaded(gr.Image(
          label='Portrait', sources=['upload', 'webcam', 'clipboard'], height=300,
          elem_id='portrait', webcam_options=gr.WebcamOptions(mirror=False), buttons=[],
        ))  # fmt: skip
        self.source_line = gr.Markdown(elem_id='portrait_line')
        self.portraits = self._examples('Example portraits', 'image')
      with gr.Column(min_width=240):
        self.clip = as_uploaded(gr.Video(
          label='Driving clip', sources=['upload', 'webcam'], height=300, elem_id='clip',
          webcam_options=gr.WebcamOptions(mirror=False, constraints=CAMERA), buttons=[],
        ))  # fmt: skip
        self.driving_line = gr.Markdown(elem_id='clip_line')
        self.clips = self._examples('Example clips', 'video')
    self.drawing = gr.Markdown(elem_id='drawing', visible=False)
    limits = self.work.limits
    gr.Markdown(
      f'Clips of at most {limits.seconds:g} s and {limits.megabytes} MB. Uploads are kept in a '
      'temporary folder, and removed.', elem_id='note',
    )  # fmt: skip

  def _examples(self, label: str, kind: str) -> gr.Dataset:
    component = gr.Image(visible=False) if kind == 'image' else gr.Video(visible=False)
    return gr.Dataset(
      label=label, components=[component], samples=[], layout='gallery', elem_id=f'{kind}_examples',
      visible=False,
    )  # fmt: skip

  def _options(self) -> None:
    with gr.Accordion('Options: motion, layout, sound, tuning', open=False, elem_id='options'):
      self.motion = gr.Radio(MOTIONS, value='absolute', label='Motion')
      with gr.Row():
        self.gain = gr.Slider(0, 2, 1, step=0.05, label='Strength of the changes', visible=False)
        self.smooth = gr.Slider(
          0, 0.5, 0, step=0.02, label='Smooth the motion over', info='seconds; 0 leaves it as it is'
        )
      self.layout = gr.Radio(LAYOUTS, value='result', label='Show')
      located = bool(self.work.face_detector)
      with gr.Row(visible=located):
        self.source_face = gr.Dropdown(FACES, value='largest', label='Face in the portrait')
        self.face = gr.Dropdown(FACES, value='largest', label='Face in the clip')
      self.sound = gr.Checkbox(True, label='Keep the sound of the clip')
      self.cma = gr.Checkbox(
        False, label='Tune the generator to this person first (CMA)', elem_id='cma',
        info='for unusual faces and glasses; the time it takes is shown when this is switched on',
      )  # fmt: skip
    most = STRONGEST[bool(self.work.directions)]
    with gr.Accordion('Edit the person', open=False, visible=bool(self.work.edits)):
      with gr.Row():
        self.strengths = [
          gr.Slider(-most, most, 0, step=0.05, label=EDITS.get(name, name), min_width=170)
          for name in self.work.edits
        ]

  def _crops(self) -> None:
    gr.Markdown('### What the model sees')
    with gr.Row(elem_id='crops', equal_height=True):
      plain = {'show_label': False, 'interactive': False, 'format': 'png', 'buttons': []}
      self.head = gr.Image(elem_id='head', scale=1, min_width=110, height=130, **plain)
      self.heads = gr.Image(elem_id='heads', scale=5, min_width=280, height=130, **plain)

  def _results(self) -> None:
    with gr.Row():
      self.start = gr.Button('Re-enact', variant='primary', elem_id='start')
      self.cancel = gr.Button('Cancel', variant='stop', visible=False, elem_id='cancel')
    self.status = gr.Markdown(elem_id='status')
    self.video = gr.Video(
      label='Result', interactive=False, autoplay=True, loop=True, height=380, elem_id='result',
      buttons=['download', 'fullscreen'],
    )  # fmt: skip
    with gr.Tabs(visible=False) as self.details:
      with gr.Tab('Quality'):
        self.timeline = gr.Image(
          label='Quality over time', show_label=False, interactive=False, elem_id='timeline',
          buttons=['fullscreen', 'download'],
        )  # fmt: skip
        self.report = gr.Markdown(elem_id='report')
      with gr.Tab('Provenance'):
        self.provenance = gr.Markdown(elem_id='provenance')
        with gr.Accordion('The whole record, which the video holds too', open=False):
          self.record = gr.JSON(show_label=False, max_height=320)
      with gr.Tab('Download'):
        self.files = gr.File(
          label='Video, record, and table of the quality', file_count='multiple', interactive=False,
          elem_id='files',
        )  # fmt: skip

  # --- Events -------------------------------------------------------------------------------------

  def _connect(self, page: gr.Blocks) -> None:
    look = {'concurrency_id': 'look', 'concurrency_limit': 1, **PRIVATE}
    # `Work` runs them one at a time: a job that waits in Gradio's queue cannot be cancelled.
    alone = {'concurrency_id': 'render', 'concurrency_limit': None, **PRIVATE}
    at_once = {'queue': False, 'show_progress': 'hidden', **PRIVATE}
    for change in (self.portrait.change, self.source_face.change):
      change(
        self.look_at_portrait, [self.portrait, self.source_face], [self.head, self.source_line],
        show_progress_on=self.head, **look,
      )  # fmt: skip
    for change in (self.clip.change, self.face.change):
      change(
        self.look_at_clip, [self.clip, self.face], [self.heads, self.driving_line],
        show_progress_on=self.heads, **look,
      )  # fmt: skip
    self.motion.change(lambda kind: gr.Slider(visible=kind == 'relative'), self.motion, self.gain,
                       **at_once)  # fmt: skip
    self.cma.change(self.cma_time, self.cma, self.cma, **look, show_progress='hidden')
    given = [
      self.portrait, self.clip, self.source_face, self.face, self.motion, self.gain, self.smooth,
      self.layout, self.sound, self.cma, *self.strengths,
    ]  # fmt: skip
    shown_results = [
      self.video, self.timeline, self.report, self.provenance, self.record, self.files,
      self.details, self.status,
    ]  # fmt: skip
    buttons = [self.start, self.cancel]
    began = self.start.click(self.begin, None, [*buttons, self.status], **at_once)
    ended = began.then(self.render, given, shown_results, show_progress_on=self.video, **alone)
    ended.then(self.end, None, buttons, **at_once)
    self.cancel.click(self.stop, None, [self.cancel, self.status], **at_once)
    for dataset, component in ((self.portraits, self.portrait), (self.clips, self.clip)):
      dataset.click(lambda sample: sample[0], dataset, component, **at_once)
    page.load(
      self.find_examples, None, [self.portraits, self.clips, self.drawing],
      concurrency_id='examples', concurrency_limit=None, show_progress_on=self.drawing, **PRIVATE,
    )  # fmt: skip
    page.unload(self.leave)

  def _session(self, request: gr.Request) -> Session:
    return self.sessions[request.session_hash]

  @guarded(None)
  def look_at_portrait(
    self, path: str | None, face: str, request: gr.Request, bar: gr.Progress = BAR
  ) -> tuple:
    """Returns the head of the portrait, and a line about it."""
    if not path:
      return None, ''
    seen = self.work.preview_source(self._session(request), path, face, shower(bar))
    return seen.picture, html.escape(seen.line)

  @guarded(None)
  def look_at_clip(
    self, path: str | None, face: str, request: gr.Request, bar: gr.Progress = BAR
  ) -> tuple:
    """Returns heads of the clip, and a line about it."""
    if not path:
      return None, ''
    seen = self.work.preview_driving(self._session(request), path, face, shower(bar))
    return seen.picture, html.escape(seen.line)

  def cma_time(self, on: bool) -> Any:
    """Returns the box of CMA with its estimated time."""
    if not on:
      return gr.skip()
    seconds = self.work.cma_seconds
    return gr.Checkbox(info=f'{left(seconds)} on this machine; kept until the page is closed')

  def begin(self, request: gr.Request) -> tuple:
    """Prepares for a render."""
    self._session(request).cancelled.clear()
    return gr.Button(interactive=False), gr.Button('Cancel', visible=True, interactive=True), ''

  def stop(self, request: gr.Request) -> tuple:
    """Stops the render of this visitor."""
    self._session(request).cancelled.set()
    return gr.Button(
      'Stopping ...', interactive=False
    ), 'Stopping after this frame; while a program is being compiled it takes longer.'

  def end(self) -> tuple:
    """Returns the buttons after a render."""
    return gr.Button(interactive=True), gr.Button('Cancel', visible=False)

  @guarded(*[gr.skip()] * 7)
  def render(self, request: gr.Request, bar: gr.Progress = BAR, *given: Any) -> tuple | Any:
    """Returns the result of a re-enactment, for the values of `GIVEN` and of the edits."""
    chosen = dict(zip(GIVEN, given, strict=False))
    chosen['cma'] = 'cma' if chosen['cma'] else ''
    strengths = zip(self.work.edits, given[len(GIVEN) :], strict=True)
    chosen['edit'] = ','.join(f'{name}={value:g}' for name, value in strengths if value)
    result = self.work.reenact(self._session(request), shower(bar), **chosen)
    return (
      result.video,
      result.timeline,
      '\n'.join(f'- {html.escape(line)}' for line in result.lines),
      origin(result.record),
      result.record,
      [result.video, *result.tables],
      gr.Tabs(visible=True),
      html.escape(result.lines[0]),
    )

  def find_examples(self, bar: gr.Progress = BAR) -> Iterator[tuple]:
    """Yields the examples; draws them first where there are none, also if the visitor leaves."""
    hidden, nothing = gr.Dataset(visible=False), gr.Markdown(visible=False)
    if not examples.found():
      line = 'Examples are being drawn, for the first visit only. Uploads work meanwhile.'
      yield hidden, hidden, gr.Markdown(line, visible=True)
    try:
      drawn = examples.draw(Stages(shower(bar), self.sessions.ended))
    except Stopped:
      return
    except (InputError, OSError):  # a cache that cannot be written: the page works without
      yield hidden, hidden, nothing
      return
    samples = [gr.Dataset(samples=[[path] for path in paths], visible=True)
               for paths in (drawn.portraits, drawn.clips)]  # fmt: skip
    yield *samples, nothing

  def leave(self, request: gr.Request) -> None:
    """Ends the session of a page that was closed."""
    self.sessions.close(request.session_hash)
