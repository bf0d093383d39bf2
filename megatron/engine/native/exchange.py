"""What the replicas exchange of a bucket in a step: the sum of its gradients, and under ZeRO 1 the weights that each has updated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.engine.native.bucket import Bucket
from megatron.mpu.collectives import Pending, start_all_reduce, start_fill_from_slices, start_sum_of_own_slice
from megatron.mpu.groups import Group


@dataclass(frozen=True)
class Sum:
    """A sum of a bucket's gradients under way."""

    bucket: Bucket
    message: Tensor
    pending: Pending

    def wait(self) -> None:
        """Until the gradients that this rank updates by are sums over the replicas."""
        self.pending.wait()
        if self.message is not self.bucket.gradients:
            self.bucket.updated.of(self.bucket.gradients).copy_(self.bucket.updated.of(self.message))


@dataclass(frozen=True)
class Exchange:
    """Between `replicas`; divides: ZeRO 1; message: the format in which gradients travel, and are added up on the way."""

    replicas: Group
    divides: bool
    message: torch.dtype

    def start_sum(self, bucket: Bucket) -> Sum:
        """Begin to sum the bucket's gradients, in place where they travel as they are."""
        message = bucket.gradients if self.replicas.size == 1 else bucket.gradients.to(self.message)
        start = start_sum_of_own_slice if self.divides else start_all_reduce
        return Sum(bucket, message, start(message, self.replicas))

    def start_weights(self, bucket: Bucket) -> Pending:
        """Give the updated weights to the model, and begin to share them."""
        weights = bucket.updated.of(bucket.weights)
        if weights.dtype != bucket.master.dtype:
            weights.copy_(bucket.master)
        return start_fill_from_slices(bucket.weights, self.replicas) if self.divides else Pending(bucket.weights)
