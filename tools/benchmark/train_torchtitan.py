"""Steps of torchtitan: its Llama 3, parallelised by its own function for one device, with its loss, optimizer and clipping."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import default_adamw
from torchtitan.config import CompileConfig, ParallelismConfig, TrainingConfig
from torchtitan.distributed import ParallelDims, parallel_dims
from torchtitan.distributed import utils as parallel_utils
from torchtitan.distributed.activation_checkpoint import SelectiveAC
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.attention import ScaledDotProductAttention
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.llama3 import Llama3Model, Llama3StateDictAdapter, _build_llama3_layers, parallelize_llama
from torchtitan.models.llama3.sharding import set_llama3_sharding_config

from tools.benchmark.train_cases import Case
from tools.benchmark.train_job import Job
from tools.benchmark.train_peer import ADAMW, MAXIMUM_NORM, targets_of, weights_in


def build(job: Job) -> Callable[[Tensor], Tensor]:
    """Its step. Settings: `compile` each block and the loss, `recompute` selectively, `whole_loss` rather than in 8 chunks.

    Its data gives every token a position, from which its attention (FlexAttention) masks documents; there are none here, so that its plain
    SDPA serves, as it does for its diffusion model: the CPU has no backward pass of FlexAttention.
    """
    _join(job.device)
    parallelism = ParallelismConfig()
    parallel_utils.set_spmd_backend(parallelism.spmd_backend)
    dims = ParallelDims.from_config(parallelism, 1)
    dims.build_mesh()
    config = model_config(job.case)
    set_llama3_sharding_config(config, enable_sp=parallelism.enable_sequence_parallel)
    compile_config = CompileConfig(enable=bool(job.settings.get("compile")))
    with torch.device(job.device):
        model = config.build()
        model.init_weights()
    model.load_state_dict(Llama3StateDictAdapter(config, None).from_hf(dict(weights_in(job.directory))))
    model = parallelize_llama(
        model,
        parallel_dims=dims,
        training=TrainingConfig(local_batch_size=job.case.rows, seq_len=job.case.length),
        parallelism=parallelism,
        compile_config=compile_config,
        ac_config=SelectiveAC.Config() if job.settings.get("recompute") else None,
        dump_folder=job.directory,
    )
    model.train()
    whole = CrossEntropyLoss.Config(global_vocab_size=job.case.architecture.vocab_size)
    if job.settings.get("whole_loss"):
        loss_of: Any = whole.build(compile_config=compile_config)
    else:
        loss_of = ChunkedLossWrapper.Config(loss_fn=whole).build(compile_config=compile_config)
        loss_of.set_lm_head(model.lm_head)
        model._skip_lm_head = True
    optimizers = default_adamw(lr=job.lr, **ADAMW).build(model_parts=[model])
    parameters = list(model.parameters())
    in_context = parallel_utils.get_spmd_context(parallel_dims=dims, spmd_typechecking=False)
    positions = torch.arange(job.case.length, device=job.device).expand(job.case.rows, -1)

    def step(tokens: Tensor) -> Tensor:
        optimizers.zero_grad()
        tokens, targets = tokens.to(job.device), targets_of(tokens).to(job.device)
        counted = torch.tensor(tokens.shape[0] * (tokens.shape[1] - 1), device=job.device)
        with in_context():
            loss, _ = loss_of(model(tokens, positions=positions), targets, counted)
            loss.backward()
        parallel_utils.clip_grad_norm_(parameters, MAXIMUM_NORM, foreach=True)
        optimizers.step()
        detached: Tensor = loss.detach()
        return detached

    return step


def model_config(case: Case) -> Any:
    """Its configuration of the model."""
    size = case.architecture
    rope = ComplexRoPE.Config(dim=size.head_dim, max_seq_len=case.length, theta=size.rotary_emb_base, scaling="none")
    layers = _build_llama3_layers(
        n_layers=size.num_layers,
        dim=size.hidden_size,
        n_heads=size.num_attention_heads,
        n_kv_heads=size.num_kv_heads,
        hidden_dim=size.mlp_width,
        rope=rope,
        attn_backend="flex",
    )
    for layer in layers:
        layer.attention.inner_attention = ScaledDotProductAttention.Config()
        layer.attention_norm.eps = layer.ffn_norm.eps = size.norm_epsilon
    linear = {"in_features": size.hidden_size, "out_features": size.vocab_size}
    return Llama3Model.Config(
        dim=size.hidden_size,
        vocab_size=size.vocab_size,
        tok_embeddings=Embedding.Config(
            num_embeddings=size.vocab_size, embedding_dim=size.hidden_size, param_init={"weight": skip_param_init}
        ),
        norm=RMSNorm.Config(
            normalized_shape=size.hidden_size, eps=size.norm_epsilon, param_init={"weight": skip_param_init}
        ),
        lm_head=Linear.Config(**linear, param_init={"weight": skip_param_init}),
        layers=layers,
    )


def _join(device: str) -> None:
    """torch.distributed of one process; torchtitan takes a machine for one with GPUs, where it sees no other accelerator."""
    parallel_dims.device_type = device
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group("gloo" if device == "cpu" else "nccl")
