"""What other programs call our keys, for whoever comes from there: Megatron-LM, Hugging Face, DeepSpeed, nanoGPT."""

from __future__ import annotations

OTHER_NAMES: dict[str, str] = {
    # the model
    **dict.fromkeys(("n_layer", "n_layers", "num_hidden_layers", "layers", "depth"), "num_layers"),
    **dict.fromkeys(("n_embd", "d_model", "dim", "hidden_dim", "model_dim"), "hidden_size"),
    **dict.fromkeys(("n_head", "n_heads", "num_heads", "heads"), "num_attention_heads"),
    **dict.fromkeys(("n_kv_heads", "num_key_value_heads", "num_query_groups"), "num_kv_heads"),
    **dict.fromkeys(("ffn_hidden_size", "n_inner", "ffn_size"), "intermediate_size"),
    **dict.fromkeys(("block_size", "context_length", "sequence_length", "max_seq_len", "max_seq_length"), "seq_length"),
    **dict.fromkeys(("n_positions", "n_ctx"), "max_position_embeddings"),
    **dict.fromkeys(("rope_theta", "rotary_base"), "rotary_emb_base"),
    **dict.fromkeys(("rotary_percent", "partial_rotary_factor"), "rotary_pct"),
    **dict.fromkeys(("hidden_act", "activation_function"), "activation"),
    **dict.fromkeys(("position_embedding_type", "position_embedding"), "pos_emb"),
    **dict.fromkeys(("normalization", "norm_type"), "norm"),
    **dict.fromkeys(("dropout", "resid_pdrop"), "hidden_dropout"),
    "attn_pdrop": "attention_dropout",
    "initializer_range": "init_method_std",
    # layout and batch
    **dict.fromkeys(("tensor_model_parallel_size", "tensor_parallel_size", "tp", "tp_size"), "model_parallel_size"),
    **dict.fromkeys(("pipeline_model_parallel_size", "pipeline_parallel_size", "pp", "pp_size"), "pipe_parallel_size"),
    **dict.fromkeys(("cp", "cp_size", "context_parallel"), "context_parallel_size"),
    **dict.fromkeys(("ulysses_size", "ulysses_sequence_parallel_size", "ulysses_degree"), "context_parallel_size"),
    **dict.fromkeys(("global_batch_size", "total_batch_size"), "train_batch_size"),
    **dict.fromkeys(("micro_batch_size", "per_device_train_batch_size"), "train_micro_batch_size_per_gpu"),
    **dict.fromkeys(("grad_accumulation_steps", "accumulate_grad_batches"), "gradient_accumulation_steps"),
    **dict.fromkeys(("gradient_checkpointing", "recompute_activations"), "checkpoint_activations"),
    # the run
    **dict.fromkeys(("learning_rate", "max_lr"), "optimizer.params.lr"),
    **dict.fromkeys(("adam_eps", "adam_epsilon"), "optimizer.params.eps"),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "beta1", "beta2"), "optimizer.params.betas"),
    **dict.fromkeys(("max_steps", "max_iters", "train_steps", "num_steps", "iterations"), "train_iters"),
    **dict.fromkeys(("epochs", "num_epochs", "num_train_epochs"), "train_epochs"),
    **dict.fromkeys(("warmup_ratio", "warmup_fraction", "lr_warmup_fraction"), "warmup"),
    **dict.fromkeys(("lr_scheduler_type", "lr_schedule"), "lr_decay_style"),
    **dict.fromkeys(("max_grad_norm", "grad_clip"), "gradient_clipping"),
    **dict.fromkeys(("save_interval", "save_steps"), "checkpoint_factor"),
    **dict.fromkeys(("save_total_limit", "keep_last"), "keep_last_n_checkpoints"),
    **dict.fromkeys(("output_dir", "save_dir", "out_dir"), "save"),
    **dict.fromkeys(("resume_from_checkpoint", "load_dir"), "load"),
    "exit_duration_in_mins": "exit_duration_minutes",
    **dict.fromkeys(("eval_steps", "val_interval"), "eval_interval"),
    **dict.fromkeys(("logging_steps", "log_every"), "log_interval"),
    **dict.fromkeys(("nproc_per_node", "num_devices", "gpus"), "num_gpus"),
    **dict.fromkeys(("nnodes", "nodes"), "num_nodes"),
    **dict.fromkeys(("tokenizer_file", "tokenizer_model", "tokenizer_path"), "vocab_file"),
    **dict.fromkeys(("dataset", "train_data", "data"), "data_path"),
}
"""Other name -> the key here."""
