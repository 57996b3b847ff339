"""Serves the page until it is ended, and removes what visitors uploaded."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from hybrid_jax.errors import InputError
from hybrid_jax.page import examples, temporary
from hybrid_jax.page.session import Sessions
from hybrid_jax.page.work import Work

WAITING = 100  # previews and jobs that Gradio keeps; `turns.Turns` refuses jobs before


@contextlib.contextmanager
def open_page(
  work: Work, *, host: str = '127.0.0.1', port: int | None = None, share: bool = False
) -> Iterator[list[str]]:
  """Serves the page inside of the block; gives its addresses, the public one last.

  Args:
    host: address to listen on; '0.0.0.0' is every one of this machine.
    port: the first free one from 7860 on if not given.
    share: whether to ask Gradio's servers for a public address.

  Raises:
    InputError: Gradio is missing, or the address cannot be used.
  """
  with temporary.folder() as root:
    # Gradio reads these when it is imported, or when the first upload arrives.
    os.environ['GRADIO_TEMP_DIR'] = str(root / 'uploads')
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    try:
      import gradio as gr

      from hybrid_jax.page.layout import SCRIPT, Page
    except ImportError as error:
      raise InputError(
        f"the page needs Gradio ({error}): install it with  pip install -e '.[app]'"
      ) from None
    sessions = Sessions(root)
    page = Page(work, sessions).build()
    try:
      _, local, public = page.queue(max_size=WAITING, api_open=False).launch(
        server_name=host, server_port=port, share=share, quiet=True, prevent_thread_lock=True,
        footer_links=[], run_history=False, enable_monitoring=False,
        max_file_size=f'{work.limits.megabytes}mb', allowed_paths=[str(examples.folder())],
        theme=gr.themes.Soft(font=['system-ui', 'sans-serif'], font_mono=['monospace']),
        js=SCRIPT, css_paths=pathlib.Path(__file__).with_name('page.css'),
      )  # fmt: skip
    except OSError as error:
      where = f'{host}:{port}' if port else host
      raise InputError(f'{where}: cannot be served ({error}); give another --port') from error
    try:
      yield [address for address in (local, public) if address]
    finally:
      # Jobs first: they write into the folder that is removed next.
      sessions.close_all()
      page.close(verbose=False)
