"""All fields of a run, as plain dicts: the paper's 1024 px model, and smaller ones.

Each comment says what a field means, its unit, and where its value comes from: "paper" with its
section, "e4e" (omertov/encoder4editing, from which the paper starts), or "ours" where the paper
gives none. Every-N values are in steps and end in `_steps`. Nothing here needs ml_collections, so
that scripts without it can read the same values.
"""

from hybrid_jax.models.latents import first_convolutions
from hybrid_jax.weights import shipped


def model() -> dict:
  """Returns the networks and their sizes."""
  return {
    # Image size of the generator, px. Paper: 1024.
    'resolution': 1024,
    # Feature maps at r px: min(channel_max, channel_base / r). StyleGAN2 config-f.
    'channel_base': 32768,
    'channel_max': 512,
    # Width of z and w, and layers between them. StyleGAN2.
    'w_dim': 512,
    'mapping_layers': 8,
    # StyleSpace entries that carry the deformation: the first ten convolutions (paper, figure 4).
    # The other reading counts toRGB: tuple(range(10)).
    'deformation_layers': first_convolutions(10),
    # False is the ablation with both latents in W+ (paper, section 4.3).
    'hybrid': True,
    # Side of the frames the encoder sees, px. pSp, e4e.
    'frame_size': 256,
    # IR-SE50: channels and blocks of its stages, reduction of its gates. e4e.
    'encoder_widths': (64, 128, 256, 512),
    'encoder_units': (3, 4, 14, 3),
    'encoder_reduction': 16,
    # Channels of the convolutions in the heads. e4e.
    'head_width': 512,
    # Heads on the coarse, medium and fine level. Identity: e4e's, so that its weights load;
    # deformation: the paper's figure.
    'identity_split': (3, 4, 11),
    'deformation_split': (2, 4, 4),
    # Up-convolutions to at least this many px are lowered as polyphase, smaller ones as
    # transposed convolutions. Measured on CPU; 0 where the generator's weights are trained.
    'polyphase_from': 512,
    # Type of the encoder and of generator layers of at least `half_from` px; '' is float32, whose
    # products run at the device's default precision (TF32 on recent GPUs). Ours.
    'half_dtype': 'bfloat16',
    'half_from': 128,
    # Generator layers of at least this size are recomputed in the backward pass; 0 is never.
    'remat_from': 0,
    # LPIPS backbone and, where they differ from torchvision's, its widths. e4e: AlexNet.
    'lpips_net': 'alex',
    'lpips_widths': (),
    # ArcFace: input side px, embedding length, body as the encoder's. InsightFace_Pytorch.
    'arcface_size': 112,
    'arcface_embedding': 512,
    'arcface_widths': (64, 128, 256, 512),
    'arcface_units': (3, 4, 14, 3),
    'arcface_reduction': 16,
  }


def data() -> dict:
  """Returns the source of clips and the batches drawn from it."""
  return {
    # One of three. Folder of videos: each file is one identity (clips named as CelebV-HQ's or
    # HDTF's: their person), or each subfolder holds the clips of one. Read into memory, of which
    # they may take a quarter; data/README.md packs more.
    'videos': '',
    # Folder that data/face_clips/pack.py or data/synthetic_heads wrote; frames are read when drawn.
    'packed': '',
    # Number of people of the rendered world to draw, with `rendered_clips` clips each.
    'rendered_people': 0,
    'rendered_clips': 2,
    # Share of the people of a folder whose clips are only validated on; those of packed and
    # rendered data have their splits already. Paper, section 4: 80/20.
    'held_out': 0.2,
    # Model that crops the face; '' takes square clips whole. With MediaPipe's (.task) the masks of
    # Eq. (13) follow its contours, with YuNet's (.onnx) they are ellipses about five points.
    'face_detector': '',
    # Square that is cut around the head, also by `reenact` for this model; of packed data, as it
    # was packed. Needs a face detector; rendered frames have FFHQ's centre and side.
    # 'clip': one upright square, of FFHQ's side and centre for the median landmarks. Ours: head
    # motion stays in the picture (paper, section 4, after First Order Motion Model), and frames are
    # as large as those that generator, e4e and ArcFace were trained on (FFHQ).
    # 'fomm': one upright square, 1.2 times the union of the face's boxes. crop-video.py of FOMM.
    # 'ffhq': each frame aligned. FFHQ, e4e; the driver's roll, shift and scale are lost.
    'framing': 'clip',
    # Frames kept of each clip, evenly spaced. Paper, section 4: 50.
    'frames_per_clip': 50,
    # Triplets per step. e4e: 8.
    'batch_size': 8,
    # Mirrors half of the triplets, all three frames. Ours: none; e4e mirrors its images so.
    'flip': False,
    # Processes that read and decode; 0: threads of the training process. The batches are the same.
    # Each holds a copy of the clips, so that workers are for packed data.
    'workers': 0,
    # Seed of the order of triplets.
    'seed': 0,
  }


