"""Triton kernels of the scan and of the imagination step, for CUDA; the PyTorch forms are their oracle.

- `use_kernels(backend, tensors)`: whether a call goes to a kernel, by "auto", "torch" or "triton".
- `ssd_scan_cuda`: the SSD scan of Mamba-2 and Mamba-3, forward and backward.
- `fused_step`: all of a Mamba-3 or Mamba-2 step between its projections; PyTorch where the kernel does not fit.
- `kernels.timing.measure_kernels`: both timed against the card's limits.

Nothing here needs triton to be imported; kernels are compiled at their first call, from a fixed table of block sizes.
"""

from robonav.ssm.kernels.dispatch import Backend, available, interpreted, use_kernels
from robonav.ssm.kernels.scan import ssd_scan_cuda
from robonav.ssm.kernels.step import StepForm, StepInput, StepState, StepWeights, fused_step, step_torch

__all__ = [
    "Backend",
    "StepForm",
    "StepInput",
    "StepState",
    "StepWeights",
    "available",
    "fused_step",
    "interpreted",
    "ssd_scan_cuda",
    "step_torch",
    "use_kernels",
]
