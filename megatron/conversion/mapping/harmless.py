"""Keys of a `config.json` that change nothing in what a trained model computes, in models of every family."""

from __future__ import annotations

HARMLESS = frozenset(
    {
        # What files and programs note about themselves.
        *("architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "auto_map"),
        *("_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "transformers.js_config"),
        *("unsloth_fixed", "unsloth_version", "pretraining_tp", "chunk_size_feed_forward", "gradient_checkpointing"),
        # Tokens.
        *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "decoder_start_token_id"),
        *("tokenizer_class", "model_max_length"),
        # Training.
        *("initializer_range", "init_std", "layerdrop", "dropout", "attention_dropout", "activation_dropout"),
        *("hidden_dropout", "residual_dropout", "resid_dropout", "embedding_dropout", "embed_dropout"),
        *("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_probs_dropout_prob", "hidden_dropout_prob"),
        # Outputs, and heads that are told by the class of the model.
        *("use_cache", "return_dict", "output_attentions", "output_hidden_states", "is_decoder", "is_encoder_decoder"),
        *("problem_type", "id2label", "label2id", "num_labels", "classifier_dropout", "task_specific_params"),
        # Generation.
        *("max_length", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "num_beams"),
        "length_penalty",
    }
)
