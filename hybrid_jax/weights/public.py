"""Where each public weight file comes from, and on what terms.

The terms are their owners' and can change: these lines only say which to read.
"""

import dataclasses

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
    digest: first digits of its SHA-256, if its publisher put them into the name.
  """

  name: str
  what: str
  origin: str
  terms: str
  digest: str = ''


# Pages, not direct links to files: those move, and the page also states the terms.
_TORCHVISION = 'https://github.com/pytorch/vision'
_FFHQ_MODELS = f'the FFHQ model it was made from: {NVIDIA}'

# By kind, as in `public_formats.KINDS`, and the face detectors.
FILES = {
  'e4e': PublicFile(
    'e4e_ffhq_encode.pt',
    'e4e encoder with StyleGAN2 decoder and latent average',
    'https://github.com/omertov/encoder4editing',
    f'MIT; {FFHQ}',
  ),
  'psp': PublicFile(
    'psp_ffhq_encode.pt',
    'pSp encoder with StyleGAN2 decoder and latent average',
    'https://github.com/eladrich/pixel2style2pixel',
    f'MIT; {FFHQ}',
  ),
  'rosinality': PublicFile(
    'stylegan2-ffhq-config-f.pt',
    'StyleGAN2 in the layout of the PyTorch tools',
    'https://github.com/rosinality/stylegan2-pytorch',
    f'MIT; {FFHQ}',
  ),
  'nvlabs': PublicFile(
    'ffhq.pkl',
    'StyleGAN2 of stylegan2-ada-pytorch',
    'https://github.com/NVlabs/stylegan2-ada-pytorch',
    f'{NVIDIA}; trained on FFHQ (CC BY-NC-SA 4.0)',
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
  ),
  'alexnet': PublicFile(
    'alexnet-owt-7be5be79.pth', "torchvision's AlexNet", _TORCHVISION, f'BSD-3; {IMAGENET}',
    '7be5be79',
  ),
  'vgg16': PublicFile(
    'vgg16-397923af.pth', "torchvision's VGG16", _TORCHVISION, f'BSD-3; {IMAGENET}', '397923af'
  ),
  'squeezenet': PublicFile(
    'squeezenet1_1-b8a52dc0.pth', "torchvision's SqueezeNet 1.1", _TORCHVISION,
    f'BSD-3; {IMAGENET}', 'b8a52dc0',
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
  ),
  'inception': PublicFile(
    'pt_inception-2015-12-05-6726825d.pth',
    'Inception of FID',
    'https://github.com/mseitzer/pytorch-fid',
    f'Apache-2.0; {IMAGENET}',
    '6726825d',
  ),
  'i3d': PublicFile(
    'i3d_torchscript.pt',
    'I3D of FVD',
    'https://github.com/universome/stylegan-v',
    'Apache-2.0 (DeepMind); trained on Kinetics-400',
  ),
  # Detectors: no weights that `convert` reads, but files to fetch all the same.
  'yunet': PublicFile(
    'face_detection_yunet_2023mar.onnx',
    'YuNet face detector',
    'https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet',
    'MIT',
  ),
  'mediapipe': PublicFile(
    'face_landmarker.task',
    'MediaPipe FaceLandmarker',
    'https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker',
    'Apache-2.0',
  ),
}  # fmt: skip


# The kind of the backbone file by `config.model.lpips_net`.
LPIPS_BACKBONES = {'alex': 'alexnet', 'vgg': 'vgg16', 'squeeze': 'squeezenet'}


def kind_of(field: str, lpips_net: str) -> str:
  """The kind of the public file that belongs into the field `config.weights.FIELD`."""
  fields = {'lpips_backbone': LPIPS_BACKBONES[lpips_net], 'lpips_linear': 'lpips'}
  return fields.get(field, field)


def file_of(field: str, lpips_net: str) -> PublicFile:
  """The public file that belongs into the field `config.weights.FIELD`."""
  file = FILES[kind_of(field, lpips_net)]
  # One file for each backbone: the linear layers are fitted to its features.
  return dataclasses.replace(file, name=file.name.replace('{alex,vgg,squeeze}', lpips_net))


def table() -> str:
  """The table of README.md, in Markdown; the first column is the kind, as `convert` takes it."""
  # The last part of the URL is the name of the repository, or of a folder of a large one.
  rows = [
    f'| `{kind}` | {f.what} | `{f.name}` of [{f.origin.split("/")[-1]}]({f.origin}) | {f.terms} |'
    for kind, f in FILES.items()
  ]
  return '\n'.join(['| kind | what | file | terms |', '|---|---|---|---|', *rows])
