"""Training from preferences and rewards (DPO, reward models, KTO, REINFORCE) and online data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from megatron.components import OBJECTIVES
from megatron.neox_arguments.keys.planned import PLANNED
from megatron.neox_arguments.keys.types import ComponentName, Group, Integer, Number, Texts


class PostTrainingArgs(Group):
    """The objective and what belongs to it."""

    train_impl: Annotated[str, ComponentName(OBJECTIVES, PLANNED["train_impl"])] = "normal"
    """What is minimised: `normal` next-token loss, `dpo` preference pairs, `rm` reward model, `kto` single rewarded answers,
    `reinforce` sampled answers with rewards."""

    dataset_impl: Literal["gpt2", "pairwise", "online"] = "gpt2"
    """Shape of the data: plain text samples, chosen/rejected pairs, or samples sent by a server while training."""

    allow_chopped: bool = True
    """Whether documents longer than a sample (seq_length + 1 tokens) are cut (true) or left out (false). Only where pack_impl keeps
    documents whole: `packed` cuts them wherever a sample ends."""

    dpo_fp32: bool = True
    """Compute the DPO loss from fp32 log-probabilities."""

    dpo_reference_free: bool = False
    """Leave the reference model out of DPO: cheaper, but nothing holds the policy near its start."""

    dpo_beta: Number = Field(0.1, gt=0)
    """Strength of the pull towards the reference model in DPO; smaller lets the policy move further."""

    kto_fp32: bool = True
    """Compute the KTO loss from fp32 log-probabilities."""

    kto_desirable_weight: Number = Field(1.0, ge=0)
    """Weight of answers with positive reward in KTO; use it to balance unequal numbers of good and bad answers."""

    kto_undesirable_weight: Number = Field(1.0, ge=0)
    """Weight of answers with negative reward in KTO."""

    kto_beta: Number = Field(0.1, gt=0)
    """Strength of the pull towards the reference model in KTO."""

    z_loss: Number = Field(0.0, ge=0)
    """Weight of the square of the log partition function added to the loss; about 1e-4 keeps logits from drifting. 0 switches it
    off."""

    fp32_reinforce: bool = True
    """Compute the REINFORCE loss from fp32 log-probabilities."""

    kl_impl: Literal["abs", "mse", "kl", "full"] = "mse"
    """Estimate of the divergence from the reference policy: absolute difference, half squared difference or difference of the
    log-probabilities of the sampled tokens, or the exact sum over the vocabulary."""

    kl_div_beta: Number = Field(0.1, ge=0)
    """Weight of that divergence in the REINFORCE loss."""

    reinforce_leave_one_out: bool = False
    """Subtract from each reward the mean reward of the other samples of its prompt (RLOO), which lowers the variance."""

    train_label_data_paths: Texts | None = None
    """Datasets of labels, one for each of train_data_paths, with the same documents: the token itself where it is to be predicted, -100
    where no loss is taken."""

    train_reward_data_paths: Texts | None = None
    """Datasets of rewards (one number a document) aligned with train_data_paths."""

    valid_label_data_paths: Texts | None = None
    """As train_label_data_paths, for validation. Without them all tokens of valid_data_paths count."""

    valid_reward_data_paths: Texts | None = None
    """As train_reward_data_paths, for validation."""

    test_label_data_paths: Texts | None = None
    """As train_label_data_paths, for the final test. Without them all tokens of test_data_paths count."""

    test_reward_data_paths: Texts | None = None
    """As train_reward_data_paths, for the final test."""

    pos_train_data_paths: Texts | None = None
    """Datasets of the chosen answers for training, aligned with neg_train_data_paths."""

    neg_train_data_paths: Texts | None = None
    """Datasets of the rejected answers for training."""

    pos_train_label_data_paths: Texts | None = None
    """Labels of the chosen answers for training."""

    neg_train_label_data_paths: Texts | None = None
    """Labels of the rejected answers for training."""

    pos_valid_data_paths: Texts | None = None
    """Datasets of the chosen answers for validation."""

    neg_valid_data_paths: Texts | None = None
    """Datasets of the rejected answers for validation."""

    pos_valid_label_data_paths: Texts | None = None
    """Labels of the chosen answers for validation."""

    neg_valid_label_data_paths: Texts | None = None
    """Labels of the rejected answers for validation."""

    pos_test_data_paths: Texts | None = None
    """Datasets of the chosen answers for the final test."""

    neg_test_data_paths: Texts | None = None
    """Datasets of the rejected answers for the final test."""

    pos_test_label_data_paths: Texts | None = None
    """Labels of the chosen answers for the final test."""

    neg_test_label_data_paths: Texts | None = None
    """Labels of the rejected answers for the final test."""

    serve_model_weights: bool = False
    """Offer the current weights to sampling processes over TCP while training."""

    weight_server_port: Integer | tuple[Integer, ...] = 6000
    """Port, or one port for each data-parallel rank, on which weights are offered."""

    online_dataserver_ips: str | Texts = "localhost"
    """Address, or addresses, of the servers that send samples when dataset_impl is online."""

    online_dataserver_ports: Integer | tuple[Integer, ...] = 10000
    """Port, or ports, of those servers."""
