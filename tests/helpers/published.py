"""Files of published weights with random numbers, and one that holds code."""

import torch


def published_content(head, **changes):
    """The layout of a published file."""
    count, channels = head.classes.num_classes, head.channels
    state = {
        "decode_head.conv_seg.weight": torch.randn(count, channels, 1, 1),
        "decode_head.conv_seg.bias": torch.randn(count),
        "decode_head.bn.weight": torch.rand(channels),
        "decode_head.bn.bias": torch.randn(channels),
        "decode_head.bn.running_mean": torch.randn(channels),
        "decode_head.bn.running_var": torch.rand(channels) + 0.5,
        "decode_head.bn.num_batches_tracked": torch.tensor(40_000),
    }
    return {"meta": {"CLASSES": head.classes.names}, "state_dict": state | changes, "optimizer": {}}


class Hostile:
    """Writes the file `owned` where it is loaded."""

    def __reduce__(self):
        return open, ("owned", "w")
