"""A Google Cloud Storage of this process, spoken to over the loopback interface."""

import contextlib
import functools
import os

import pytest

# gcsfs reads it when it is imported: no question to Google about the kind of a bucket.
os.environ['GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT'] = 'false'
os.environ['EPATH_USE_TF'] = 'false'  # epath keeps the first answer
BUCKET = 'gs://bucket'


def _with_generation(download):
  """Adds the header that Google sends with an object, by which tensorstore rewrites a manifest."""

  @functools.wraps(download)
  def complete(request, response, storage, *args, **options):
    download(request, response, storage, *args, **options)
    if response.status in (200, 206):
      name = request.params['bucket_name'], request.params['object_id']
      response['x-goog-generation'] = storage.get_file_obj(*name)['generation']

  return complete


@contextlib.contextmanager
def emulator():
  """Starts a store with an empty bucket, and points every library of training at it.

  epath goes through gcsfs, since TensorFlow's client has no such setting; tensorstore (arrays of
  checkpoints) and array_record (packed data) have clients of their own.
  """
  why = 'needs gcsfs and gcp-storage-emulator, of the extra [test]'
  gcsfs = pytest.importorskip('gcsfs', reason=why)
  server = pytest.importorskip('gcp_storage_emulator.server', reason=why)
  objects = pytest.importorskip('gcp_storage_emulator.handlers.objects', reason=why)
  original = objects.download
  objects.download = _with_generation(original)
  store = server.create_server('localhost', 0, in_memory=True, default_bucket='bucket')
  store.start()
  # Clients that have read enough close their connection, which it would report with a traceback.
  store._api._httpd.handle_error = lambda *_: None
  url = f'http://localhost:{store._api._httpd.socket.getsockname()[1]}'
  variables = {
    'STORAGE_EMULATOR_HOST': url,
    'TENSORSTORE_GCS_HTTP_URL': url,
    'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'any',
    'CLOUD_STORAGE_EMULATOR_ENDPOINT': url,
  }
  before = {name: os.environ.get(name) for name in variables}
  os.environ.update(variables)
  try:
    yield
  finally:
    for name, value in before.items():
      if value is None:
        del os.environ[name]
      else:
        os.environ[name] = value
    gcsfs.GCSFileSystem.clear_instance_cache()
    store.stop()
    objects.download = original
