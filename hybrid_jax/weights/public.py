"""Where each public weight file comes from, and on what terms.

The terms are their owners' and can change: these lines only say which to read. An address is one
that the owner's repository links to, or a file of that repository itself at a fixed commit.
"""

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hybrid_jax.errors import InputError

NVIDIA = 'NVIDIA Source Code License, non-commercial'
# Encoders of e4e and pSp come with NVIDIA's generator, whose terms then hold for the whole file.
FFHQ = f'the StyleGAN2 in it: {NVIDIA}; trained on FFHQ (CC BY-NC-SA 4.0)'
IMAGENET = 'trained on ImageNet, whose terms are for research'


@dataclasses.dataclass(frozen=True)
class PublicFile:
  """A file that others publish.

  Attributes:
    name: its name there.
    what: a description in words.
    origin: URL of the page that links to it.
    terms: of its code and weights.
    digest: its SHA-256 or the first digits of it, if its publisher gives them.
    url: where it is downloaded from; '' where its owner gives no address of the file.
    size: bytes; 0 where its owner does not give the size.
  """

  name: str
  what: str
  origin: str
  terms: str
  digest: str = ''
  url: str = ''
  size: int = 0

  @property
  def is_restricted(self) -> bool:
    """Whether the terms exclude commercial use: `download` wants them accepted."""
    return 'non-commercial' in self.terms


# Pages beside the addresses of the files: those move, and the page also states the terms.
_TORCHVISION = 'https://github.com/pytorch/vision'
_DRIVE = 'https://drive.google.com/file/d/'  # and the identifier of the file
_TORCH = 'https://download.pytorch.org/models/'
_E4E = 'https://github.com/omertov/encoder4editing/raw/99ea50578695d2e8a1cf7259d8ee89b23eea942b/'
_LPIPS = (
  'https://github.com/richzhang/PerceptualSimilarity/raw/082bb24f84c091ea94de2867d34c4544f68e0963/'
)
_FID = 'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
_YUNET = (
  'https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/'
  'face_detection_yunet_2023mar.onnx'
)
_MEDIAPIPE = (
  'https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/'
  'face_landmarker.task'
)
_FFHQ_MODELS = f'the FFHQ model it was made from: {NVIDIA}'

# By kind, as in `public_formats.KINDS`, and the face detectors.
FILES = {
  'e4e': PublicFile(
    'e4e_ffhq_encode.pt',
    'e4e encoder with StyleGAN2 decoder and latent average',
    'https://github.com/omertov/encoder4editing',
    f'MIT; {FFHQ}',
    url=f'{_DRIVE}1cUv_reLE6k3604or78EranS7XzuVMWeO',
  ),
  'psp': PublicFile(
    'psp_ffhq_encode.pt',
    'pSp encoder with StyleGAN2 decoder and latent average',
    'https://github.com/eladrich/pixel2style2pixel',
    f'MIT; {FFHQ}',
    url=f'{_DRIVE}1bMTNWkh5LArlaWSc_wa8VKyq2V42T2z0',
  ),
  'rosinality': PublicFile(
    'stylegan2-ffhq-config-f.pt',
    'StyleGAN2 in the layout of the PyTorch tools',
    'https://github.com/rosinality/stylegan2-pytorch',
    f'MIT; {FFHQ}',
    url=f'{_DRIVE}1EM87UquaoQmk17Q8d5kYIAHqu0dkYqdT',
  ),
  'nvlabs': PublicFile(
    'ffhq.pkl',
    'StyleGAN2 of stylegan2-ada-pytorch',
    'https://github.com/NVlabs/stylegan2-ada-pytorch',
    f'{NVIDIA}; trained on FFHQ (CC BY-NC-SA 4.0)',
    url='https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/ffhq.pkl',
  ),
  'pti': PublicFile(
    'model_*.pt',
    'generator tuned to one picture',
    'https://github.com/danielroich/PTI',
    f'MIT; {_FFHQ_MODELS}',
  ),
  'arcface': PublicFile(
    'model_ir_se50.pth',
    'ArcFace IR-SE50 identity network',
    'https://github.com/TreB1eN/InsightFace_Pytorch',
    'MIT; trained on MS-Celeb-1M, for non-commercial research only',
    url=f'{_DRIVE}1KW7bjndL3QG3sxBbZxreGHigcCCpsDgn',
  ),
  'alexnet': PublicFile(
    'alexnet-owt-7be5be79.pth', "torchvision's AlexNet", _TORCHVISION, f'BSD-3; {IMAGENET}',
    '7be5be79',
    url=f'{_TORCH}alexnet-owt-7be5be79.pth',
  ),
  'vgg16': PublicFile(
    'vgg16-397923af.pth', "torchvision's VGG16", _TORCHVISION, f'BSD-3; {IMAGENET}', '397923af',
    url=f'{_TORCH}vgg16-397923af.pth',
  ),
  'squeezenet': PublicFile(
    'squeezenet1_1-b8a52dc0.pth', "torchvision's SqueezeNet 1.1", _TORCHVISION,
    f'BSD-3; {IMAGENET}', 'b8a52dc0',
    url=f'{_TORCH}squeezenet1_1-b8a52dc0.pth',
  ),
  'lpips': PublicFile(
    'lpips/weights/v0.1/{alex,vgg,squeeze}.pth',
    'LPIPS v0.1 linear layers',
    'https://github.com/richzhang/PerceptualSimilarity',
    'BSD-2',
  ),
  'latent_discriminator': PublicFile(
    'iteration_*.pt', "critic of latents of e4e's training",
    'https://github.com/omertov/encoder4editing', 'MIT',
  ),
  'interfacegan': PublicFile(
    'age.pt, smile.pt, ... or boundary.npy',
    'direction of an attribute in W',
    'https://github.com/genforce/interfacegan',
    f'MIT; {_FFHQ_MODELS}',
  ),
  'ganspace': PublicFile(
    'ffhq_pca.pt',
    'principal components of W',
    'https://github.com/harskish/ganspace',
    f'Apache-2.0; {_FFHQ_MODELS}',
    digest='4d7f9df1c96180d9026b9cb8d04753579fbf385f321a9d0e263641601c5e5d36',
    url=f'{_E4E}editings/ganspace_pca/ffhq_pca.pt',
    size=167_562,
  ),
  'inception': PublicFile(
    'pt_inception-2015-12-05-6726825d.pth',
    'Inception of FID',
    'https://github.com/mseitzer/pytorch-fid',
    f'Apache-2.0; {IMAGENET}',
    '6726825d',
    url=f'{_FID}pt_inception-2015-12-05-6726825d.pth',
  ),
  'i3d': PublicFile(
    'i3d_torchscript.pt',
    'I3D of FVD',
    'https://github.com/universome/stylegan-v',
    'Apache-2.0 (DeepMind); trained on Kinetics-400',
    url='https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1',
  ),
  # Detectors: no weights that `convert` reads, but files to fetch all the same.
  'yunet': PublicFile(
    'face_detection_yunet_2023mar.onnx',
    'YuNet face detector',
    'https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet',
    'MIT',
    digest='8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4',
    url=_YUNET,
    size=232_589,
  ),
  'mediapipe': PublicFile(
    'face_landmarker.task',
    'MediaPipe FaceLandmarker',
    'https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker',
    'Apache-2.0',
    url=_MEDIAPIPE,
  ),
}  # fmt: skip