def loss() -> dict:
  """Returns the weights and options of the losses."""
  return {
    # Decoded images are pooled to this side before any loss, px. pSp, e4e.
    'resolution': 256,
    # Inside L_rec (Eq. (7)). e4e; gradient variance: ours, on [0, 1]. ViVFace's 0.01 on [-1, 1] is
    # 0.16 here, since the term grows with the fourth power of the range.
    'reconstruction': {'l2': 1.0, 'lpips': 0.8, 'gradient_variance': 0.01},
    'weights': {
      'self_reconstruction': 1.0,  # Eq. (5). e4e
      'reenactment': 1.0,  # Eq. (6). ours: equal to Eq. (5)
      'anchor_identity': 0.1,  # Eq. (8). e4e
      'puppet_identity': 0.1,  # Eq. (9). ours: equal to Eq. (8)
      'latent_consistency': 1e-3,  # Eq. (10). ours: of Eq. (8)'s size at the start
      'w_variance': 2e-4,  # Eq. (11). e4e's delta norm
      'adversarial': 0.1,  # e4e's published recipe
      # Squared error of F_D' and of F of G(W_S, F_D'). ViVFace: 1; not in the paper, hence none.
      'deformation_consistency': 0.0,
    },
    # Where the text of the paper leaves a form open; configs/readings.py compares them.
    'readings': {
      # Eq. (10): 'norm', mean norm of rows (ours), or 'mse' (ViVFace, with weight 1). Measured: the
      # L1 of faces is 0.0071 higher with 'mse'.
      'latent_consistency': 'norm',
      # Eq. (12): 'mse', mean squared entry of the driver's deformation (ViVFace), or 'norm', sum of
      # the layers' norms over all frames (ours). Measured: the L1 of faces is 0.0003 lower with
      # 'mse' (0.0001 to 0.0004; experiments/results/readings.md).
      'style_proximity': 'mse',
      # What normalises G(W_S, F_D') in Eq. (10): 'running' statistics, those of its 'batch' (ours),
      # or, as each 'role' of a triplet is normalised on its own, the same, kept too (ViVFace).
      # Untrained running statistics let a fresh encoder of full depth diverge in its second step.
      # Measured against 'running', L1 of faces: 'batch' 0.0002 lower, 'role' 0.0015 higher.
      'batch_statistics': 'batch',
    },
    # Reach of the masks of Eq. (13) beyond mouth, eyes and brows, in frame sides. Ours.
    'mask_dilation': 0.02,
    # Weight of Eq. (12) over that of Eq. (11): the paper fixes a ratio without its value. Ours.
    'style_proximity_ratio': 1.0,
    # Latent discriminator: R1 weight and its interval in steps, size of the pool. e4e.
    'r1_gamma': 10.0,
    'r1_steps': 16,
    'pool_size': 50,
  }


