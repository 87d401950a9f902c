"""Where networks run, and how exactly."""

import torch

from anchorsfm.networks.devices import inference


def test_float32_is_float32_on_a_gpu_too_and_only_meanwhile() -> None:
    before = torch.backends.cudnn.allow_tf32
    with inference():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.is_inference_mode_enabled()
    assert before and torch.backends.cudnn.allow_tf32 is before
    assert not torch.is_inference_mode_enabled()
