"""Processes that find each other with --coordinator=auto, as those of a SLURM job do."""

import os
import subprocess


def start(job, command, devices=2, **options):
  """Starts two processes of a command, of `devices` CPU devices each; JAX takes a port from `job`.

  Options are those of `subprocess.Popen`.
  """
  both = []
  for k in range(2):
    variables = {
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
      'SLURM_JOB_ID': f'{job}',
      'SLURM_STEP_NODELIST': 'localhost',
      'SLURM_NTASKS': '2',
      'SLURM_PROCID': f'{k}',
      'SLURM_LOCALID': f'{k}',
    }
    environment = os.environ | options.get('env', {}) | variables
    both.append(
      subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options | {'env': environment})
    )
  return both