def train() -> dict:
  """Returns the length of a run and its cadence, in steps."""
  return {
    # Paper, section 4: 200,000.
    'num_steps': 200_000,
    'log_steps': 100,
    'sample_steps': 1_000,
    'checkpoint_steps': 5_000,
    # Losses on held-out people, over `val_batches` fixed batches; the best encoder is kept apart.
    'val_steps': 5_000,
    'val_batches': 16,
    # Stops after this many validations without a new best; 0: never. Ours.
    'patience': 0,
    # Workdir whose encoder training starts from, stage 1's for stage 2; or an .npz tree of one.
    'init_from': '',
    # Writes a profile of ten steps, from this one on, to the workdir; 0: none.
    'profile_from': 0,
    # Of initial weights, generator noise and mapping samples.
    'seed': 0,
  }


def paper() -> dict:
  """Returns the paper's config: stage 1 at 1024 px."""
  return {
    'stage': 'pretrain',
    'model': model(),
    # Paths of the public files. For all together, 'shipped' takes the networks of the rendered
    # world, and 'random' seeded random ones, for dry runs only.
    'weights': {
      # e4e for FFHQ: encoder, its StyleGAN2 decoder and the latent average.
      'e4e': 'weights/e4e_ffhq_encode.pt',
      # torchvision's AlexNet, and the LPIPS v0.1 linear layers on it.
      'lpips_backbone': 'weights/alexnet-owt-7be5be79.pth',
      'lpips_linear': 'weights/lpips_alex.pth',
      # ArcFace IR-SE50 by TreB1eN, as e4e and pSp use it.
      'arcface': 'weights/model_ir_se50.pth',
    },
    'data': data(),
    'optim': {
      # Ranger. e4e: 1e-4.
      'encoder_lr': 1e-4,
      # Adam, latent discriminator. e4e: 2e-5.
      'critic_lr': 2e-5,
      # Parts of a batch that are computed one after another and whose gradients are averaged; the
      # memory of layers shrinks with it. Batch normalisation sees a part alone. Ours.
      'micro_batches': 1,
    },
    # W+ rows are switched on one by one, the second at `start_steps`; every_steps 0: all at once.
    # e4e.
    'progressive': {'start_steps': 20_000, 'every_steps': 2_000},
    'loss': loss(),
    'train': train(),
    # Fields that change for a second training, which follows at once in WORKDIR/<stage> and starts
    # from this one's encoder; {}: none.
    'then': {},
    # At the end re-enacts held-out rendered people, and judges that against the true answer.
    'showcase': False,
  }