# The kind of the backbone file by `config.model.lpips_net`.
LPIPS_BACKBONES = {'alex': 'alexnet', 'vgg': 'vgg16', 'squeeze': 'squeezenet'}

# One file of linear layers for each backbone: (bytes, SHA-256) of the files of the repository.
_LPIPS_LINEAR = {
  'alex': (6009, 'df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0'),
  'vgg': (7289, 'a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868'),
  'squeeze': (10811, '4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76'),
}


def _lpips_linear(net: str) -> PublicFile:
  size, digest = _LPIPS_LINEAR[net]
  name = FILES['lpips'].name.replace('{alex,vgg,squeeze}', net)
  return dataclasses.replace(FILES['lpips'], name=name, digest=digest, url=_LPIPS + name, size=size)


# What `python -m hybrid_jax.download` fetches: the kinds with an address, and LPIPS by backbone.
DOWNLOADS = {kind: file for kind, file in FILES.items() if file.url} | {
  f'lpips_{net}': _lpips_linear(net) for net in _LPIPS_LINEAR
}


def kind_of(field: str, lpips_net: str) -> str:
  """The kind of the public file that belongs into the field `config.weights.FIELD`."""
  fields = {'lpips_backbone': LPIPS_BACKBONES[lpips_net], 'lpips_linear': 'lpips'}
  return fields.get(field, field)


def download_of(field: str, lpips_net: str) -> str:
  """The key in `DOWNLOADS` of the file that belongs into the field `config.weights.FIELD`."""
  return f'lpips_{lpips_net}' if field == 'lpips_linear' else kind_of(field, lpips_net)


def detector_of(path: str) -> str:
  """The key in `DOWNLOADS` of the face detector that belongs to a path, by its suffix."""
  return 'mediapipe' if path.endswith('.task') else 'yunet'


def file_of(field: str, lpips_net: str) -> PublicFile:
  """The public file that belongs into the field `config.weights.FIELD`."""
  return DOWNLOADS[download_of(field, lpips_net)]


def paths_of(config: Any) -> dict[str, str]:
  """The files that a config names, {key in DOWNLOADS: path}; shipped and random ones are none."""
  paths = {
    download_of(field, config.model.lpips_net): path
    for field, path in config.weights.items()
    if path not in ('shipped', 'random')
  }
  detector = config.data.face_detector
  return paths | ({detector_of(detector): detector} if detector else {})


def require_acceptance(names: Sequence[str]) -> None:
  """Raises InputError if files of `DOWNLOADS` have terms that exclude commercial use."""
  if restricted := [name for name in names if DOWNLOADS[name].is_restricted]:
    raise InputError(
      f'{", ".join(restricted)}: for non-commercial use only; read the terms at the addresses '
      'above, and add --accept-terms if you accept them'
    )


def command(paths: Mapping[str, str]) -> str:
  """The command line that downloads files to their paths, {key in DOWNLOADS: path}.

  It leaves out --accept-terms: whoever runs it is shown the terms first.
  """
  files = [
    f'--file={name}={path or os.path.join("weights", os.path.basename(DOWNLOADS[name].name))}'
    for name, path in paths.items()
  ]
  return shlex.join(['python', '-m', 'hybrid_jax.download', *files])


def table() -> str:
  """The table of README.md, in Markdown; the first column is the kind, as `convert` takes it."""
  # The last part of the URL is the name of the repository, or of a folder of a large one.
  rows = [
    f'| `{kind}` | {f.what} | `{f.name}` of [{f.origin.split("/")[-1]}]({f.origin}) | {f.terms} |'
    for kind, f in FILES.items()
  ]
  return '\n'.join(['| kind | what | file | terms |', '|---|---|---|---|', *rows])
