"""Classes of devices that kernels come with cuts for."""

import torch


@torch.compiler.assume_constant_result  # what kind of device it is, PyTorch's compiler cannot ask
def is_hopper(device: torch.device) -> bool:
    """Whether it is an H100, an H200 or their like, on which cuts were measured."""
    return device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device)[0] == 9