def stage_2(config: dict) -> dict:
  """Returns the fields that stage 2 changes: heads alone, a lower rate, Eq. (13) (section 4)."""
  return {
    'stage': 'finetune',
    # Paper: "a reduced learning rate". The value is ours.
    'optim': {'encoder_lr': config['optim']['encoder_lr'] / 10},
    # Ours: equal to Eqs. (5) and (6). All terms of Eq. (13) are divided by the area of the mask.
    'loss': {'weights': {'feature_reconstruction': 1.0}},
    'progressive': {'every_steps': 0},
    # Paper, section 4: 20,000, a tenth of stage 1.
    'train': {'num_steps': config['train']['num_steps'] // 10},
  }


def merged(config: dict, changes: dict) -> dict:
  """Returns `config` with the fields of `changes`, at any depth."""
  return config | {
    name: merged(config[name], value) if isinstance(value, dict) and value else value
    for name, value in changes.items()
  }


def finetune(config: dict) -> dict:
  """Returns stage 2 of a stage 1 config: its `then` where it has one, else `stage_2`."""
  return merged(config, config['then'] or stage_2(config)) | {'then': {}, 'showcase': False}


def heads() -> dict:
  """Returns the config of the rendered world at 64 px, for 2 CPU cores; all values are ours."""
  config = paper()
  config['model'] |= {
    **shipped.GENERATOR,
    'deformation_layers': first_convolutions(9),
    'frame_size': 64,
    'encoder_widths': (24, 48, 80, 128),
    'encoder_units': (2, 2, 3, 2),
    'encoder_reduction': 4,
    'head_width': 64,
    'identity_split': (3, 4, 3),
    'deformation_split': (2, 4, 3),
    'polyphase_from': 512,
    'half_dtype': '',
    **{f'lpips_{name}': value for name, value in shipped.LPIPS.items()},
    **{f'arcface_{name}': value for name, value in shipped.ARCFACE.items()},
  }
  config['weights'] = {name: 'shipped' for name in config['weights']}
  config['data'] |= {'rendered_people': 200, 'frames_per_clip': 12, 'batch_size': 8}
  config['optim'] |= {'encoder_lr': 1e-3}
  config['progressive'] |= {'start_steps': 0, 'every_steps': 0}
  config['loss'] |= {'resolution': 64}
  config['loss']['weights'] |= {'anchor_identity': 0.25, 'puppet_identity': 0.25}
  config['train'] |= {
    'num_steps': 300,
    'log_steps': 20,
    'sample_steps': 300,
    'checkpoint_steps': 100,
    'val_steps': 100,
    'val_batches': 8,
  }
  config['then'] = merged(
    stage_2(config),
    {
      # Mouth, eyes and brows have few of 64 x 64 pixels, and the run is short.
      'optim': {'encoder_lr': 3e-4},
      'loss': {'weights': {'feature_reconstruction': 4.0}},
      'train': {'num_steps': 80, 'sample_steps': 80, 'val_steps': 40},
    },
  )
  config['showcase'] = True
  return config


def heads_full() -> dict:
  """Returns `heads` for as long as the shipped encoder was trained: an hour on 2 CPU cores."""
  config = heads()
  config['data'] |= {'rendered_people': 1_500, 'frames_per_clip': 10}
  config['train'] |= {'num_steps': 5_000, 'checkpoint_steps': 250, 'val_steps': 500}
  config['train'] |= {'log_steps': 50, 'sample_steps': 500}
  config['then']['train'] |= {'num_steps': 1_500, 'sample_steps': 500, 'val_steps': 100}
  return config


def heads_256() -> dict:
  """The rendered world at 256 px: the grown generator, and an encoder that sees 128 px."""
  config = heads_full()
  config['model'] |= {
    **shipped.GENERATOR_256,
    'frame_size': 128,
    # The four new rows read the fine level. The deformation stays on the layers up to 64 px.
    'identity_split': (3, 4, 7),
  }
  # LPIPS and ArcFace were trained on 64 px frames; at 128 px the loss sees eyes and teeth.
  config['loss'] |= {'resolution': 128}
  config['optim'] |= {'encoder_lr': 5e-4}
  config['train'] |= {'num_steps': 4_000}
  return config


def tiny() -> dict:
  """Returns a 64 px model with random frozen networks: every part runs, nothing is learnt."""
  config = paper()
  config['model'] |= {
    'resolution': 64,
    'channel_base': 1024,
    'channel_max': 32,
    'w_dim': 64,
    'deformation_layers': first_convolutions(7),
    'frame_size': 64,
    'encoder_widths': (8, 16, 32, 64),
    'encoder_units': (2, 2, 2, 2),
    'encoder_reduction': 4,
    'head_width': 64,
    'identity_split': (3, 4, 3),
    'deformation_split': (2, 4, 1),
    'half_dtype': '',
    'lpips_widths': (8, 24, 48, 32, 32),
    'arcface_size': 48,
    'arcface_embedding': 64,
    'arcface_widths': (8, 16, 32, 64),
    'arcface_units': (2, 2, 2, 2),
    'arcface_reduction': 4,
  }
  config['weights'] = {name: 'random' for name in config['weights']}
  config['data'] |= {'frames_per_clip': 16, 'batch_size': 4}
  config['progressive'] |= {'start_steps': 40, 'every_steps': 10}
  config['loss'] |= {'resolution': 64}
  config['train'] |= {
    'num_steps': 200,
    'log_steps': 10,
    'sample_steps': 100,
    'checkpoint_steps': 100,
    'val_steps': 100,
    'val_batches': 2,
  }
  return config
